"""The network: token ids to last hidden states, for BERT, RoBERTa and XLM-R weights.

    B texts · L tokens (padded) · d hidden · h heads · f feed-forward

Post-norm as in Devlin et al. 2019; positions as in XLM-R (Conneau et al. 2020). Read it from the top.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trichrome.encoder.config import BackboneConfig


class Backbone(nn.Module):
    """ids [B, L] and mask [B, L] (true = real token) → hidden states [B, L, d], free at padding."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocab_size, config.hidden)
        self.position = nn.Embedding(config.positions, config.hidden)
        self.segment = nn.Embedding(config.token_types, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x, attend = self.embed(ids, mask)
        for layer in self.layers:
            x = layer(x, attend)
        return x

    def embed(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Word + position + segment, normalised [B, L, d], and what may be attended [B, 1, 1, L] or None."""
        length = ids.shape[1]
        if length > self.config.max_tokens:
            raise ValueError(f"{length} tokens, but the position table takes {self.config.max_tokens}")
        first = self.config.first_position
        # padding stands at the end, so the positions of real tokens are first, first + 1, …
        where = self.position.weight[first : first + length] + self.segment.weight[0]  # [L, d]
        x: Tensor = self.dropout(self.norm(self.word(ids) + where))  # [B, L, d]
        return x, None if mask is None or bool(mask.all()) else mask[:, None, None, :]


class LinearGelu(nn.Linear):
    """x [..., in] → GELU(x W^T + b) [..., out]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(super().forward(input))


class Layer(nn.Module):
    """One transformer layer: attention, add, norm; feed-forward, add, norm."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.p = config.dropout
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)
        self.norm1 = nn.LayerNorm(config.hidden, eps=config.eps)
        self.up = LinearGelu(config.hidden, config.ffn)
        self.down = nn.Linear(config.ffn, config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden, eps=config.eps)

    def forward(self, x: Tensor, attend: Tensor | None) -> Tensor:
        x = self.norm1(x + self._drop(self.attention(x, attend)))  # [B, L, d]
        x = self.norm2(x + self._drop(self.down(self.up(x))))  # [B, L, d] → [B, L, f] → [B, L, d]
        return x

    def attention(self, x: Tensor, attend: Tensor | None) -> Tensor:
        b, length, d = x.shape
        qkv = self.qkv(x).view(b, length, 3, self.heads, d // self.heads)  # [B, L, 3, h, d/h]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, h, L, d/h]
        p = self.p if self.training else 0.0
        if _trains_in_bfloat16_on_a_cpu(q):
            mixed = _cpu_attention(q, k, v, attend, p)  # [B, h, L, d/h]
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=p)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, length, d))  # [B, L, d]
        return out

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)


#: Up to so many tokens, products that are written out beat the fused kernel in bfloat16 on a CPU.
_EXPLICIT_TOKENS = 256


def _trains_in_bfloat16_on_a_cpu(q: Tensor) -> bool:
    return q.requires_grad and q.dtype == torch.bfloat16 and q.device.type == "cpu"


def _cpu_attention(q: Tensor, k: Tensor, v: Tensor, attend: Tensor | None, p: float) -> Tensor:
    """q, k, v [B, h, L, d/h] → [B, h, L, d/h], what F.scaled_dot_product_attention computes.

    The backward pass of that, in bfloat16 on a CPU, takes several times as long as either of these ways.
    """
    b, h, length, width = q.shape
    if length > _EXPLICIT_TOKENS:
        q, k, v = (x.float() for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attend, dropout_p=p).to(torch.bfloat16)
    q, k, v = (x.reshape(b * h, length, width) for x in (q, k, v))
    if attend is None:
        bias = q.new_zeros(1, 1, 1)
    else:
        bias = torch.zeros_like(attend, dtype=q.dtype).masked_fill(~attend, -torch.inf)  # [B, 1, 1, L]
        bias = bias.expand(b, h, 1, length).reshape(b * h, 1, length)
    products = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)  # [B·h, L, L]
    shares = F.dropout(products.softmax(-1), p)
    return torch.bmm(shares, v).view(b, h, length, width)
