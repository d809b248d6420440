"""Faster inference on CPUs: weights laid out once for oneDNN, bias and GELU fused into the product.

The numbers are the same to float32 rounding. The operator is one that torch's own compiler emits; where a
build of torch lacks it, the plain network is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone, LinearGelu

#: The batch size, in tokens, that the layout is chosen for; any other works with it.
_TYPICAL_TOKENS = 2048


class PackedLinear(nn.Module):
    """x [..., in] → activation(x W^T + b) [..., out], for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.activation = "gelu" if isinstance(linear, LinearGelu) else "none"
        self.bias = linear.bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TYPICAL_TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.packed, self.bias, self.activation, [], "none" if self.activation == "gelu" else ""
        )
        return made


def packable(network: Network) -> bool:
    """Whether this network, where it lies and in its precision, can be packed."""
    backbone = network.backbone
    return (
        isinstance(backbone, Backbone)
        and backbone.word.weight.device.type == "cpu"
        and backbone.word.weight.dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def pack(network: Network) -> Network:
    """A network for inference that shares embeddings, norms and heads with the given one."""
    backbone = network.backbone
    assert isinstance(backbone, Backbone)  # packable said so
    with torch.inference_mode(False), torch.no_grad():
        with torch.device("meta"):
            made = Backbone(backbone.config)
        made.word, made.position, made.segment = backbone.word, backbone.position, backbone.segment
        made.norm = backbone.norm
        for ours, theirs in zip(made.layers, backbone.layers, strict=True):
            for name in ("qkv", "out", "up", "down"):
                setattr(ours, name, PackedLinear(getattr(theirs, name)))
            ours.norm1, ours.norm2 = theirs.norm1, theirs.norm2
    return Network(made, network.heads).eval()


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
