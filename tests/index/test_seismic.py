"""Blocks of posting lists: laws against the exact kernel, bit for bit, and what cutting and pruning keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.index.sparse_samples import rows_of
from trichrome.embeddings import Sparse
from trichrome.index.seismic import Best, Effort, Work, promises, search_blocks
from trichrome.index.seismic_blocks import Blocks, check_blocks
from trichrome.index.seismic_build import Blocking, build_blocks
from trichrome.index.sparse_kernel import accumulate, build_postings, top_k

N = 600
WHOLE = Blocking(postings=None, energy=1.0)
Query = tuple[np.ndarray, np.ndarray]


TEXTS = {coarse: rows_of(N, seed=1, coarse=coarse) for coarse in (False, True)}
QUERIES = {
    coarse: [rows.row(i) for rows in [rows_of(25, seed=2, longest=12, coarse=coarse)] for i in range(25)]
    for coarse in (False, True)
}


def vectors(sparse: Sparse) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return sparse.indptr, sparse.ids, sparse.weights


def exact(sparse: Sparse, query: Query, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = np.zeros(len(sparse), np.float32)
    accumulate(*query, *build_postings(sparse).values(), scores)
    best = top_k(scores, allowed, k, floor=0.0)
    return best, scores[best]


def found(
    sparse: Sparse, blocks: Blocks, query: Query, k: int, effort: Effort, allowed: np.ndarray | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], Work]:
    best = Best(k)
    allowed = np.ones(len(sparse), np.bool_) if allowed is None else allowed
    work = search_blocks(query, blocks, vectors(sparse), allowed, best, effort)
    return best.ranked(), work


def assert_equal(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("k", [1, 10, 2 * N])
def test_with_nothing_pruned_it_is_the_exact_kernel(coarse: bool, k: int) -> None:
    """Whole lists, whole summaries, every token, factor 1: equal scores and their order included."""
    texts = TEXTS[coarse]
    blocks = build_blocks(texts, build_postings(texts), WHOLE)
    some = np.random.default_rng(3).random(N) < 0.4
    skipped = 0
    for query in QUERIES[coarse]:
        for allowed in (np.ones(N, np.bool_), some):
            got, work = found(texts, blocks, query, k, Effort(), allowed)
            assert_equal(got, exact(texts, query, k, allowed))
            skipped += work.seen - work.opened
            assert work.scored <= allowed.sum()
    assert skipped > 0 or k == 2 * N


def test_with_factor_0_it_is_the_exact_kernel_whatever_the_summaries_hold() -> None:
    texts = TEXTS[True]
    blocks = build_blocks(texts, build_postings(texts), Blocking(postings=None, energy=0.1))
    allowed = np.ones(N, np.bool_)
    for query in QUERIES[True]:
        got, work = found(texts, blocks, query, 10, Effort(factor=0))
        assert_equal(got, exact(texts, query, 10, allowed))
        assert work.opened == work.seen
        assert work.scored == len(exact(texts, query, N, allowed)[0])  # whatever shares a token, once


def test_a_whole_summary_promises_what_every_text_of_its_block_scores() -> None:
    """Negative weights in the query included; a summary that was cut promises less somewhere."""
    texts = TEXTS[False]
    postings = build_postings(texts)
    whole = build_blocks(texts, postings, WHOLE)
    short = build_blocks(texts, postings, Blocking(postings=None, energy=0.4))
    rng, less = np.random.default_rng(4), 0
    for ids, weights in QUERIES[False]:
        query = (ids, np.where(rng.random(len(ids)) < 0.2, -weights, weights).astype(np.float32))
        scores = np.zeros(N, np.float32)
        accumulate(*query, *postings.values(), scores)
        for t in range(len(whole.tokens)):
            bounds = promises(query, whole, t)
            for i, b in enumerate(range(whole.lists[t], whole.lists[t + 1])):
                members = whole.texts[whole.starts[b] : whole.starts[b + 1]]
                assert scores[members].max() <= bounds[i]
            cut = promises(query, short, t)
            assert (cut <= bounds).all()
            less += (cut < bounds).sum()
    assert less > 0


def test_negative_weights_and_more_than_one_part() -> None:
    """Two parts of the texts, one after another into one heap, give what the whole gives."""
    texts, half = TEXTS[False], N // 2
    parts = [Sparse.from_rows([texts.row(i) for i in r]) for r in (range(half), range(half, N))]
    made = [build_blocks(part, build_postings(part), WHOLE) for part in parts]
    rng = np.random.default_rng(5)
    for ids, weights in QUERIES[False]:
        query = (ids, np.where(rng.random(len(ids)) < 0.3, -weights, weights).astype(np.float32))
        best = Best(10)
        for part, blocks, first in zip(parts, made, (0, half), strict=True):
            search_blocks(query, blocks, vectors(part), np.ones(half, np.bool_), best, Effort(), first)
        wanted = exact(texts, query, 10, np.ones(N, np.bool_))
        assert_equal(best.ranked(), wanted)
        offered = Best(10)
        order = rng.permutation(N)
        scores = np.zeros(N, np.float32)
        accumulate(*query, *build_postings(texts).values(), scores)
        positive = order[scores[order] > 0]
        offered.offer(positive, scores[positive])
        assert_equal(offered.ranked(), wanted)


def test_every_text_of_a_list_is_in_one_block_and_small_blocks_are_divided() -> None:
    texts = TEXTS[False]
    postings = build_postings(texts)
    for smallest in (1, 2, 5):
        blocks = build_blocks(texts, postings, Blocking(postings=None, centres=0.2, smallest=smallest))
        check_blocks(blocks, N)
        several = 0
        for t in range(len(blocks.tokens)):
            here = postings["texts"][postings["starts"][t] : postings["starts"][t + 1]]
            starts = blocks.starts[blocks.lists[t] : blocks.lists[t + 1] + 1]
            assert np.sort(blocks.texts[starts[0] : starts[-1]]).tolist() == here.tolist()
            assert len(starts) - 1 <= max(1, int(0.2 * len(here)))
            if len(starts) > 2:
                several += 1
                assert np.diff(starts).min() >= smallest
        assert several > 20


def test_a_block_holds_similar_texts() -> None:
    """Two kinds of texts that share one token alone: no block of its list holds both kinds."""
    rng = np.random.default_rng(6)
    rows = []
    for i in range(80):
        own = np.sort(rng.choice(20, 8, replace=False)) + (100 if i % 2 else 200)
        rows.append((np.concatenate([[5], own]), np.full(9, 1.0, np.float32)))
    texts = Sparse.from_rows(rows)
    blocks = build_blocks(texts, build_postings(texts), Blocking(postings=None))
    assert blocks.tokens[0] == 5
    assert blocks.lists[1] >= 4
    for b in range(blocks.lists[1]):
        assert len(set((blocks.texts[blocks.starts[b] : blocks.starts[b + 1]] % 2).tolist())) == 1


def test_a_summary_keeps_its_share_of_energy_in_its_largest_numbers() -> None:
    texts = TEXTS[False]
    postings = build_postings(texts)
    whole, cut = (build_blocks(texts, postings, Blocking(postings=None, energy=e)) for e in (1.0, 0.5))
    np.testing.assert_array_equal(whole.texts, cut.texts)
    assert len(cut.codes) < 0.5 * len(whole.codes)
    for t in range(0, len(whole.tokens), 7):
        of_whole, of_cut = summaries(whole, t), summaries(cut, t)
        for place, summary in of_whole.items():
            kept = of_cut[place]
            b = whole.lists[t] + place
            assert kept.items() <= summary.items()
            largest: dict[int, float] = {}
            for text in whole.texts[whole.starts[b] : whole.starts[b + 1]]:
                for id, weight in zip(*texts.row(text), strict=True):
                    largest[int(id)] = max(largest.get(int(id), 0.0), float(weight))
            assert summary.keys() == largest.keys()
            for id, code in summary.items():  # in bytes that are rounded up, by less than one step
                value = code * whole.steps[b]
                assert largest[id] <= value < largest[id] + 1.001 * whole.steps[b]
            assert sum(largest[id] for id in kept) >= 0.5 * sum(largest.values()) * (1 - 1e-6)
            assert min(kept.values()) > max((c for id, c in summary.items() if id not in kept), default=0)


def summaries(blocks: Blocks, t: int) -> dict[int, dict[int, int]]:
    """Block of the list → token id → code."""
    made: dict[int, dict[int, int]] = {}
    for e in range(blocks.entries[t], blocks.entries[t + 1]):
        made.setdefault(int(blocks.places[e]), {})[int(blocks.ids[e])] = int(blocks.codes[e])
    return made


def test_pruned_lists_keep_the_heaviest() -> None:
    texts = TEXTS[False]
    postings = build_postings(texts)
    m = len(postings["terms"])
    blocks = build_blocks(texts, postings, Blocking(postings=5, longest=4))
    kept = np.diff(blocks.starts[blocks.lists])
    assert kept.sum() < 5 * m
    assert kept.max() == 20
    loose = build_blocks(texts, postings, Blocking(postings=5, longest=1000))
    assert len(loose.texts) == 5 * m
    lightest = np.sort(postings["weights"])[::-1][5 * m - 1]
    for t in range(m):
        here = slice(postings["starts"][t], postings["starts"][t + 1])
        of_list, weights = postings["texts"][here], postings["weights"][here]
        for made, most in ((blocks, 20), (loose, N)):
            wanted = of_list[np.argsort(-weights, kind="stable")][: min(most, (weights >= lightest).sum())]
            got = made.texts[made.starts[made.lists[t]] : made.starts[made.lists[t + 1]]]
            assert sorted(got.tolist()) == sorted(wanted.tolist())


def test_less_effort_is_less_work_and_what_it_finds_has_its_true_score() -> None:
    texts = TEXTS[False]
    blocks = build_blocks(texts, build_postings(texts), Blocking(postings=None))
    scored = []
    for effort in (Effort(factor=0), Effort(factor=0.9), Effort(cut=2, factor=0.9), Effort(cut=1)):
        total = 0
        for query in QUERIES[False]:
            (positions, scores), work = found(texts, blocks, query, 10, effort)
            total += work.scored
            all_of = dict(zip(*exact(texts, query, N, np.ones(N, np.bool_)), strict=True))
            assert [all_of[p] for p in positions] == scores.tolist()
            assert work.opened <= work.seen
            assert len(query[0]) == 0 or work.read >= work.scored
        scored.append(total)
    assert scored == sorted(scored, reverse=True)
    assert scored[0] > 1.5 * scored[2] > 0


def test_the_same_input_makes_the_same_blocks() -> None:
    texts = TEXTS[False]
    postings = build_postings(texts)
    one, again = (build_blocks(texts, postings, Blocking(seed=8)) for _ in range(2))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = build_blocks(texts, postings, Blocking(seed=9))
    assert other.texts.tolist() != one.texts.tolist()


def test_in_parts_the_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TEXTS[False]
    postings = build_postings(texts)
    whole = build_blocks(texts, postings)
    monkeypatch.setattr("trichrome.index.seismic_build._ROOM", 1000)
    for a, b in zip(whole, build_blocks(texts, postings), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_to_find() -> None:
    texts = TEXTS[False]
    blocks = build_blocks(texts, build_postings(texts))
    none: Query = (np.empty(0, np.int32), np.empty(0, np.float32))
    unknown: Query = (np.array([1, 2, 10**6], np.int32), np.ones(3, np.float32))
    negative: Query = (TEXTS[False].ids[:1], -np.ones(1, np.float32))
    for query in (none, unknown, negative):
        (positions, _), work = found(texts, blocks, query, 5, Effort())
        assert len(positions) == 0
        assert work == (0, 0, 0, 0)
    assert found(texts, blocks, QUERIES[False][1], 0, Effort())[1] == (0, 0, 0, 0)
    nowhere = found(texts, blocks, QUERIES[False][1], 5, Effort(), np.zeros(N, np.bool_))
    assert len(nowhere[0][0]) == 0
    for rows in ([], [none] * 3):
        empty = Sparse.from_rows(rows)
        made = build_blocks(empty, build_postings(empty))
        check_blocks(made, len(rows))
        assert len(found(empty, made, QUERIES[False][1], 5, Effort())[0][0]) == 0


def changed(blocks: Blocks, **changes: Any) -> Blocks:
    return blocks._replace(**changes)


def test_damaged_blocks_are_refused() -> None:
    texts = TEXTS[False]
    good = build_blocks(texts, build_postings(texts))
    check_blocks(good, N)
    wrong = [
        ({"starts": good.starts + 1}, "blocks.starts must ascend"),
        ({"lists": good.lists[::-1]}, "blocks.lists must ascend"),
        ({"entries": good.entries * 2}, "blocks.entries must ascend"),
        ({"texts": good.texts + N}, "documents that are not there"),
        ({"texts": -good.texts}, "documents that are not there"),
        ({"texts": good.texts.astype(np.int64)}, "blocks.texts: int64"),
        ({"places": good.places + np.uint16(9999)}, "blocks that are not there"),
        ({"codes": good.codes[:-1]}, "differ in length"),
        ({"tokens": good.tokens[:-1]}, "differ in length"),
    ]
    for changes, message in wrong:
        with pytest.raises(ValueError, match=message):
            check_blocks(changed(good, **changes), N)
    with pytest.raises(ValueError, match="documents that are not there"):
        check_blocks(good, 3)


@pytest.mark.parametrize(
    "wrong", [{"postings": 0}, {"longest": 0.5}, {"centres": 0.0}, {"energy": 1.5}, {"smallest": 0}]
)
def test_settings_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|shares"):
        Blocking(**wrong)
    for effort in ({"cut": 0}, {"factor": -1.0}, {"factor": float("nan")}):
        with pytest.raises(ValueError, match="at least"):
            Effort(**effort)  # type: ignore[arg-type]
