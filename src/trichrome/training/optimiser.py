"""AdamW over named parameters, its rate as a function of the step, and its state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trichrome.training.recipe import Optimiser

#: Weights that are not decayed: biases and norms.
_UNDECAYED_DIMENSIONS = 1
#: How the name of an index's centroids ends.
CENTROIDS = "centroids"


def make_optimiser(named: Mapping[str, nn.Parameter], settings: Optimiser) -> torch.optim.AdamW:
    """One group for each combination of rate (backbone, heads, an index's centroids) and decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        rate, undecayed = settings.rate, parameter.dim() <= _UNDECAYED_DIMENSIONS
        if "heads." in name and settings.head_rate is not None:
            rate = settings.head_rate
        if name.endswith(CENTROIDS) and settings.centroid_rate is not None:
            rate, undecayed = settings.centroid_rate, True  # 0 is no place for them
        decay = 0.0 if undecayed else settings.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), p in groups.items()
        ],
        betas=settings.betas,
    )


def rate_share(step: int, steps: int, settings: Optimiser) -> float:
    """The share of the peak rate at optimiser step `step` of `steps` (from 0)."""
    warmup = max(1, round(settings.warmup * steps)) if settings.warmup else 0
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / max(1, steps - warmup)  # 1 → 0
    if settings.schedule == "constant":
        return 1.0
    return left if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give every group its share of its peak rate."""
    for group in optimiser.param_groups:
        group["lr"] = share * group["peak"]


def optimiser_state(optimiser: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The moments as tensors by name: step.NAME, exp_avg.NAME, exp_avg_sq.NAME."""
    return {
        f"{kind}.{name}": torch.as_tensor(value)
        for name, parameter in named.items()
        for kind, value in optimiser.state.get(parameter, {}).items()
    }


def load_optimiser_state(
    optimiser: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """The way back."""
    for key, value in state.items():
        kind, _, name = key.partition(".")
        parameter = named[name]
        # AdamW keeps its step counter on the CPU
        optimiser.state[parameter][kind] = value if kind == "step" else value.to(parameter.device)
