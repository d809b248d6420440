"""Low-rank training of a backbone (LoRA, Hu et al. 2021, arXiv 2106.09685), by peft.

    add_lowrank(network, LowRank(rank=16))    the base is frozen; thin deltas and the heads are trained
    …train…
    save_deltas(network, "deltas.safetensors")    what is worth shipping: W + b·a, see encoder.deltas
    merge_lowrank(network)                        the deltas become part of the weights

The position table, where it is trained too, gets a delta of the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trichrome.encoder.deltas import POSITIONS, apply_deltas, base_fingerprint, write_deltas
from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone, LinearGelu
from trichrome.errors import TrichromeError
from trichrome.extras import require

_ADAPTER = "default"  # peft's name for the only one
_RECORD = "lowrank_record"  # the attribute of a backbone that says what was added


@dataclass(frozen=True)
class LowRank:
    """What is trained of a backbone.

    rank, alpha: W + (alpha / rank)·b·a with b [out, rank], a [rank, in]. targets: the last part of the names
    of the Linears that get a delta; of trichrome's own backbone there are qkv, out, up, down. dropout: on
    the delta's input. position_rank: of the position table's delta; 0 leaves the table frozen. seed: of a.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("qkv", "out", "up", "down")
    dropout: float = 0.0
    position_rank: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.position_rank < 0 or self.alpha <= 0:
            raise TrichromeError(
                f"low rank needs rank ≥ 1, alpha > 0 and position_rank ≥ 0; got rank {self.rank}, "
                f"alpha {self.alpha}, position_rank {self.position_rank}"
            )
        if not 0 <= self.dropout < 1:
            raise TrichromeError(f"low-rank dropout must be in [0, 1), got {self.dropout}")
        if not self.targets:
            raise TrichromeError("low rank needs at least one target, such as qkv")


def add_lowrank(network: Network, settings: LowRank) -> None:
    """Freeze the backbone and give it trainable deltas, in place; heads are trainable.

    The deltas start at zero: outputs are as before. The same seed gives the same start. More positions
    (encoder.positions.extend_positions, tiled) are to be made before.
    """
    backbone = network.backbone
    if hasattr(backbone, _RECORD):
        raise TrichromeError("this network has low-rank deltas already; merge_lowrank them first")
    linears = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if missing := [t for t in settings.targets if not any(name.split(".")[-1] == t for name in linears)]:
        there = sorted({name.split(".")[-1] for name in linears})
        raise TrichromeError(f"no Linear named {', '.join(missing)}; this backbone has {', '.join(there)}")
    targets = [name for name in linears if name.split(".")[-1] in settings.targets]
    if settings.position_rank and not isinstance(backbone, Backbone):
        raise TrichromeError("positions can be trained in trichrome's own backbone only")

    base = base_fingerprint(backbone, targets)
    backbone.requires_grad_(False)
    network.heads.requires_grad_(True)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        _inject(backbone, targets, settings)
        if settings.position_rank:
            delta = PositionDelta(backbone.position.weight, settings.position_rank)  # type: ignore[union-attr, arg-type]
            parametrize.register_parametrization(backbone.position, "weight", delta)  # type: ignore[arg-type]
    setattr(backbone, _RECORD, _Added(base))


def lowrank_state(network: Network) -> dict[str, Tensor]:
    """The deltas as `encoder.deltas.apply_deltas` takes them: NAME.a [r, in], NAME.b [out, r], float32.

    The factor alpha / rank is in them, and each component is shared out evenly between a and b, so that
    float16 holds both well. To go on training, keep the network's trainable parameters instead.
    """
    _added(network)
    state: dict[str, Tensor] = {}
    for name, layer in _layers(network.backbone):
        a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
        state |= _balanced(name, a, layer.scaling[_ADAPTER] * b)
    if (delta := _position_delta(network)) is not None:
        state |= _balanced(POSITIONS, delta.a, delta.b)
    return state


def save_deltas(network: Network, path: str | Path) -> None:
    """Write the deltas of a network in training as one small file, for `apply_deltas`; without the heads."""
    backbone = network.backbone
    positions = backbone.config.max_tokens if isinstance(backbone, Backbone) else None
    write_deltas(path, lowrank_state(network), _added(network).base, positions)


