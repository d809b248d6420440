"""Shuffled segments keep every word; long documents are their paragraphs together."""

from __future__ import annotations

from collections import Counter

import numpy as np

from trichrome.records import TrainingExample
from trichrome.training.segments import LEAST_CHARACTERS, long_document_pairs, shuffle_segments


def test_a_shuffled_text_has_the_same_words_in_three_pieces() -> None:
    words = [f"word{i}" for i in range(60)]
    text = " ".join(words)
    orders = set()
    for seed in range(40):
        made = shuffle_segments(text, np.random.default_rng(seed))
        assert Counter(made.split()) == Counter(words)
        pieces = made.split("\n")
        assert len(pieces) == 3
        assert all(piece in text for piece in pieces)
        assert all(len(piece) > len(text) / 5 for piece in pieces)
        orders.add(tuple(text.index(piece) for piece in pieces))
    assert len(orders) == 6


def test_text_without_spaces_and_short_text() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(300))
    made = shuffle_segments(text, np.random.default_rng(1))
    assert sorted(made.replace("\n", "")) == sorted(text)
    assert made != text
    short = "a " * (LEAST_CHARACTERS // 2 - 1)
    assert shuffle_segments(short, np.random.default_rng(1)) == short


def test_questions_are_paired_with_whole_articles() -> None:
    rows = [
        TrainingExample("q1", ("first",), ("no",), id="a:1", positive_scores=(1.0,), lang="en"),
        TrainingExample("q2", ("second",), id="a:2"),
        TrainingExample("q3", ("first",), id="a:1"),
        TrainingExample("q4", ("alone",), id="b:1"),
        TrainingExample("q5", ("nothing",)),
    ]
    made = list(long_document_pairs(rows, lambda e: e.id and e.id.split(":")[0]))
    assert [(e.query, e.positives) for e in made] == [(q, ("first\n\nsecond",)) for q in ("q1", "q2", "q3")]
    assert made[0] == TrainingExample("q1", ("first\n\nsecond",), id="a:1", positive_ids=("a",), lang="en")
