"""Planted answers: what is known, what a filter removes, and the shares by which it is judged."""

from __future__ import annotations

import numpy as np
import pytest

from trichrome.negatives.settings import Rules
from trichrome.papers.pattern.collection import titles_and_halves
from trichrome.papers.pattern.planted import Judged, one_label, removed
from trichrome.papers.pattern.training import Read


def judged() -> Judged:
    """Two queries of four candidates, one of them with a planted answer."""
    return Judged(
        rows=np.array([[4, 3, 2, 1], [8, 7, 6, 5]]),
        scores=np.array([[0.9, 0.8, 0.3, 0.1], [0.7, 0.2, 0.1, 0.0]], np.float32),
        labels=np.array([[0.85], [0.75]], np.float32),
        planted=np.array([[True, False, False, False], [False] * 4]),
    )


def test_a_rule_removes_by_each_querys_own_label() -> None:
    gone = judged().removed(Rules(absolute_margin=0.1))
    assert gone.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert not judged().removed(Rules()).any()
    assert removed(
        np.array([1.0, 0.0], np.float32), np.array([0.5], np.float32), Rules(ceiling=0.4)
    ).tolist() == [
        True,
        False,
    ]


def test_shares_and_precision() -> None:
    all_of = judged()
    gone = all_of.removed(Rules(absolute_margin=0.1))
    shares = all_of.shares(gone)  # of the first query alone: the second has nothing planted
    assert shares["recall"].tolist() == [1.0]
    assert shares["removed of the others"].tolist() == [pytest.approx(1 / 3)]
    assert all_of.precision(gone) == pytest.approx(1 / 3)
    assert np.isnan(all_of.precision(np.zeros_like(gone)))


def test_what_is_kept_is_filled_up() -> None:
    gone = np.array([[True, False, False, True], [True] * 4])
    assert judged().kept(gone, 3).tolist() == [[3, 2, 3], [5, 5, 5]]


def test_one_label_of_several_answers_and_the_rest_is_known() -> None:
    pytest.importorskip("django")
    known = Read.of(titles_and_halves(None, train=40, test=10, passages=200))
    labelled = one_label(known, seed=0)
    for label, answers in zip(labelled.collection.train.answers, known.collection.train.answers, strict=True):
        assert len(label) == 1
        assert label[0] in answers
    assert any(len(answers) > 1 for answers in known.collection.train.answers)
    found = Judged.by(known.tower("mini", 0), labelled, known, depth=20)
    for rows, planted, label, answers in zip(
        found.rows,
        found.planted,
        labelled.collection.train.answers,
        known.collection.train.answers,
        strict=True,
    ):
        assert label[0] not in rows
        assert set(rows[planted]) <= set(answers)
        assert not set(rows[~planted]) & set(answers)
    assert (np.diff(found.scores, axis=1) <= 1e-5).all()
