"""Settings, rules, draws, topics and histograms, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trichrome.errors import TrichromeError
from trichrome.negatives import MineReport, MineSettings, Rules, Source
from trichrome.negatives.draw import drawn
from trichrome.negatives.filters import shared_answers, spread, too_high
from trichrome.negatives.pool import plain
from trichrome.negatives.report import Histogram
from trichrome.negatives.topics import topics
from trichrome.records import TrainingExample


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dense", Source("dense", 1, 100)),
        ("sparse:50", Source("sparse", 1, 50)),
        ("bm25-words:10-210", Source("bm25-words", 10, 210)),
        (" topic:3-3", Source("topic", 3, 3)),
    ],
)
def test_a_source_is_read_from_its_name_and_window(text: str, wanted: Source):
    assert Source.parse(text) == wanted


@pytest.mark.parametrize("text", ["faiss:10", "dense:0-5", "dense:9-3", "dense:", "dense:a-b", ""])
def test_a_source_that_makes_no_sense_is_refused(text: str):
    with pytest.raises(TrichromeError, match="source"):
        Source.parse(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ()},
        {"negatives": 0},
        {"judge": "bm25"},
        {"draw": "all"},
        {"weights": (0.0, 0.0, 0.0)},
        {"judge": "none"},  # with the margin that is there by default
        {"judge": "none", "rules": Rules(), "draw": "bins"},
        {"judge": "none", "rules": Rules(), "scores": "judge"},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict):
    with pytest.raises(TrichromeError):
        MineSettings(**changes)


def test_settings_know_which_outputs_they_need():
    bm25 = (Source("bm25"), Source("random"))
    assert MineSettings(sources=bm25, judge="none", rules=Rules()).signals == ()
    assert MineSettings(sources=bm25).signals == ("dense",)
    assert MineSettings(sources=(Source("topic"),), judge="sparse").signals == ("dense", "sparse")
    hybrid = MineSettings(sources=(Source("hybrid"),), weights=(0.0, 1.0, 1.0), judge="none", rules=Rules())
    assert hybrid.signals == ("dense", "sparse", "multivector")  # dense still gives candidates


def removed(scores: list[float], positives: list[float], rules: Rules) -> dict[str, list[bool]]:
    found = too_high(np.array(scores, np.float32), np.array(positives, np.float32), rules)
    return {rule: mask.tolist() for rule, mask in found}


def test_margins_are_taken_from_the_lowest_positive():
    scores, positives = [0.50, 0.70, 0.77, 0.85], [0.9, 0.8]
    assert removed(scores, positives, Rules(absolute_margin=0.2)) == {
        "absolute margin": [False, True, True, True]
    }
    assert removed(scores, positives, Rules(relative_margin=0.95)) == {
        "relative margin": [False, False, True, True]  # 0.76 is allowed
    }
    assert removed(scores, positives, Rules(ceiling=0.8)) == {"ceiling": [False, False, False, True]}


def test_the_relative_margin_stays_below_a_negative_score():
    """A cross-encoder's logits may be negative: 0.95 times −2 would lie above it."""
    masks = removed([-1.95, -2.05, -2.2], [-2.0], Rules(relative_margin=0.95))
    assert masks == {"relative margin": [True, True, False]}


def test_the_adaptive_margin_counts_in_standard_deviations_of_the_querys_candidates():
    """Mean 0.5, deviations ±0.1 and ±0.3: σ = √(0.2 / 3) = 0.2582."""
    scores = [0.2, 0.4, 0.6, 0.8]
    sigma = (0.2 / 3) ** 0.5
    assert spread(np.array(scores, np.float32)) == pytest.approx(sigma)
    assert removed(scores, [0.9, 0.85], Rules(adaptive_margin=0.15)) == {
        "adaptive margin": [False, False, False, False]  # up to 0.85 - 0.0387
    }
    assert removed(scores, [0.9, 0.85], Rules(adaptive_margin=1.0)) == {
        "adaptive margin": [False, False, True, True]  # up to 0.5918
    }
    assert removed([0.7, 0.9], [0.8], Rules(adaptive_margin=0.0)) == {"adaptive margin": [False, True]}


