"""TREC runs, qrels and SGML documents; SQuAD files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trichrome.errors import TrichromeError
from trichrome.formats import read_documents, squad, trec
from trichrome.records import Document

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ids = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda text: not set(text) & set(" \t\n\r\v\f")
)
finite = st.floats(allow_nan=False, allow_infinity=False)


# Runs and qrels


@quick
@given(st.dictionaries(ids, st.dictionaries(ids, finite, min_size=1, max_size=6), max_size=4))
def test_runs_round_trip_exactly(tmp_path: Path, run: dict[str, dict[str, float]]) -> None:
    lines = trec.write_run(tmp_path / "run.txt.gz", run, tag="t")
    back = trec.read_run(tmp_path / "run.txt.gz")
    assert lines == sum(map(len, run.values()))
    assert back == run  # the same floats to the last bit
    for query, scores in back.items():
        assert list(scores.items()) == sorted(run[query].items(), key=lambda item: -item[1])  # stable


def test_run_lines(tmp_path: Path) -> None:
    trec.write_run(tmp_path / "run", {"q": {"b": 0.1, "a": 2, "c": 0.1}})
    assert (tmp_path / "run").read_text().splitlines() == [
        "q Q0 a 1 2.0 trichrome",
        "q Q0 b 2 0.1 trichrome",
        "q Q0 c 3 0.1 trichrome",
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("q Q0 d 1 0.5", "5 columns where a run has 6"),
        ("q Q0 d 1 high tag", "score 'high' is not a finite number"),
        ("q Q0 d 1 nan tag", "score 'nan' is not a finite number"),
        ("q Q0 a 1 0.5 tag", "document 'a' comes twice for query 'q'"),
    ],
)
def test_bad_run_lines(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "run"
    path.write_text(f"q Q0 a 1 0.75 tag\n{line}\n")
    with pytest.raises(TrichromeError) as caught:
        trec.read_run(path)
    assert str(caught.value).startswith(f"{path}:2: {what}; ")


def test_runs_that_trec_cannot_express(tmp_path: Path) -> None:
    for run in (
        {"a query": {"d": 1.0}},
        {"q": {"my file.txt": 1.0}},
        {"q": {"d": math.inf}},
        {"": {"d": 1.0}},
    ):
        with pytest.raises(TrichromeError):
            trec.write_run(tmp_path / "run", run)
    assert not list(tmp_path.iterdir())


@quick
@given(st.dictionaries(ids, st.dictionaries(ids, st.integers(-2, 5), min_size=1, max_size=6), max_size=4))
def test_qrels_round_trip(tmp_path: Path, qrels: dict[str, dict[str, int]]) -> None:
    trec.write_qrels(tmp_path / "qrels", qrels)
    assert trec.read_qrels(tmp_path / "qrels") == qrels


def test_bad_qrels(tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    for line, what in (
        ("q d 1", "3 columns where"),
        ("q 0 d x", "grade 'x' is"),
        ("q 0 a 0", "is judged 0 here"),
    ):
        path.write_text(f"q 0 a 1\n{line}\n")
        with pytest.raises(TrichromeError, match=rf"qrels:2: .*{what}"):
            trec.read_qrels(path)


# SGML documents

SGML = """<DOC>
<DOCNO> A-1 </DOCNO>
<DATE>1 May</DATE>
<HEADLINE>
<P>Boats &amp; ships
</HEADLINE>
<TEXT>
<P>A boat is small, a < b.
<P>A ship is large.
</TEXT>
</DOC>
<doc><docno>A-2</docno>
<DOCHDR>http://x</DOCHDR>
<body>No text <b>element</b></body> here.</doc>
"""


def test_sgml_documents(tmp_path: Path) -> None:
    path = tmp_path / "part01"
    path.write_text(SGML)
    source = read_documents(path)
    assert source.format == "trec"
    assert list(source) == [
        Document(
            "A-1", "A boat is small, a < b.\nA ship is large.", "Boats & ships", None, {"date": "1 May"}
        ),
        Document("A-2", "No text element\nhere.", "", None, {"dochdr": "http://x"}),
    ]


def test_sgml_folders_share_their_ids(tmp_path: Path) -> None:
    (tmp_path / "part01").write_text(SGML)
    (tmp_path / "part02").write_text(SGML.replace("A-1", "B-1"))
    source = read_documents(tmp_path)
    with pytest.raises(
        TrichromeError, match=r"part02:12: duplicate document id 'A-2', first at .*part01:12;"
    ):
        list(source)
    source = read_documents(tmp_path, skip_bad=True)
    assert [document.id for document in source] == ["A-1", "A-2", "B-1"]
    assert source.report.skipped == {"duplicate id": [f"{tmp_path / 'part02'}:12"]}


@pytest.mark.parametrize(
    ("more", "line", "what"),
    [
        ("<DOC>\n<DOCNO>A-3</DOCNO>\n<TEXT>cut he", 15, "<DOC> is not closed: the file is cut"),
        ("<DOC><DOC><DOCNO>A-3</DOCNO></DOC>", 15, "<DOC> is not closed before the next one, at line 15"),
        ("<DOC><TEXT>no id</TEXT></DOC>", 15, "0 DOCNO elements"),
        ("<DOC><DOCNO> </DOCNO></DOC>", 15, "an empty DOCNO"),
        ("\nstray words", 16, "text outside of <DOC>"),
        ("</DOC>", 15, "</DOC> without <DOC>"),
    ],
)
def test_bad_sgml(tmp_path: Path, more: str, line: int, what: str) -> None:
    path = tmp_path / "part01"
    path.write_text(SGML + more)
    with pytest.raises(TrichromeError) as caught:
        list(trec.iter_documents(path))
    assert str(caught.value).startswith(f"{path}:{line}: {what}; ")


def test_many_unclosed_tags_take_linear_time(tmp_path: Path) -> None:
    """A million characters of tags that never close: quadratic scanning would not come back."""
    body = "<P>x" * 250_000
    (tmp_path / "big").write_text(f"<DOC><DOCNO>1</DOCNO>\n{body}\n</DOC>\n")
    (document,) = trec.iter_documents(tmp_path / "big")
    assert document.text == "x" * 250_000


# SQuAD


def squad_file(path: Path, **changes: Any) -> Path:
    qas = [
        {"id": "1", "question": "What floats?", "answers": [{"text": "Wood", "answer_start": 0}]},
        {"id": "2", "question": "What flies?", "is_impossible": True, "answers": []},
        {"id": "3", "question": "What else floats?", "answers": [{"text": "cork", "answer_start": 9}]}
        | changes,
    ]
    articles = [
        {"title": "Floating", "paragraphs": [{"context": "Wood and cork float.", "qas": qas[:2]}]},
        {
            "title": "Cork",
            "paragraphs": [
                {"context": "Wood and cork float.", "qas": qas[2:]},
                {"context": "Stones sink.", "qas": []},
            ],
        },
    ]
    path.write_text(json.dumps({"version": "2.0", "data": articles}, indent=1))
    return path


def test_squad(tmp_path: Path) -> None:
    task = squad.read_squad(squad_file(tmp_path / "dev.json"), lang="en")
    assert task.documents == (
        Document("p0", "Wood and cork float.", "Floating", "en"),
        Document("p1", "Stones sink.", "Cork", "en"),
    )
    assert [query.text for query in task.queries] == ["What floats?", "What else floats?"]
    assert task.qrels == {"1": {"p0": 1}, "3": {"p0": 1}}
    assert (task.answerless, task.repeated) == (1, 1)

    source = read_documents(tmp_path / "dev.json")
    assert source.format == "squad"
    assert [document.id for document in source] == ["p0", "p1"]
    assert source.report.skipped_count == 1
    one_line = tmp_path / "one_line.txt"  # the name says otherwise
    one_line.write_text(json.dumps(json.loads((tmp_path / "dev.json").read_text())))
    assert read_documents(one_line).format == "squad"


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"question": None}, r"data\[1\]\.paragraphs\[0\]\.qas\[0\]\.question: a string is needed, got null"),
        ({"id": "1"}, r"qas\[0\]: \"id\" '1' is the id of an earlier question"),
        ({"id": 5}, r"qas\[0\]\.id: a string is needed, got number"),
    ],
)
def test_bad_squad_fields(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    path = squad_file(tmp_path / "dev.json", **changes)
    with pytest.raises(TrichromeError, match=place):
        squad.read_squad(path)


def test_cut_squad_file(tmp_path: Path) -> None:
    path = squad_file(tmp_path / "dev.json")
    text = path.read_text()
    path.write_text(text[: text.index("Stones")])
    with pytest.raises(TrichromeError, match=r"dev\.json:\d\d: the JSON is cut"):
        list(read_documents(path))
    path.write_text('{"data": {}}')
    with pytest.raises(TrichromeError, match=r"dev\.json: data: an array is needed, got object"):
        squad.read_squad(path)
