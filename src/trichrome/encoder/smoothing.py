"""Before a network is rounded to int8: how large its activations are, and what makes them hard to round.

A few channels of what a layer reads are many times larger than the others, and one scale for all of them
leaves the others few steps: that moves into the weights. Since x W^T = (x / c) (W · c)^T for any c > 0, each
channel can be divided by what makes it large, and its column of W multiplied: c_j = max|x_j|^½ / max|W_j|^½
(SmoothQuant, Xiao et al., arXiv 2211.10438, equation 4). The maxima of x come from a few texts. They also say
which range the steps divide, once for all texts, so that what a text becomes doesn't depend on others in its
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trichrome.encoder.batching import collate
from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.tokenizer import Tokens

#: The products whose inputs are balanced. What enters `down` has large tokens rather than large channels, and
#: is divided row by row as it comes (see `onnx_graph`); balancing it besides was slower, and no better.
BALANCED = ("qkv", "out", "up")

_LEAST = 1e-5
#: What other texts may bring beyond the largest activation of the samples; what exceeds that is cut off.
_MARGIN = 1.1


@dataclass(frozen=True)
class Balance:
    """Of one product. channels: c [in]. reach: |x / c| is taken to be no larger than this."""

    channels: Tensor
    reach: float


def smoothing(network: Network, texts: Sequence[Tokens], pad_id: int) -> dict[str, Balance]:
    """Product ("0.qkv", "0.out", "0.up", "1.qkv", …) → its balance, from what the network reads in these
    texts."""
    backbone = network.backbone
    assert isinstance(backbone, Backbone)
    products = {
        f"{i}.{name}": layer.get_submodule(name)
        for i, layer in enumerate(backbone.layers)
        for name in BALANCED
    }
    largest: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            here = inputs[0].detach().float().abs().flatten(0, -2).amax(0)  # [in]
            largest[name] = torch.maximum(largest[name], here) if name in largest else here

        return module.register_forward_pre_hook(look)

    hooks = [watch(name, module) for name, module in products.items()]
    device = next(network.parameters()).device
    try:
        with torch.inference_mode():
            for text in texts:  # one at a time: padding is not read
                batch = collate([text], pad_id).to(device)
                backbone(batch.ids, batch.mask)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _balance(largest[name], products[name]) for name in products}


def _balance(largest: Tensor, product: nn.Module) -> Balance:
    """max|x| [in] and a linear layer → c [in], 1 on (geometric) average, and the reach of x / c."""
    assert isinstance(product, nn.Linear)
    weights = product.weight.detach().float().abs().amax(0)  # [in]
    c = (largest.clamp_min(_LEAST) / weights.clamp_min(_LEAST)).sqrt()
    c = c / c.log().mean().exp()
    return Balance(c.cpu(), max(_LEAST, _MARGIN * float((largest / c).max())))
