"""A tower trained towards known vectors, and the time of a query."""

from __future__ import annotations

import numpy as np
import pytest

from trichrome.papers.pattern.collection import titles_and_texts
from trichrome.papers.pattern.following import towards
from trichrome.papers.pattern.timing import milliseconds_each
from trichrome.papers.pattern.towers import base, vectors
from trichrome.papers.pattern.training import Plan, Read
from trichrome.training.losses import embedding_match


def test_a_tower_nears_the_wanted_vectors_the_same_way_twice() -> None:
    pytest.importorskip("django")
    read = Read.of(titles_and_texts(None, train=60, test=10, passages=80))
    wanted = vectors(read.tower("mini", 1), read.queries)
    losses = []
    for _ in range(2):
        tower = read.tower("mini", 2)
        losses.append(towards(tower, read.queries, wanted, Plan(60, 32, 1e-2, seed=0), embedding_match))
    assert losses[0] == losses[1]
    assert np.mean(losses[0][-5:]) < np.mean(losses[0][:5]) / 2
    near = (vectors(tower, read.queries) * wanted).sum(1).mean()
    assert near > (vectors(read.tower("mini", 2), read.queries) * wanted).sum(1).mean()


def test_a_time_for_each_encoder() -> None:
    times = milliseconds_each((base(), base()), ["one text", "another"])
    assert len(times) == 2
    assert min(times) > 0