def extract_deltas(base: Backbone, trained: Backbone, rank: int, path: str | Path) -> float:
    """Write what sets a trained backbone apart from its base as deltas of a rank, for `apply_deltas`.

    For runs of several stages, each of which began from merged weights, and for weights trained whole. The
    base must have as many positions as the trained one. Returns the share of the squared difference that
    the deltas hold (1 where the rank suffices). TrichromeError: biases, norms or words were trained too,
    which deltas can't hold.
    """
    if base.config != trained.config:
        raise TrichromeError(f"the base has another shape: {base.config}, trained: {trained.config}")
    state: dict[str, Tensor] = {}
    kept = whole = 0.0
    modules = dict(base.named_modules())
    theirs = dict(trained.named_parameters())
    for name, old in base.named_parameters():
        if torch.equal(old, theirs[name]):
            continue
        place, _, last = name.rpartition(".")
        if last != "weight" or not (isinstance(modules[place], nn.Linear) or place == POSITIONS):
            raise TrichromeError(f"{name} was trained too; deltas hold changes of Linears and positions only")
        difference = (theirs[name].detach() - old.detach()).double()  # [out, in]
        u, strength, v = torch.linalg.svd(difference, full_matrices=False)  # [out, k], [k], [k, in]
        state |= _balanced(place, v[:rank], u[:, :rank] * strength[:rank])
        kept += float(strength[:rank].square().sum())
        whole += float(strength.square().sum())
    names = {name.rpartition(".")[0] for name in state}
    write_deltas(path, state, base_fingerprint(base, names), base.config.max_tokens)
    return kept / whole if whole else 1.0


def merge_lowrank(network: Network) -> None:
    """Make the deltas part of the weights, in place: the network is then as if it had been trained whole.

    Everything is trainable afterwards, as in a network that was loaded.
    """
    backbone = network.backbone
    state = lowrank_state(network)
    for name, layer in list(_layers(backbone)):
        linear = layer.get_base_layer()
        was_fused = isinstance(backbone.get_submodule(name), ThenGelu)
        _replace(backbone, name, ThenGelu.fuse(linear) if was_fused else linear)
    if _position_delta(network) is not None:
        parametrize.remove_parametrizations(backbone.position, "weight", leave_parametrized=False)  # type: ignore[arg-type]
    delattr(backbone, _RECORD)
    apply_deltas(backbone, state)
    backbone.requires_grad_(True)


def _inject(backbone: nn.Module, targets: list[str], settings: LowRank) -> None:
    """Let peft put its layers in place of the targets."""
    peft = require("peft", "train")
    names = []
    for name in targets:
        linear = backbone.get_submodule(name)
        if isinstance(linear, LinearGelu):
            # peft adds its product to a layer's output, and here it belongs before the activation
            _replace(backbone, name, ThenGelu(linear))
            name = f"{name}.linear"
        names.append(name)
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names
    )
    peft.inject_adapter_in_model(config, backbone, _ADAPTER)
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config


class ThenGelu(nn.Module):
    """x → GELU(linear(x)), with a Linear that peft can take hold of."""

    def __init__(self, fused: LinearGelu) -> None:
        super().__init__()
        self.linear = nn.Linear(fused.in_features, fused.out_features, device="meta")
        self.linear.weight, self.linear.bias = fused.weight, fused.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.linear(x))

    @staticmethod
    def fuse(linear: nn.Linear) -> LinearGelu:
        """The way back, with the same weights."""
        made = LinearGelu(linear.in_features, linear.out_features, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made


class PositionDelta(nn.Module):
    """The position table's delta: weight [P, d] → weight + b·a, b [P, r] zero at first, a [r, d]."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, hidden = weight.shape
        self.a = nn.Parameter(torch.randn(rank, hidden, device=weight.device) / hidden**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).to(weight.dtype)


@dataclass(frozen=True)
class _Added:
    """Left on a backbone that has deltas. base: the fingerprint of the frozen weights."""

    base: str


def _added(network: Network) -> _Added:
    record = getattr(network.backbone, _RECORD, None)
    if record is None:
        raise TrichromeError("this network has no low-rank deltas; add_lowrank makes them")
    assert isinstance(record, _Added)
    return record


def _layers(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """peft's layers under the names that the Linears had before."""
    for name, module in backbone.named_modules():
        if hasattr(module, "lora_A"):
            yield name.removesuffix(".linear"), module


def _position_delta(network: Network) -> PositionDelta | None:
    for module in network.backbone.modules():
        if isinstance(module, PositionDelta):
            return module
    return None


def _replace(backbone: nn.Module, name: str, module: nn.Module) -> None:
    place, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(place), last, module)


def _balanced(name: str, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """a [r, in], b [out, r] with the same product, component i of both of one norm."""
    a, b = a.detach().float(), b.detach().float()
    norms = a.norm(dim=1), b.norm(dim=0)  # [r] each
    share = torch.where(norms[0] * norms[1] > 0, (norms[1] / norms[0]).sqrt(), torch.ones_like(norms[0]))
    return {f"{name}.a": a * share[:, None], f"{name}.b": b / share}
