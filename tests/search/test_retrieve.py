"""Retrieval equals brute force over the whole corpus, in every mode, and nothing missing is zeroed."""

import numpy as np
import pytest

from trichrome.embeddings import SIGNALS
from trichrome.scoring import score
from trichrome.search.modes import LONG_MODES, M3_MODES, Mode, mode_named
from trichrome.search.retrieve import rank, retrieve

SMALL = {  # depths smaller than the corpus, so that the lists differ
    "dense": mode_named("dense", depth=30),
    "sparse": mode_named("sparse", depth=30),
    "multivector": mode_named("multivector", depth=15),
    "dense+sparse": mode_named("dense+sparse", depth=30),
    "all": mode_named("all", depth=15),
}
UNION = mode_named("all", depth=15, candidates="union")


def brute_force(corpus, i: int, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Rows and fused scores of query i by definition: full score matrices, lists cut, union, sum, sort."""
    matrices = {name: score(name, corpus.queries[[i]], corpus.documents)[0] for name in SIGNALS}
    pool: set[int] = set()
    for source in mode.sources:
        rows = np.lexsort((np.arange(80), -matrices[source]))
        if source == "sparse":
            rows = rows[matrices[source][rows] > 0]
        pool |= set(rows[: mode.depth].tolist())
    rows = np.array(sorted(pool))
    fused = sum(w * matrices[name][rows] for name, w in zip(SIGNALS, mode.weights, strict=True))
    order = np.lexsort((rows, -fused))
    return rows[order], fused[order]


@pytest.mark.parametrize(
    "modes", [M3_MODES, LONG_MODES, SMALL, {"union": UNION}], ids=["m3", "long", "small", "union"]
)
@pytest.mark.parametrize("kind", ["brute", "exact"])
def test_every_mode_equals_brute_force_from_one_table(corpus, modes, kind, tmp_path) -> None:
    with corpus.store() if kind == "brute" else corpus.exact_store(tmp_path / "store") as store:
        check_every_mode(corpus, store, modes)


def check_every_mode(corpus, store, modes) -> None:
    for i in range(len(corpus.queries)):
        table = retrieve(store, corpus.queries[i], list(modes.values()))
        for mode in modes.values():
            ranking = rank(table, mode)
            rows, scores = brute_force(corpus, i, mode)
            assert ranking.rows.tolist() == rows.tolist(), mode
            assert ranking.scores == pytest.approx(scores, abs=1e-6)
            assert table.rows[ranking.positions].tolist() == rows.tolist()


def test_one_table_ranks_as_each_mode_alone(corpus) -> None:
    store, query = corpus.store(), corpus.queries[0]
    together = retrieve(store, query, list(SMALL.values()))
    for mode in SMALL.values():
        alone = rank(retrieve(store, query, [mode]), mode, 10)
        assert rank(together, mode, 10).rows.tolist() == alone.rows.tolist()


def test_missing_scores_are_computed_and_only_those(corpus) -> None:
    store, query = corpus.store(), corpus.queries[3]
    table = retrieve(store, query, list(SMALL.values()))
    exact = {name: score(name, corpus.queries[[3]], corpus.documents)[0] for name in SIGNALS}
    both = table.candidates(SMALL["dense+sparse"])
    assert len(both) == len(table) > 30  # a real union
    for name in ("dense", "sparse"):
        assert table.scores[name] == pytest.approx(exact[name][table.rows], abs=1e-6)
        assert store.computed[name] == (table.places[name] == np.iinfo(np.int64).max).sum() > 0
    known = ~np.isnan(table.scores["multivector"])
    assert known.sum() == 15
    assert table.scores["multivector"][known] == pytest.approx(
        exact["multivector"][table.rows[known]], abs=1e-6
    )


def test_a_filter_holds_in_every_mode(corpus) -> None:
    store = corpus.store()
    table = retrieve(store, corpus.queries[0], list(M3_MODES.values()), where={"lang": "sw"})
    assert len(table)
    assert {store.payloads(table.rows)[i]["lang"] for i in range(len(table))} == {"sw"}


def test_rrf_orders_by_rank_not_by_score(corpus) -> None:
    store, query = corpus.store(), corpus.queries[1]
    mode = mode_named("dense+sparse", weights=(1e-6, 1, 0))
    table = retrieve(store, query, [mode])
    fused = rank(table, mode, fusion="rrf")
    dense = (-table.scores["dense"]).argsort().argsort() + 1
    sparse = np.array([(table.scores["sparse"] > s).sum() + 1 for s in table.scores["sparse"]])
    expected = 1 / (60 + dense) + np.where(table.scores["sparse"] > 0, 1 / (60 + sparse), 0)
    assert fused.scores == pytest.approx(np.sort(expected)[::-1], rel=1e-5)
    assert fused.rows.tolist() != rank(table, mode).rows.tolist()


def test_a_query_that_matches_nothing_gives_an_empty_ranking(corpus) -> None:
    store = corpus.store()
    mode = M3_MODES["all"]
    table = retrieve(store, corpus.queries[0], [mode], where={"lang": "xx"})
    assert len(table) == 0
    assert rank(table, mode, 10).rows.tolist() == []
    assert rank(table, mode, 10, "rrf").rows.tolist() == []
