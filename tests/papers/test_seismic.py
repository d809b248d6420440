"""Row 55: its laws, what it measures, and the encodings that it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.index.sparse_samples import rows_of
from trichrome.index.seismic import Effort
from trichrome.index.seismic_build import Blocking
from trichrome.papers.pattern.encodings import sparse_vectors
from trichrome.papers.pattern.engines import PySeismic, has_pyseismic
from trichrome.papers.pattern.sparse_search import Comparison, Index, cheapest, frontier_of, points, share
from trichrome.papers.seismic import EFFORTS, identities

TEXTS = rows_of(800, seed=1)
QUERIES = [rows.row(i) for rows in [rows_of(40, seed=2, longest=10)] for i in range(40)]


def test_the_laws_hold() -> None:
    found = identities(TEXTS, QUERIES)
    assert len(found) == 4
    assert all(found.values())


def test_points_say_what_is_found_scored_and_read() -> None:
    index = Index.of(TEXTS, Blocking(postings=None, energy=1.0))
    exact, made = points(index, QUERIES, 10, [Effort(), Effort(factor=0), Effort(cut=1)], timed=False)
    rows = [dict(zip(*(part.tolist() for part in TEXTS.row(i)), strict=True)) for i in range(len(TEXTS))]
    both = [[len(row.keys() & set(ids.tolist())) for row in rows] for ids, _ in QUERIES]
    assert exact.scored == pytest.approx(np.mean([np.count_nonzero(of_query) for of_query in both]))
    assert exact.read == pytest.approx(np.mean([sum(of_query) for of_query in both]))
    assert (exact.recall, exact.seconds) == (1, 0)
    assert (made[0].recall, made[1].recall) == (1, 1)
    assert made[0].scored < made[1].scored == exact.scored
    assert made[2].recall < 1
    assert made[2].read < made[0].read
    assert cheapest(made, 0.97) == min((0, 1), key=lambda i: made[i].read)
    assert cheapest(made[1:], 0.97) == 0
    assert cheapest(made[2:], 0.97) == 0


def test_a_comparison_measures_the_effort_that_was_chosen_on_other_queries() -> None:
    index = Index.of(TEXTS, Blocking(postings=None))
    found = Comparison.of(index, QUERIES[:20], QUERIES[20:], 10, EFFORTS, 0.97)
    point = found.blocks[found.chosen]
    assert found.change("scored") == pytest.approx(np.log2(point.scored / found.exact.scored))
    assert point.seconds > 0
    costs, recalls = zip(*frontier_of([found], "scored").points, strict=True)
    assert list(costs) == sorted(costs)
    assert list(recalls) == sorted(recalls)
    assert max(recalls) == max(p.recall for p in found.blocks)
    assert found.space > 0


def test_encodings_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRICHROME_CACHE", str(tmp_path))
    texts = ["the heap grows", "", "a word " * 50]
    first = sparse_vectors(texts, "passage", 16)
    [kept] = (tmp_path / "papers" / "sparse").iterdir()
    assert len(first) == 3
    assert len(first.row(1)[0]) == 0
    written = kept.stat().st_mtime_ns
    again = sparse_vectors(texts, "passage", 16)
    np.testing.assert_array_equal(again.ids, first.ids)
    np.testing.assert_array_equal(again.weights, first.weights)
    assert kept.stat().st_mtime_ns == written
    sparse_vectors(texts, "query", 16)
    sparse_vectors(texts, "passage", 12)
    assert len(list(kept.parent.iterdir())) == 3


@pytest.mark.skipif(not has_pyseismic(), reason="pyseismic-lsr is not installed")
def test_the_authors_engine_finds_what_the_exact_kernel_finds() -> None:
    how = Blocking(postings=None, energy=1.0)
    index = Index.of(TEXTS, how)
    found, seconds = PySeismic(TEXTS, how).search(QUERIES, 10, Effort(factor=0.5))
    assert seconds > 0
    shares = [share(f, index.exact(q, 10)) for f, q in zip(found, QUERIES, strict=True)]
    assert np.mean(shares) > 0.98  # it keeps 16 bits of a weight