def test_the_adaptive_margin_alone_is_the_same_in_every_range_of_scores():
    rng = np.random.default_rng(0)
    scores, positives = rng.random(50), [0.8]
    rules = {"adaptive": Rules(adaptive_margin=0.5), "relative": Rules(relative_margin=0.95)}
    for name, same in (("adaptive", True), ("relative", False)):
        before = removed(scores.tolist(), positives, rules[name])
        after = removed((0.7 + 0.2 * scores).tolist(), [0.7 + 0.2 * 0.8], rules[name])
        assert (before == after) is same


def test_the_adaptive_margin_of_too_few_candidates_is_none():
    rules = Rules(adaptive_margin=3.0)
    assert removed([], [0.8], rules) == {"adaptive margin": []}
    assert removed([0.79], [0.8], rules) == {"adaptive margin": [False]}
    assert removed([np.nan, 0.2, 0.3], [0.8], rules) == {"adaptive margin": [True, False, False]}


def test_a_margin_that_makes_no_sense_is_refused():
    with pytest.raises(TrichromeError, match="standard deviations"):
        Rules(adaptive_margin=-1.0)
    with pytest.raises(TrichromeError, match="standard deviations"):
        Rules(adaptive_margin=float("nan"))
    assert Rules(adaptive_margin=0.0)
    assert not Rules()


def test_a_candidate_without_a_number_is_removed():
    assert removed([np.nan, 0.1], [0.9], Rules(relative_margin=0.9)) == {"relative margin": [True, False]}


def test_what_one_row_knows_of_a_query_all_rows_know():
    rows = [
        TrainingExample("Who  sings?", ("a",), id="1", positive_ids=("x",)),
        TrainingExample("who sings?", ("b", "c"), id="2"),
        TrainingExample("who hums?", ("d",)),
    ]
    known = shared_answers(rows)
    assert known[plain("WHO SINGS?")].texts == {"a", "b", "c"}
    assert known["who sings?"].keys == {"row:1", "row:2", "doc:x"}
    assert known["who hums?"].texts == {"d"}


def test_top_takes_the_highest_first():
    scores = np.array([0.2, 0.9, 0.2, 0.5], np.float32)
    assert drawn(scores, "top", 5, np.random.default_rng(0)).tolist() == [1, 3, 0, 2]


def test_random_takes_all_and_depends_on_the_seed_alone():
    scores = np.linspace(0, 1, 30, dtype=np.float32)
    orders = [drawn(scores, "random", 5, np.random.default_rng(s)).tolist() for s in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(30))
    assert orders[0] == orders[1] != orders[2]


def test_bins_are_taken_in_turn_from_the_highest():
    # parts of [0, 1] in thirds: 0.0 0.1 0.2 | 0.5 | 0.9 1.0
    scores = np.array([0.0, 0.1, 0.2, 0.5, 0.9, 1.0], np.float32)
    part = [0, 0, 0, 1, 2, 2]
    order = drawn(scores, "bins", 3, np.random.default_rng(0))
    assert [part[i] for i in order] == [2, 1, 0, 2, 0, 0]
    assert drawn(np.full(4, 0.5, np.float32), "bins", 3, np.random.default_rng(0)).size == 4
    assert drawn(np.empty(0, np.float32), "bins", 3, np.random.default_rng(0)).size == 0


def test_topics_find_separate_clusters():
    rng = np.random.default_rng(0)
    centres = np.eye(8, dtype=np.float32)[:3]
    of = np.repeat(np.arange(3), 20)
    vectors = centres[of] + 0.05 * rng.standard_normal((60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = topics(vectors, 20, seed=1)
    assert len({(a, b) for a, b in zip(of.tolist(), labels.tolist(), strict=True)}) == 3
    assert (topics(vectors, 1000, seed=1) == 0).all()


def test_histograms_add_up_and_outlive_json():
    a, b = MineReport(judge="dense", wanted=3, queries=2), MineReport(judge="dense", wanted=3, queries=1)
    a.score("positives", np.array([0.5, 0.7, np.nan], np.float32))
    b.score("positives", np.array([0.9], np.float32))
    a.counts.update([3, 1])
    b.counts.update([0])
    a.removed["same id"] += 4
    total = MineReport.total([a, b])
    assert len(total.scores["positives"]) == 3
    assert total.scores["positives"].mean == pytest.approx(0.7, abs=0.005)
    assert total.scores["positives"].quantile(0.5) == pytest.approx(0.7, abs=0.006)
    assert (total.short, total.empty) == (2 / 3, 1 / 3)
    assert total.rules() == [("same id", 4)]
    assert MineReport.from_json(total.to_json()) == total
    assert np.isnan(Histogram().mean)
