"""Faster inference on CPUs: weights laid out once for oneDNN, bias and GELU fused into the product.

The numbers are the same to float32 rounding. The operator is one that torch's own compiler emits; where a
build of torch lacks it, the plain network is used.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone, Layer, LinearGelu

#: The batch size, in tokens, that the layout is chosen for; any other works with it.
_TYPICAL_TOKENS = 2048
#: Rows are filled up to a multiple of the second number, where there are no more than the first: oneDNN
#: compiles a kernel for every new number of rows (2 to 10 ms), but a short text alone should not pay for 128.
_ROWS = ((64, 16), (512, 32), (1 << 62, 128))


def filled(rows: int) -> int:
    """How many rows a batch of so many tokens is given."""
    step = next(step for most, step in _ROWS if rows <= most)
    return -(-rows // step) * step


class PackedLinear(nn.Module):
    """x [R, in] → activation(x W^T + b), or x W^T + b + residual [R, out], for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.activation = "gelu" if isinstance(linear, LinearGelu) else "none"
        self.bias = linear.bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TYPICAL_TOKENS)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        product = torch.ops.mkldnn._linear_pointwise
        made: Tensor
        if residual is None:
            algorithm = "none" if self.activation == "gelu" else ""
            made = product(x, self.packed, self.bias, self.activation, [], algorithm)
        else:
            made = product.binary(x, residual, self.packed, self.bias, "add")
        return made


def packable(network: Network) -> bool:
    """Whether this network, where it lies and in its precision, can be packed."""
    backbone = network.backbone
    return (
        isinstance(backbone, Backbone)
        # layers that training has wrapped (low-rank deltas) compute more than their weights say
        and all(type(m) in (nn.Linear, LinearGelu) for x in backbone.layers for m in _linears(x))
        and backbone.word.weight.device.type == "cpu"
        and backbone.word.weight.dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _linears(layer: nn.Module) -> tuple[nn.Module, ...]:
    return tuple(layer.get_submodule(name) for name in ("qkv", "out", "up", "down"))


class PackedBackbone(nn.Module):
    """What Backbone computes, for inference: ids [B, L] and mask [B, L] → hidden states [B, L, d]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.config = backbone.config
        self.embed = backbone.embed
        self.layers = nn.ModuleList(PackedLayer(cast(Layer, layer)) for layer in backbone.layers)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x, attend = self.embed(ids, mask)  # [B, L, d]
        b, length, d = x.shape
        rows = b * length
        flat = x.new_zeros(filled(rows), d)  # [R, d], R ≥ B·L
        flat[:rows] = x.view(rows, d)
        joined = torch.zeros_like(flat)  # what the heads of a layer join in; one for all layers
        for layer in self.layers:
            flat = layer(flat, attend, joined, b, length)
        return flat[:rows].view(b, length, d)


class PackedLayer(nn.Module):
    """What Layer computes, on rows [R, d] of which the first B·L are tokens."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.heads = layer.heads
        self.qkv, self.out = PackedLinear(layer.qkv), PackedLinear(layer.out)
        self.up, self.down = PackedLinear(layer.up), PackedLinear(layer.down)
        self.norm1, self.norm2 = layer.norm1, layer.norm2

    def forward(self, x: Tensor, attend: Tensor | None, joined: Tensor, b: int, length: int) -> Tensor:
        rows, d = b * length, x.shape[1]
        qkv = self.qkv(x)[:rows].view(b, length, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, h, L, d/h]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend).transpose(1, 2)  # [B, L, h, d/h]
        joined[:rows].view(mixed.shape).copy_(mixed)
        x = self.norm1(self.out(joined, x))
        made: Tensor = self.norm2(self.down(self.up(x), x))
        return made


def pack(network: Network) -> Network:
    """A network for inference that shares embeddings, norms and heads with the given one."""
    backbone = network.backbone
    assert isinstance(backbone, Backbone)  # packable said so
    with torch.inference_mode(False), torch.no_grad():
        return Network(PackedBackbone(backbone), network.heads).eval()


class Packing:
    """Keeps the packed form of one network, and makes it anew when the weights have changed."""

    def __init__(self) -> None:
        self._made: Network | None = None
        self._of: tuple[tuple[int, int], ...] = ()

    def of(self, network: Network) -> Network:
        """The packed network, or the network itself where it can't be packed."""
        if not packable(network):
            self._made = None
            return network
        # an optimiser's step changes a tensor's version, a replaced tensor has another address
        state = tuple((p.data_ptr(), p._version) for p in network.backbone.parameters())
        if self._made is None or state != self._of:
            self._made, self._of = pack(network), state
        return self._made
