"""The three heads: what a network makes of its last hidden states H [B, L, d] (M3 paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trichrome.encoder.config import EncoderConfig


@dataclass(frozen=True)
class Batch:
    """Padded texts. ids [B, L]; mask [B, L] real tokens; scored [B, L] tokens that speak of the text."""

    ids: Tensor
    mask: Tensor
    scored: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(self.ids.to(device), self.mask.to(device), self.scored.to(device))


@dataclass(frozen=True)
class Outputs:
    """What trichrome.scoring takes, with gradients.

    dense [B, d], unit length. sparse_weights [B, L] ≥ 0, for the ids of the batch, 0 where a token never
    counts. vectors [B, L, d'], unit length, and vector_mask [B, L]. None where there is no such head.
    """

    dense: Tensor | None
    sparse_weights: Tensor | None
    vectors: Tensor | None
    vector_mask: Tensor


class Heads(nn.Module):
    """Dense pooling, the sparse head w = relu(W·h + b) and the multi-vector head norm(W·h + b)."""

    unscored: Tensor

    def __init__(self, config: EncoderConfig, hidden: int) -> None:
        super().__init__()
        self.pooling, self.cls_id = config.pooling, config.cls_id
        self.sparse = nn.Linear(hidden, 1) if config.sparse else None
        self.multivector = nn.Linear(hidden, config.multivector_dim) if config.multivector_dim else None
        self.register_buffer("unscored", torch.tensor(config.unscored_ids), persistent=False)

    def forward(
        self, hidden: Tensor, batch: Batch, dense: bool = True, sparse: bool = True, multivector: bool = True
    ) -> Outputs:
        """hidden [B, L, d] → Outputs; heads not asked for are not computed."""
        weights = vectors = None
        if sparse and self.sparse is not None:
            counts = batch.scored & ~torch.isin(batch.ids, self.unscored)  # [B, L]
            weights = F.relu(self.sparse(hidden)).squeeze(-1) * counts  # [B, L]
        if multivector and self.multivector is not None:
            vectors = F.normalize(self.multivector(hidden), dim=-1)  # [B, L, d']
        pooled = F.normalize(self.pool(hidden, batch), dim=-1) if dense else None  # [B, d]
        return Outputs(pooled, weights, vectors, batch.scored)

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[B, L, d] → [B, d]: the CLS state, the mean of all tokens, or the mean of all CLS states (MCLS)."""
        if self.pooling == "cls":
            return hidden[:, 0]
        chosen = batch.mask if self.pooling == "mean" else batch.mask & (batch.ids == self.cls_id)
        share = chosen.to(hidden.dtype) / chosen.sum(1, keepdim=True)  # [B, L]
        return torch.einsum("bl,bld->bd", share, hidden)


class Network(nn.Module):
    """Backbone and heads: token ids to the three outputs in one forward pass.

    autocast: the precision that training runs the backbone's products in; None is that of its weights.
    """

    def __init__(self, backbone: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.autocast: torch.dtype | None = None

    def forward(
        self, batch: Batch, dense: bool = True, sparse: bool = True, multivector: bool = True
    ) -> Outputs:
        """Heads run in the precision of their own weights, whatever the backbone's is."""
        with torch.autocast(batch.ids.device.type, self.autocast, enabled=self.autocast is not None):
            hidden = self.backbone(batch.ids, batch.mask)  # [B, L, d]
        head = next(self.heads.parameters(), hidden)
        outputs: Outputs = self.heads(hidden.to(head.dtype), batch, dense, sparse, multivector)
        return outputs
