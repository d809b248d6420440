"""Batches of one topic with balanced negatives: orders, draws, clusters, and a run from a recipe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import WORDS, tiny_encoder
from tests.training.test_batches import TOKENIZER, opened, planned, rows_of
from trichrome.encoder import Encoder
from trichrome.errors import TrichromeError
from trichrome.training.batches import BatchPlan, BatchSettings, reading
from trichrome.training.drawing import balanced, draw
from trichrome.training.examples import Examples
from trichrome.training.mapped import MappedArray
from trichrome.training.shuffle import permuted, permuted_groups
from trichrome.training.topics import query_topics


@pytest.mark.parametrize("sizes", [[1], [3, 1, 5000, 20], [7] * 50, [1] * 5000])
def test_a_shuffled_order_of_groups_has_every_number_once_and_groups_together(sizes: list[int]) -> None:
    ends = np.cumsum(sizes)
    n = int(ends[-1])
    whole = permuted_groups(np.arange(n), ends, (1, 2))
    assert np.array_equal(np.sort(whole), np.arange(n))
    groups = np.searchsorted(ends, whole, side="right")
    assert np.count_nonzero(np.diff(groups)) == len(sizes) - 1
    some = np.array([n - 1, 0, n // 2])
    assert np.array_equal(permuted_groups(some, ends, (1, 2)), whole[some])
    if n > 50:
        assert not np.array_equal(permuted_groups(np.arange(n), ends, (1, 3)), whole)
    with pytest.raises(IndexError):
        permuted_groups(np.array([n]), ends, (1, 2))


def test_one_group_is_a_plain_shuffle_within() -> None:
    made = permuted_groups(np.arange(20), np.array([20]), (5,))
    assert np.array_equal(made, permuted(np.arange(20), 20, (5, 0)))


# balanced draws


def test_bins_are_drawn_evenly() -> None:
    """90 scores near 0, nine near 0.5, one of 1: a third of the draws each."""
    scores = np.concatenate([np.linspace(0, 0.1, 90), np.linspace(0.45, 0.55, 9), [1.0]])
    seen: Counter[int] = Counter()
    for seed in range(1500):
        (place,) = balanced(scores, 1, 3, np.random.default_rng(seed))
        seen[0 if place < 90 else 1 if place < 99 else 2] += 1
    assert all(400 < seen[b] < 600 for b in range(3))  # 500 expected, ± 5.5 standard deviations


def test_a_bin_that_is_empty_gives_its_turn_to_others() -> None:
    scores = np.array([0.0, 0.1, 0.2, 9.0])
    for seed in range(20):
        assert sorted(balanced(scores, 9, 10, np.random.default_rng(seed))) == [0, 1, 2, 3]
    assert len(balanced(np.ones(5), 3, 4, np.random.default_rng(0))) == 3
    assert balanced(np.empty(0), 3, 4, np.random.default_rng(0)) == []


def test_a_row_draws_by_its_scores() -> None:
    scores = [0.0] * 30 + [1.0]
    drawn = [draw(1, 31, 2, False, (seed,), scores=scores, bins=5).negatives for seed in range(200)]
    assert 70 < sum(d == [30] for d in drawn) < 130  # half, rather than one in 31
    again = [draw(1, 31, 2, False, (seed,), scores=scores, bins=5).negatives for seed in range(200)]
    assert drawn == again
    assert [draw(1, 31, 2, False, (s,), scores=None, bins=5) for s in range(9)] == [
        draw(1, 31, 2, False, (s,)) for s in range(9)
    ]
    assert draw(1, 2, 8, False, (0,), scores=[0.1, 0.2], bins=5).negatives == [0, 1]


def scored_rows(n: int) -> list[dict[str, Any]]:
    """Each with eight negatives; every second row has scores, of which the last stands alone."""
    rows = rows_of(n, 5, longest=8)
    for i, row in enumerate(rows):
        row["neg"] = [f"{WORDS[k]} {i}" for k in range(8)]
        if i % 2:
            row |= {"pos_scores": [1.0], "neg_scores": [0.0] * 7 + [0.9]}
    return rows


def test_a_plan_balances_rows_with_scores_and_counts_the_others(tmp_path: Path) -> None:
    examples = opened(tmp_path, one=scored_rows(200))
    plan = planned(tmp_path, examples, margin_bins=4, group_size=2)
    last = total = 0
    for step in range(plan.steps()):
        batch = plan.batch(0, step)
        assert batch.unscored == sum(i % 2 == 0 for i in batch.rows)
        assert [len(t.ids) for t in batch.passages] == plan.batch_lengths(0, step)[1].tolist()
        teacher = batch.target.teacher
        assert teacher is not None
        last += int((teacher > 0.8).sum()) - int((teacher > 0.95).sum())
        total += len(batch.rows) - batch.unscored
    assert total == 100
    assert 30 < last < 70  # half of them, rather than an eighth
    assert planned(tmp_path, examples, group_size=2).batch(0, 0).unscored == 0


# topics


def rows_about(topics: int, each: int) -> list[dict[str, Any]]:
    """One query a topic, and other passages, in an order that mixes the topics."""
    return [
        {"query": f"{WORDS[t]} {WORDS[t + 5]}", "pos": [f"{WORDS[t]} {WORDS[i % 17]}"]}
        for i in range(each)
        for t in range(topics)
    ]


def topical(
    folder: Path, examples: Examples, encoder: Encoder, size: int, seed: int = 0, **changes: Any
) -> BatchPlan:
    settings = BatchSettings(
        **{"max_rows": 8, "query_tokens": 12, "passage_tokens": 48, "seed": seed, "topic_size": size}
        | changes
    )
    labels = query_topics(examples, encoder, reading(TOKENIZER, 12), size, seed, folder / "cache")
    return BatchPlan(examples, TOKENIZER, settings, folder / "cache", topics=labels)


def test_clusters_are_those_of_the_queries_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, encoder = opened(tmp_path, one=rows_about(3, 40)), tiny_encoder()
    encoder.network.train()
    made = query_topics(examples, encoder, reading(TOKENIZER, 12), 40, 1, tmp_path / "cache")
    assert encoder.network.training
    labels = made.read(0, len(made))
    pairs = Counter(zip(labels.tolist(), [i % 3 for i in range(120)], strict=True))
    assert len(pairs) == 3  # rows with one query are together
    assert len(set(labels.tolist())) > 1
    monkeypatch.setattr(Encoder, "encode_tokens", None)  # would fail: nothing is encoded again
    again = query_topics(examples, encoder, reading(TOKENIZER, 12), 40, 1, tmp_path / "cache")
    assert np.array_equal(again.read(0, 120), labels)


def test_a_batch_is_of_one_topic_and_of_the_next_where_that_ends(tmp_path: Path) -> None:
    examples, encoder = opened(tmp_path, one=rows_about(5, 40)), tiny_encoder()
    plan = topical(tmp_path, examples, encoder, 40)
    labels = query_topics(examples, encoder, reading(TOKENIZER, 12), 40, 0, tmp_path / "cache")
    assert plan.report.topics == len({*labels.read(0, 200).tolist()}) > 2
    for epoch in range(2):
        batches = list(plan.epoch(epoch))
        assert sorted(row for batch in batches for row in batch) == list(range(200))
        mixed = sum(len({int(labels[i]) for i in batch}) > 1 for batch in batches)
        assert mixed < plan.report.topics  # no more than there are places where one ends
    assert list(plan.epoch(0)) != list(plan.epoch(1))
    assert list(plan.epoch(1)) == list(topical(tmp_path, examples, encoder, 40).epoch(1))
    apart = replace(plan.settings, topic_size=None)
    random = BatchPlan(examples, TOKENIZER, apart, tmp_path / "cache")
    assert sum(len({int(labels[i]) for i in batch}) > 1 for batch in random.epoch(0)) == random.steps()
    keys = {plan.key, random.key, topical(tmp_path, examples, encoder, 20).key}
    assert len(keys) == 3


def test_topics_stay_within_tasks_and_length_groups(tmp_path: Path) -> None:
    rows = [
        row | {"pos": [row["pos"][0] + " cat" * (20 * (i % 3 == 0))]}
        for i, row in enumerate(rows_about(4, 30))
    ]
    examples = opened(tmp_path, one=rows, two=rows_about(2, 9))
    plan = topical(tmp_path, examples, tiny_encoder(), 30, groups=(8, 64))
    batches = list(plan.epoch(0))
    assert sorted(row for batch in batches for row in batch) == list(range(138))
    assert all(len({examples.task(i) for i in batch}) == 1 for batch in batches)
    assert plan.padding_share(grouped=True) < plan.padding_share(grouped=False)


@pytest.mark.parametrize("changes", [{"topic_size": 0}, {"margin_bins": -1}])
def test_settings_without_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TrichromeError, match=next(iter(changes))):
        BatchSettings(**changes)


def test_topics_and_their_size_go_together(tmp_path: Path) -> None:
    examples = opened(tmp_path, one=rows_of(20))
    with pytest.raises(ValueError, match="topic_size"):
        planned(tmp_path, examples, topic_size=5)
    labels = query_topics(examples, tiny_encoder(), reading(TOKENIZER, 12), 5, 0, tmp_path / "cache")
    assert isinstance(labels, MappedArray)
    with pytest.raises(ValueError, match="topic_size"):
        BatchPlan(examples, TOKENIZER, BatchSettings(), tmp_path / "cache", topics=labels)
