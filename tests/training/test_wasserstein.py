"""The Wasserstein loss: against the closed form of Gaussians, by hand, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor

from trichrome.errors import TrichromeError
from trichrome.training.losses import wasserstein
from trichrome.training.target import Target

NAN = float("nan")


def target(teacher: Tensor, mask: Tensor | None = None) -> Target:
    positive = torch.zeros(teacher.shape, dtype=torch.bool)
    positive[:, 0] = True
    return Target(positive, torch.ones_like(positive) if mask is None else mask, teacher)


def drawn(b: int, c: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores in [-1, 1] and grades 0 … 3."""
    draw = torch.Generator().manual_seed(seed)
    scores = 2 * torch.rand(b, c, generator=draw, dtype=torch.float64) - 1
    return scores, torch.randint(0, 4, (b, c), generator=draw).double()


def closed_form(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """‖μ_X − μ_Y‖² + Tr(Σ_X + Σ_Y − 2 (Σ_X^½ Σ_Y Σ_X^½)^½), with matrix roots."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(a).real
    between = np.trace(sqrtm(root @ b @ root).real)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * between)


@pytest.mark.parametrize(("b", "c"), [(8, 5), (4, 12), (6, 6)])
def test_it_is_the_distance_of_the_two_gaussians(b: int, c: int) -> None:
    scores, grades = drawn(b, c)
    made = wasserstein(scores, target(grades), temperature=0.5, teacher_temperature=2)
    x, y = (scores / 0.5).softmax(1).numpy(), (grades / 2).softmax(1).numpy()
    assert made.shape == ()
    assert made.item() == pytest.approx(closed_form(x, y), abs=1e-7)  # sqrtm of a singular matrix


def test_two_queries_by_hand() -> None:
    """Of two rows, Σ = d dᵀ / 2 with d their difference, and Tr(Σ_X Σ_Y)^½ = |d_X · d_Y| / 2."""
    scores, grades = drawn(2, 3)
    x, y = (scores / 0.1).softmax(1), grades.softmax(1)
    dx, dy = x[0] - x[1], y[0] - y[1]
    means = (x.mean(0) - y.mean(0)).square().sum()
    wanted = means + dx.square().sum() / 2 + dy.square().sum() / 2 - (dx @ dy).abs()
    assert wasserstein(scores, target(grades), temperature=0.1).item() == pytest.approx(wanted.item())
    alone = wasserstein(scores[:1], target(grades[:1]), temperature=0.1)
    assert alone.item() == pytest.approx((x[0] - y[0]).square().sum().item())


def test_scores_that_are_their_grades_have_nothing_to_learn() -> None:
    _, grades = drawn(6, 9)
    scores = (grades * 0.05).requires_grad_()
    made = wasserstein(scores, target(grades), temperature=0.05)
    torch.autograd.backward(made)
    assert made.item() == pytest.approx(0, abs=1e-12)
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-7


def test_the_gradient_is_that_of_finite_differences() -> None:
    scores, grades = drawn(5, 7)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: wasserstein(s, target(grades), temperature=0.5), scores, eps=1e-6, atol=1e-6
    )


def test_what_has_no_grade_counts_as_0() -> None:
    scores, grades = drawn(4, 6)
    some = grades.masked_fill(grades == 0, NAN)
    assert bool((grades == 0).any())
    assert wasserstein(scores, target(some)).item() == wasserstein(scores, target(grades)).item()


def test_masked_passages_and_queries_without_a_grade_change_nothing() -> None:
    scores, grades = drawn(4, 6)
    wanted = wasserstein(scores, target(grades), temperature=0.3).item()
    mask = torch.ones(5, 8, dtype=torch.bool)
    mask[:, 6:] = False
    more, graded = torch.full((5, 8), 9.0).double(), torch.full((5, 8), 3.0).double()
    more[:4, :6], graded[:4, :6], graded[4] = scores, grades, NAN
    assert wasserstein(more, target(graded, mask), temperature=0.3).item() == pytest.approx(wanted, rel=1e-9)


def test_limits() -> None:
    scores = torch.zeros(3, 4, requires_grad=True)
    flat = wasserstein(scores, target(torch.zeros(3, 4)))  # all equal on both sides
    torch.autograd.backward(flat)
    assert flat.item() == pytest.approx(0, abs=1e-12)
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
    assert wasserstein(scores, target(torch.full((3, 4), NAN))).item() == 0
    with pytest.raises(TrichromeError, match="no grades"):
        wasserstein(scores, Target(torch.eye(3, 4).bool(), torch.ones(3, 4).bool()))
    half = wasserstein(torch.rand(3, 4).bfloat16(), target(drawn(3, 4)[1]))
    assert half.dtype == torch.float32
