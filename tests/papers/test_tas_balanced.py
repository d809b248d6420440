"""Row 53: what its teachers know of a step, what is mined, and how it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trichrome import scoring
from trichrome.embeddings import SIGNALS, Embeddings, MultiVector, Sparse
from trichrome.papers.pattern.collection import Collection, collect
from trichrome.papers.pattern.paper import Source
from trichrome.papers.pattern.teachers import SCALE, Teachers
from trichrome.papers.tas_balanced import IN_BATCH, drawn, dual, identities, mine
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
    return Teachers(random_embeddings(len(collection.train), 0), random_embeddings(len(rows), 1), place)


def random_embeddings(count: int, seed: int) -> Embeddings:
    """Dense [n, 4], a token of each of five with a weight, two vectors of each."""
    draw = np.random.default_rng(seed)
    weights = draw.random(count, np.float32)
    sparse = Sparse(np.arange(count + 1), draw.integers(0, 5, count).astype(np.int32), weights)
    vectors = MultiVector(np.arange(0, 2 * count + 1, 2), draw.random((2 * count, 3), np.float32))
    return Embeddings(draw.random((count, 4), np.float32), sparse, vectors)


def test_each_teacher_knows_its_own_pairs(collection: Collection, teachers: Teachers) -> None:
    queries = np.array([3, 0, 7])
    answers = np.array([collection.train.answers[q][0] for q in queries])
    negatives = np.array([collection.train.answers[q][1] for q in (5, 6, 8)])
    pair, batch = (teach(queries, np.concatenate([answers, negatives])) for teach in teachers.both())
    eye = np.eye(3, dtype=bool)
    assert np.array_equal(~np.isnan(pair), np.hstack([eye, eye]))
    assert np.array_equal(~np.isnan(batch), np.hstack([np.ones((3, 3), bool), ~eye]))
    known = {name: scoring.score(name, teachers.queries, teachers.passages) for name in SIGNALS}
    together = SCALE * scoring.weighted(known, normalise=True)
    for b, q in enumerate(queries):
        of_answer, of_negative = (teachers.place[rows[b]] for rows in (answers, negatives))
        assert pair[b, b] == pytest.approx(together[q, of_answer], rel=1e-5)
        assert pair[b, 3 + b] == pytest.approx(together[q, of_negative], rel=1e-5)
        other = (b + 1) % 3
        of_other = teachers.place[negatives[other]]
        assert batch[b, 3 + other] == pytest.approx(SCALE * known["multivector"][q, of_other], rel=1e-5)


def test_mined_passages_answer_other_training_queries(collection: Collection, teachers: Teachers) -> None:
    of_training = {int(row) for rows in collection.train.answers for row in rows}
    for q, (answers, (rows, scores)) in enumerate(
        zip(collection.train.answers, mine(collection, teachers), strict=True)
    ):
        assert 1 <= len(rows) <= 20
        assert {*rows.tolist()} <= of_training - {*answers.tolist()}
        assert np.array_equal(scores, teachers.pair(np.array([q]), rows)[0])


def test_mined_passages_are_drawn_over_bins() -> None:
    mined = [(np.arange(20), np.array([9.0] + [0.0] * 19, np.float32))]
    draw = np.random.default_rng(0)
    counts = [sum(drawn(mined, bins)(np.array([0]), draw)[0, 0] == 0 for _ in range(200)) for bins in (10, 1)]
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
