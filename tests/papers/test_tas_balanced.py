"""Row 53: what its teachers know of a step, what is mined, and how it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trichrome.papers.pattern.collection import Collection, collect
from trichrome.papers.pattern.paper import Source
from trichrome.papers.pattern.teachers import Teachers
from trichrome.papers.tas_balanced import IN_BATCH, dual, identities, mine, of_mined
from trichrome.training.losses import margin_mse
from trichrome.training.target import Target


@pytest.fixture
def collection() -> Collection:
    pairs = [(f"query {n}", f"passage of query {n} and of {m}") for n in range(40) for m in range(2)]
    return collect(pairs, Source("made here", "free"), train=20, test=10, passages=80)


@pytest.fixture
def teachers(collection: Collection) -> Teachers:
    rows = np.unique(np.concatenate(collection.train.answers))
    place = np.full(len(collection.passages), -1)
    place[rows] = np.arange(len(rows))
    scores = np.arange(20 * len(rows), dtype=np.float32).reshape(20, -1)
    return Teachers(np.eye(20, dtype=np.float32), scores, -scores, place)


def test_each_teacher_knows_its_own_pairs(collection: Collection, teachers: Teachers) -> None:
    queries = np.array([3, 0, 7])
    answers = np.array([collection.train.answers[q][0] for q in queries])
    negatives = np.array([collection.train.answers[q][1] for q in (5, 6, 8)])
    pair, batch = (teach(queries, np.concatenate([answers, negatives])) for teach in teachers.both())
    eye = np.eye(3, dtype=bool)
    assert np.array_equal(~np.isnan(pair), np.hstack([eye, eye]))
    assert np.array_equal(~np.isnan(batch), np.hstack([np.ones((3, 3), bool), ~eye]))
    for b, q in enumerate(queries):
        assert pair[b, b] == teachers.pair[q, teachers.place[answers[b]]] == -batch[b, b]
        assert pair[b, 3 + b] == teachers.pair[q, teachers.place[negatives[b]]]
        other = (b + 1) % 3
        assert batch[b, 3 + other] == teachers.batch[q, teachers.place[negatives[other]]]


def test_mined_passages_answer_other_training_queries(collection: Collection, teachers: Teachers) -> None:
    of_training = {int(row) for rows in collection.train.answers for row in rows}
    for answers, rows in zip(collection.train.answers, mine(collection, teachers), strict=True):
        assert 1 <= len(rows) <= 20
        assert {*rows.tolist()} <= of_training - {*answers.tolist()}


def test_mined_passages_are_drawn_over_bins(collection: Collection, teachers: Teachers) -> None:
    mined = mine(collection, teachers)
    teachers.pair[0, teachers.place[mined[0]]] = [9.0] + [0.0] * (len(mined[0]) - 1)
    even, uneven = of_mined(teachers, mined, 10), of_mined(teachers, mined, 1)
    draw = np.random.default_rng(0)
    counts = [
        sum(take(np.array([0]), draw)[0, 0] == mined[0][0] for _ in range(200)) for take in (even, uneven)
    ]
    assert 70 < counts[0] < 130  # one of two bins
    assert counts[1] < 30  # one of twenty


def test_the_loss_is_the_sum_of_two() -> None:
    draw = torch.Generator().manual_seed(0)
    scores, one, other = (torch.rand(3, 6, generator=draw) for _ in range(3))
    positive = torch.eye(3, 6, dtype=torch.bool)
    targets = [Target(positive, torch.ones_like(positive), t * 20) for t in (one, other)]
    parts = [margin_mse(scores, target, scale=20) for target in targets]
    assert dual(scores, *targets).item() == pytest.approx((parts[0] + IN_BATCH * parts[1]).item())
    assert all(identities().values())
