"""Metrics against numbers worked out by hand, and their means."""

import math

import numpy as np
import pytest

from trichrome.evaluation.metrics import METRICS, means, per_query, rows_by_language
from trichrome.evaluation.rankings import Rankings

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"a": 1}, "q3": {"a": 1, "z": 1}}
RUN = {
    "q1": {"c": 3.0, "b": 2.0, "a": 1.0},
    "q2": {f"x{i}": 100.0 - i for i in range(12)} | {"a": 1.0},
}


def test_by_hand() -> None:
    values = per_query(QRELS, RUN, ["q1", "q2", "q3"])
    assert set(values) == set(METRICS) == {"nDCG@10", "Recall@100", "MRR@10"}
    ideal = 2 + 1 / math.log2(3)
    found = 1 / math.log2(3) + 2 / math.log2(4)
    assert values["nDCG@10"] == pytest.approx([found / ideal, 0, 0])
    assert values["Recall@100"] == pytest.approx([1, 1, 0])  # rank 13 counts; q3 has no ranking
    assert values["MRR@10"] == pytest.approx([1 / 2, 0, 0])  # beyond rank 10 counts nothing
    assert means(values)["Recall@100"] == pytest.approx(2 / 3)
    assert means(values, np.array([0])) == pytest.approx({m: values[m][0] for m in METRICS})


def test_order_of_queries_is_kept_and_blocks_join() -> None:
    qrels = {f"q{i}": {"a": 1} for i in range(2100)}
    run = {f"q{i}": {"a": 1.0} if i % 3 else {"b": 1.0} for i in range(2100)}
    names = list(reversed(qrels))
    assert per_query(qrels, run, names)["MRR@10"].tolist() == [float(int(n[1:]) % 3 > 0) for n in names]


def test_no_ranking_at_all_scores_nothing() -> None:
    assert per_query(QRELS, {}, ["q1"])["nDCG@10"].tolist() == [0.0]


def test_rows_by_language() -> None:
    rows = rows_by_language(["sw", None, "en", "sw"])
    assert {lang: r.tolist() for lang, r in rows.items()} == {"en": [2], "sw": [0, 3], "unknown": [1]}


def test_rankings_are_a_run() -> None:
    rankings = Rankings.from_rows(
        ["q1", "q2"],
        ["a", "b", "c"],
        [(np.array([2, 0]), np.array([0.5, 0.25])), (np.array([]), np.array([]))],
    )
    assert dict(rankings) == {"q1": {"c": 0.5, "a": 0.25}, "q2": {}}
    assert list(rankings["q1"]) == ["c", "a"]
    with pytest.raises(KeyError):
        rankings["q3"]
    with pytest.raises(ValueError, match="don't fit"):
        Rankings(["q1"], ["a"], np.array([0]), np.array([], np.int32), np.array([], np.float32))
