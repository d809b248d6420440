"""Judgements become examples; nothing that they name goes missing unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from trichrome.errors import TrichromeError
from trichrome.formats.beir import write_beir
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Query
from trichrome.training.from_beir import examples_from_task

QRELS = {"q1": {"d1": 1, "d2": 2, "d3": 0}, "q2": {"d3": 1, "d4": 1}, "q3": {"d1": 0}}


@pytest.fixture
def task(tmp_path: Path) -> Path:
    documents = [
        Document("d1", "one", "Title"),
        Document("d2", "two"),
        Document("d3", "three"),
        Document("d4", ""),
        Document("d5", "never judged"),
    ]
    queries = [Query("q1", "first", "en"), Query("q2", "second"), Query("q3", "third")]
    write_beir(tmp_path / "task", documents, queries, QRELS)
    return tmp_path / "task"


def test_judgements_become_examples(task: Path, tmp_path: Path) -> None:
    report = ReadReport()
    made = list(examples_from_task(task, skip_bad=True, report=report))
    assert [(e.query, e.positives, e.negatives) for e in made] == [
        ("first", ("two", "Title\none"), ("three",)),
        ("second", ("three",), ()),
    ]
    assert [(e.id, e.positive_ids, e.negative_ids, e.lang) for e in made] == [
        ("q1", ("d2", "d1"), ("d3",), "en"),
        ("q2", ("d3",), (), None),
    ]
    assert report.read == 2
    assert report.skipped == {
        "judged, but the document is empty": ["q2 d4"],
        "no relevant document": ["q3"],
    }
    write_examples(tmp_path / "made.jsonl", made)
    assert list(read_examples(tmp_path / "made.jsonl")) == made


def test_grades_below_the_least_are_neither(task: Path) -> None:
    report = ReadReport()
    first = next(examples_from_task(task, least_grade=2, skip_bad=True, report=report))
    assert (first.positives, first.negatives) == (("two",), ("three",))
    assert report.skipped["judged relevant, but below 2"] == ["q1 d1"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("q1\td9\t1", "q1 d9: judged, but not in the corpus"),
        ("q9\td1\t1", "q9: judged, but not among the que"),
    ],
)
def test_what_the_judgements_alone_know_is_an_error(task: Path, line: str, what: str) -> None:
    kept = [x for x in (task / "qrels.tsv").read_text().splitlines() if "d4" not in x]
    (task / "qrels.tsv").write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises(TrichromeError, match=what):
        list(examples_from_task(task))
    assert len(list(examples_from_task(task, skip_bad=True))) == 2


def test_a_real_task(shared_data: Path) -> None:
    made = list(examples_from_task(shared_data / "eval" / "cranfield", skip_bad=True))
    assert len(made) > 200
    assert all(len(e.positives) == len(e.positive_ids or ()) for e in made)
