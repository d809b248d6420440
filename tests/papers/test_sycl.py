"""Row 56: the lists of four, their grades, and what each loss takes for positive."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trichrome.papers.pattern.graded import Graded, grade
from trichrome.papers.pattern.paper import Source
from trichrome.papers.sycl import ARMS, TEMPERATURE, baseline, four, grades_of, identities
from trichrome.training.losses import infonce
from trichrome.training.target import Target


@pytest.fixture
def collection() -> Graded:
    families = [[(f"title {n}{x}", f"a text of just six words {n}{x}") for x in "abc"] for n in range(15)]
    return grade(families, Source("made here", "free"), train=8, test=4)


def test_a_list_has_one_of_each_grade(collection: Graded) -> None:
    queries, draw = np.array([0, 5, 3]), np.random.default_rng(0)
    passages = four(collection)(queries, draw)
    assert passages.shape == (3, 3)
    own = np.array([collection.train.answers[q][0] for q in queries])
    grades = grades_of(collection)(queries, np.concatenate([own, passages.ravel()]))
    for b in range(3):
        mine = [grades[b, b], *grades[b, 3 + 3 * b : 6 + 3 * b]]
        assert mine == [3, 2, 1, 0]
        grades[b, [b, *range(3 + 3 * b, 6 + 3 * b)]] = 0
    grades[:, 5::3] = 0  # those drawn at random may be of a family that is there
    assert not grades.any()  # nothing else is worth anything for another family's title
    test = {row for known in collection.test_grades for row in known}
    assert not test & {*passages.ravel().tolist()}


def test_infonce_takes_the_upper_two_grades_for_positive() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.3, 0.2]], dtype=torch.float64)
    first = torch.tensor([[True, False, False, False]])
    graded = Target(first, torch.ones_like(first), torch.tensor([[3.0, 2, 1, 0]]))
    both = Target(torch.tensor([[True, True, False, False]]), torch.ones_like(first))
    assert baseline(scores, graded).item() == infonce(scores, both, temperature=TEMPERATURE).item()


def test_every_loss_falls_along_its_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    first = torch.eye(4, 8, dtype=torch.bool)
    target = Target(first, torch.ones_like(first), 3 * first.double())
    for loss in ARMS.values():
        scores = torch.rand(4, 8, generator=draw, dtype=torch.float64, requires_grad=True)
        before = loss(scores, target)
        (slope,) = torch.autograd.grad(before, scores)
        assert loss(scores.detach() - 1e-4 * slope / slope.norm(), target) < before
    assert all(identities().values())
