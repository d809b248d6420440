"""The loop that rows share: teachers, topics, graded gains."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from torch import Tensor

from trichrome.papers.pattern.collection import Collection, collect
from trichrome.papers.pattern.paper import Source
from trichrome.papers.pattern.training import Plan, Read, Rows, by_topic, fit, quality
from trichrome.training.losses import margin_mse
from trichrome.training.target import Target


@pytest.fixture(scope="module")
def collection() -> Collection:
    words = ["cat", "dog", "river", "moon", "light", "bird", "green", "house"]
    pairs = [(f"{a} {b}", f"the {a} and its {b} number {i}") for i, a in enumerate(words) for b in words]
    return collect(pairs, Source("made here", "free"), train=30, test=10, passages=64)


def test_the_loss_is_given_a_target_for_each_teacher(collection: Collection) -> None:
    read = Read.of(collection)
    seen: list[tuple[Target, ...]] = []

    def one(queries: Rows, passages: Rows) -> np.ndarray:
        return (queries[:, None] * 100 + passages).astype(np.float32)

    def none(queries: Rows, passages: Rows) -> np.ndarray:
        return np.full((len(queries), len(passages)), np.nan, np.float32)

    def loss(scores: Tensor, *targets: Target) -> Tensor:
        seen.append(targets)
        return margin_mse(scores, targets[0])

    tower = read.tower("mini", 0)
    losses = fit(read, tower, tower, Plan(3, 8, 1e-2, 0), loss, teachers=[one, none])
    assert len(losses) == len(seen) == 3
    for first, second in seen:
        assert torch.equal(first.mask, second.mask)
        assert first.teacher is not None
        assert second.teacher is not None
        assert bool(second.teacher.isnan().all())
        assert int(first.teacher.diff(dim=1).diff(dim=0).abs().max()) == 0  # of its queries and passages
        answers = (first.teacher % 100).long()[0].tolist()
        assert {*answers} <= {int(row) for rows in collection.train.answers for row in rows}


def test_steps_are_of_one_topic_and_of_the_next_where_it_ends() -> None:
    labels = np.tile(np.arange(5), 21)[:103]  # of 21, 21, 21, 20 and 20 queries
    take, draw = by_topic(labels, 7), np.random.default_rng(0)
    epoch = [take(step, draw) for step in range(14)]
    assert len({int(i) for rows in epoch for i in rows}) == 98  # five wait
    assert sum(len({*labels[rows].tolist()}) > 1 for rows in epoch) <= 4  # where a topic ends
    assert [len(rows) for rows in epoch] == [7] * 14
    assert not np.array_equal(take(14, draw), epoch[0])
    again = by_topic(labels, 7)
    assert np.array_equal(again(0, np.random.default_rng(0)), epoch[0])


def test_gains_are_the_grades(collection: Collection) -> None:
    test = collection.test.part([0])
    found = np.array([[5, 6, 7, 8]])
    made = quality(test, found, [{6: 3, 8: 1, 9: 2}])["nDCG@10"]
    wanted = (3 / log2(3) + 1 / log2(5)) / (3 + 2 / log2(3) + 1 / log2(4))
    assert made == pytest.approx([wanted])
    own = test.answers[0]
    assert quality(test, own[None])["nDCG@10"] == pytest.approx([1])
