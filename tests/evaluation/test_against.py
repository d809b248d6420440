"""Differences between two runs: by hand, and what can't be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trichrome.errors import TrichromeError
from trichrome.evaluation import Report, Suite, differences, earlier_report

METRIC = "nDCG@10"


def report(**systems: list[float]) -> Report:
    """A report of one task whose systems have these values, query by query."""
    names = {name.replace("_", "-"): np.array(values) for name, values in systems.items()}
    count = len(next(iter(names.values())))
    means = {name: {METRIC: float(values.mean())} for name, values in names.items()}
    ids = tuple(f"q{i}" for i in range(count))
    made = Report("tiny", "m", "0", 9, count, 0, 0, 0, {}, means, {}, {}, (), {}, ids, (None,) * count)
    return replace(made, per_query={name: {METRIC: values} for name, values in names.items()})


def test_the_same_gain_for_every_query_has_no_spread() -> None:
    before = [0.0, 0.25, 0.5, 0.125]
    found = differences(
        report(bm25_words=before, dense=[v + 0.25 for v in before], all=before, sparse=before),
        report(bm25_words=before, dense=before, all=before),
    )
    assert list(found) == ["dense", "all"]  # BM25 is left out, and what only one of the two has
    dense, same = found["dense"], found["all"]
    assert (dense.difference, dense.low, dense.high) == pytest.approx((0.25, 0.25, 0.25))
    assert dense.p < 0.001
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_a_loss_and_a_gain_are_paired_by_query() -> None:
    """One query of four gains 1: d* is a quarter of how often it is drawn, Binomial(4, 1/4)."""
    found = differences(report(dense=[0, 1, 0, 1]), report(dense=[0, 0, 0, 1]))["dense"]
    assert found.difference == 0.25
    assert found.p == pytest.approx(2 * 0.75**4, abs=0.02)  # P(d* ≤ 0): it is never drawn
    assert (found.low, found.high) == (0, 0.75)


def test_only_the_same_task_can_be_compared(tmp_path: Path) -> None:
    one = report(dense=[0.5, 0.25])
    for other in (report(dense=[0.5]), replace(one, documents=8), replace(one, query_ids=("q0", "q9"))):
        with pytest.raises(TrichromeError, match="only results on the same task"):
            differences(one, other)
    with pytest.raises(TrichromeError, match="no values by query"):
        differences(one, Report.from_json(one.to_json()))
    with pytest.raises(TrichromeError, match="not of other, but of tiny"):
        earlier_report("other", Suite((one,)))
    assert earlier_report("tiny", Suite((one,))) is one


def test_a_suite_is_read_back_or_refused_with_its_file(tmp_path: Path) -> None:
    suite = Suite((report(dense=[0.5, 0.25]),))
    means = {"nDCG@10": 0.5, "Recall@100": 1.0, "MRR@10": 0.5}
    suite = Suite((replace(suite.reports[0], means={"dense": means}),))
    suite.save(tmp_path / "results.json", per_query=True)
    read = Suite.load(tmp_path / "results.json")
    assert differences(read.reports[0], suite.reports[0])["dense"].difference == 0
    for wrong in ("{", "[]", '{"tasks": [{}]}'):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(TrichromeError, match=r"wrong\.json: "):
            Suite.load(tmp_path / "wrong.json")
    with pytest.raises(TrichromeError, match=r"absent\.json: can't be read"):
        Suite.load(tmp_path / "absent.json")
