"""Graded collections: which families there are, and what is worth what for whom."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trichrome.papers.pattern.graded import Family, Graded, grade, graded_titles, joined, rows
from trichrome.papers.pattern.paper import Source

SOURCE = Source("made here", "free")


def family(n: int) -> Family:
    return [(f"title {n}{x}", f"a text of just six words {n}{x}") for x in "abc"]


def test_numbers_that_groups_connect_are_a_family() -> None:
    assert joined(9, [[0, 3], [3, 5], [1, 2], [7]]) == [[0, 3, 5], [1, 2]]
    assert joined(40, [list(range(20)), [30, 31]]) == [[30, 31]]  # one is too large


def check(made: Graded) -> None:
    for split, grades in ((made.train, made.train_grades), (made.test, made.test_grades)):
        for answers, known in zip(split.answers, grades, strict=True):
            assert {*known.values()} == {1, 2, 3}
            assert answers.tolist() == rows(known, 3).tolist()
            own = made.passages[answers[0]]
            (half,) = rows(known, 2)
            assert own.split()[len(own.split()) // 2 :] == made.passages[half].split()
    judged = [{row for grades in some for row in grades} for some in (made.train_grades, made.test_grades)]
    assert len(judged[0] | judged[1]) == len(made.passages)


def test_a_query_of_each_family_with_every_grade() -> None:
    made = grade([family(n) for n in range(12)], SOURCE, train=6, test=3)
    check(made)
    assert (len(made.train), len(made.test), len(made.passages)) == (6, 3, 9 * 4)
    for query, grades in zip(made.test.texts, made.test_grades, strict=True):
        texts = {given: {made.passages[row] for row in rows(grades, given)} for given in (1, 2, 3)}
        number = query.split()[1]
        assert texts[3] == {f"a text of just six words {number}"}
        assert texts[2] == {f"just six words {number}"}
        assert texts[1] == {f"a text of just six words {number[:-1]}{x}" for x in "abc" if x != number[-1]}
    again = grade([family(n) for n in range(12)], SOURCE, train=6, test=3)
    assert again.test.texts == made.test.texts


def test_families_that_lack_a_grade_are_left_out() -> None:
    short = [("title", "too short"), ("other", "also short")]
    alike = [("title", "a text of just six words"), ("title", "another text of just six words")]
    unasked = [("", "a text of just six words"), ("", "another text of just six words")]
    made = grade([short, alike, unasked, *(family(n) for n in range(3))], SOURCE, train=9, test=9)
    assert len(made.train) + len(made.test) == 3


def test_packages_that_share_a_paragraph_are_a_family(tmp_path: Path) -> None:
    shared = "This is a library for reading and writing files of several kinds, by anybody at all. "
    texts = [f"{shared}{n}\n\nPart {x} of the library number {n} is here." for n in range(9) for x in "ab"]
    texts += [f"Something else altogether, number {n} of them, and nothing more." for n in range(5)]
    (tmp_path / "train").mkdir()
    with gzip.open(tmp_path / "train" / "ddtp.jsonl.gz", "wt") as file:
        for i, text in enumerate(texts):
            row = {"query": f"title {i}", "pos": [text], "neg": [], "lang": "en", "id": str(i)}
            file.write(json.dumps(row) + "\n")
    made = graded_titles(tmp_path, train=5, test=2)
    check(made)
    assert (len(made.train), len(made.test)) == (5, 2)
    assert not any("altogether" in text for text in made.passages)


def test_without_a_folder_there_are_catalogues() -> None:
    pytest.importorskip("django")
    made = graded_titles(None, train=60, test=20)
    check(made)
    assert (len(made.train), len(made.test)) == (60, 20)
