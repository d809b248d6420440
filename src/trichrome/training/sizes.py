"""Batch sizes measured on the device: how many rows of each length group fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from trichrome.encoder.heads import Batch, Outputs
from trichrome.errors import TrichromeError
from trichrome.storage import write_json
from trichrome.training.recipe import Recipe


def kept_sizes(path: Path, measure: Callable[[], Mapping[int, int]]) -> dict[int, int]:
    """The sizes in a file, which is written first where it is absent: a run that goes on, and every other
    process, has the batches that were measured once. TrichromeError: the file is not ours."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {str(tokens): rows for tokens, rows in measure().items()})
    try:
        return {int(tokens): int(rows) for tokens, rows in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise TrichromeError(f"{path}: not measured batch sizes; delete it to measure again") from None


def with_sizes(recipe: Recipe, sizes: Mapping[int, int], processes: int) -> Recipe:
    """The recipe whose batches have so many rows for each process, and go through the network at once.

    TrichromeError: a length group that occurs is missing, since not even one row of it fits.
    """
    batches = recipe.batches
    if missing := sorted(set(groups_up_to(recipe)) - set(sizes)):
        raise TrichromeError(
            f"not even one row with {batches.group_size} passages of {missing[0]} tokens fits; "
            "lower batches.passage_tokens or batches.group_size, or leave measure_sizes out"
        )
    largest = max(rows * batches.group_size * tokens for tokens, rows in sizes.items())
    return replace(
        recipe,
        batches=replace(batches, sizes={tokens: rows * processes for tokens, rows in sizes.items()}),
        sub_batch_tokens=max(recipe.sub_batch_tokens, largest),
        measure_sizes=False,
    )


def groups_up_to(recipe: Recipe) -> tuple[int, ...]:
    """The length groups that passages of the recipe can be in."""
    groups, most = recipe.batches.groups, recipe.batches.passage_tokens
    return tuple(g for i, g in enumerate(groups) if i == 0 or groups[i - 1] < most)


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
