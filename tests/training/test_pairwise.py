"""Pairs of positives and negatives: by hand, against finite differences, and in the limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp, log

import pytest
import torch
from torch import Tensor

from trichrome.training.losses import lambda_rank, pairwise
from trichrome.training.target import Target

LOSSES = [pairwise, lambda_rank, partial(lambda_rank, cut=2)]
EACH = pytest.mark.parametrize("loss", LOSSES, ids=["pairwise", "lambda_rank", "cut"])
Loss = Callable[..., Tensor]


def target(positive: list[list[int]], mask: list[list[int]] | None = None) -> Target:
    yes = torch.tensor(positive).bool()
    return Target(yes, torch.ones_like(yes) if mask is None else torch.tensor(mask).bool())


def pair(positive: float, negative: float) -> float:
    """At temperature 0.5."""
    return log(1 + exp((negative - positive) / 0.5))


def test_pairs_by_hand() -> None:
    """The last score of row 2 does not count; row 3 has two positives and so two pairs."""
    scores = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.4, 9.0], [0.1, 0.3, 0.7]], dtype=torch.float64)
    marked = target([[1, 0, 0], [0, 1, 0], [1, 0, 1]], [[1, 1, 1], [1, 1, 0], [1, 1, 1]])
    rows = [
        (pair(1, 0) + pair(1, 0.5)) / 2,
        pair(0.4, 0.2),
        (pair(0.1, 0.3) + pair(0.7, 0.3)) / 2,
    ]
    assert pairwise(scores, marked, temperature=0.5).item() == pytest.approx(sum(rows) / 3)


def test_pairs_are_weighed_by_the_reciprocal_ranks_that_they_would_swap() -> None:
    """The positive 0.4 is third of four; a fifth score would be first but does not count."""
    scores = torch.tensor([[0.9, 0.4, 0.1, 0.6, 5.0]], dtype=torch.float64)
    marked = target([[0, 1, 0, 0, 0]], [[1, 1, 1, 1, 0]])
    losses = {1: pair(0.4, 0.9), 2: pair(0.4, 0.6), 4: pair(0.4, 0.1)}
    whole = sum(abs(1 / 3 - 1 / rank) * loss for rank, loss in losses.items()) / 3
    assert lambda_rank(scores, marked, temperature=0.5).item() == pytest.approx(whole)
    cut = (losses[1] * 1 + losses[2] * 1 / 2) / 3  # ranks 3 and 4 count as never reached
    assert lambda_rank(scores, marked, temperature=0.5, cut=2).item() == pytest.approx(cut)
    assert lambda_rank(scores, marked, temperature=0.5, cut=9).item() == pytest.approx(whole)


@EACH
def test_gradients_are_those_of_finite_differences(loss: Loss) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 6, generator=draw, dtype=torch.float64).requires_grad_()
    mask = [[1, 1, 1, 1, 0, 1], [1] * 6, [0, 1, 1, 1, 1, 1]]
    marked = target([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0]], mask)
    assert torch.autograd.gradcheck(lambda s: loss(s, marked, temperature=0.7), scores)


@EACH
def test_what_is_masked_changes_nothing(loss: Loss) -> None:
    draw = torch.Generator().manual_seed(1)
    scores = torch.randn(2, 4, generator=draw)
    wide = torch.cat([scores, torch.tensor([[99.0], [-99.0]])], 1)
    alone = loss(scores, target([[1, 0, 0, 0], [0, 0, 1, 0]]))
    both = loss(wide, target([[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]], [[1, 1, 1, 1, 0]] * 2))
    assert both.item() == pytest.approx(alone.item())


@EACH
def test_limits(loss: Loss) -> None:
    """Without a negative 0, and a gradient of 0; all scores alike, finite; far apart, neither nan nor inf."""
    alone = torch.ones(1, 1, requires_grad=True)
    made = loss(alone, target([[1]]))
    torch.autograd.backward(made)
    assert made.item() == 0
    assert alone.grad is not None
    assert alone.grad.item() == 0
    same = loss(torch.zeros(1, 3), target([[0, 1, 0]]), temperature=1.0)
    assert 0 < same.item() <= log(2) + 1e-6
    far = torch.tensor([[-1e4, 1e4]], dtype=torch.bfloat16, requires_grad=True)
    made = loss(far, target([[1, 0]]))
    torch.autograd.backward(made)
    assert made.isfinite()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_a_negative_counts_by_its_own_score() -> None:
    """What InfoNCE does not do: another, harder negative leaves its gradient as it is."""
    one = torch.tensor([[1.0, 0.8, -9.0]], requires_grad=True)
    other = torch.tensor([[1.0, 0.8, 5.0]], requires_grad=True)
    for scores in (one, other):
        torch.autograd.backward(pairwise(scores, target([[1, 0, 0]]), temperature=0.1))
    assert one.grad is not None
    assert other.grad is not None
    assert one.grad[0, 1].item() == pytest.approx(other.grad[0, 1].item())
