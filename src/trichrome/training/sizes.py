"""Batch sizes measured on the device: how many rows of each length group fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trichrome.encoder.heads import Batch, Outputs


def measured_sizes(
    trial: Callable[[int, int], None], groups: Sequence[int], most: int = 4096, margin: float = 0.9
) -> dict[int, int]:
    """For each length group the most rows that fit, times a margin: BatchSettings.sizes.

    trial: (rows, tokens) runs one training step with such a batch, and raises an error of too little memory
    where it does not fit (see `network_trial`). groups: upper bounds in tokens. most: rows that are tried.
    A group of which not even one row fits is left out; MemoryError where that is so of all.

    Sizes are found from the longest group on: what fits there fits in a shorter one.
    """
    sizes: dict[int, int] = {}
    fitting = 0
    for tokens in sorted(groups, reverse=True):
        low, high = fitting, most + 1  # low fits, high does not (or is not asked for)
        step = max(1, low)
        while low + step < high:  # first by doubling, so that little is tried that is far too large
            if not _fits(trial, low + step, tokens):
                high = low + step
                break
            low += step
            step *= 2
        while high - low > max(1, low // 16):  # to a sixteenth: the margin is larger
            middle = (low + high) // 2
            low, high = (middle, high) if _fits(trial, middle, tokens) else (low, middle)
        fitting = low
        if low:
            sizes[tokens] = max(1, int(low * margin))
    if not sizes:
        raise MemoryError(f"not even one row of {min(groups)} tokens fits")
    return dict(sorted(sizes.items()))


def _fits(trial: Callable[[int, int], None], rows: int, tokens: int) -> bool:
    try:
        trial(rows, tokens)
    except (MemoryError, torch.OutOfMemoryError):
        return False
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True


def network_trial(
    network: nn.Module, passages: int, query_tokens: int, vocabulary: int, signals: Sequence[str]
) -> Callable[[int, int], None]:
    """A trial for `measured_sizes`: forward and backward of rows with a query and so many passages each,
    random tokens, all outputs in use. Gradients are left at None.

    Leave room (margin) for the optimiser's state and the score matrices, which it does not make.
    """
    device = next(network.parameters()).device

    def outputs(rows: int, tokens: int) -> list[Tensor]:
        ids = torch.randint(4, vocabulary, (rows, tokens), device=device)
        whole = torch.ones_like(ids, dtype=torch.bool)
        made: Outputs = network(Batch(ids, whole, whole), **{s: s in signals for s in _SIGNALS})
        return [t for t in (made.dense, made.sparse_weights, made.vectors) if t is not None]

    def trial(rows: int, tokens: int) -> None:
        try:
            made = [*outputs(rows, query_tokens), *outputs(rows * passages, tokens)]
            torch.autograd.backward(torch.stack([t.float().square().sum() for t in made]).sum())
        finally:
            for parameter in network.parameters():
                parameter.grad = None

    return trial


_SIGNALS = ("dense", "sparse", "multivector")
