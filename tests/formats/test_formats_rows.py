"""JSONL documents, BEIR folders, FlagEmbedding rows, MIRACL and MLDR: round trips and bad rows."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trichrome.errors import TrichromeError
from trichrome.formats import beir, flagembedding, jsonl, miracl, read_documents
from trichrome.formats.lines import read_lines, write_lines
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Query, TrainingExample

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
ids = words.filter(bool)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
documents = st.builds(
    Document, ids, words, words, st.none() | words, st.dictionaries(words, values, max_size=3)
)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


# Round trips


@quick
@given(st.lists(documents, unique_by=lambda document: document.id), st.booleans())
def test_documents_round_trip(tmp_path: Path, given: list[Document], compress: bool) -> None:
    path = tmp_path / ("docs.jsonl.gz" if compress else "docs.jsonl")
    assert jsonl.write_documents(path, given) == len(given)
    assert list(jsonl.iter_documents(path)) == given


@quick
@given(
    st.lists(documents, unique_by=lambda document: document.id, max_size=4),
    st.lists(st.builds(Query, ids, words, st.none() | words), unique_by=lambda query: query.id, max_size=4),
    st.dictionaries(
        ids.filter(lambda id: not set(id) & set("\t\r\n")),
        st.dictionaries(
            ids.filter(lambda id: not set(id) & set("\t\r\n")), st.integers(-2, 4), min_size=1, max_size=3
        ),
        max_size=3,
    ),
)
def test_beir_round_trip(
    tmp_path: Path, given: list[Document], queries: list[Query], qrels: dict[str, dict[str, int]]
) -> None:
    beir.write_beir(tmp_path / "task", given, queries, qrels)
    task = beir.read_task(tmp_path / "task")
    assert (list(task.corpus()), list(task.queries()), task.qrels) == (given, queries, qrels)
    assert task.name == "task"


scored = st.lists(st.tuples(words.filter(str.strip), st.floats(-9, 9)), max_size=3)


@quick
@given(st.lists(st.tuples(words.filter(str.strip), scored.filter(bool), scored, st.booleans()), max_size=4))
def test_examples_round_trip(tmp_path: Path, given: list[tuple]) -> None:  # type: ignore[type-arg]
    examples = [
        TrainingExample(
            query,
            tuple(text for text, _ in pos),
            tuple(text for text, _ in neg),
            tuple(score for _, score in pos) if with_scores else None,
            tuple(score for _, score in neg) if with_scores else None,
            prompt="Find it: " if with_scores else None,
            type=None if with_scores else "retrieval",
            lang="th",
        )
        for query, pos, neg, with_scores in given
    ]
    flagembedding.write_examples(tmp_path / "rows.jsonl.gz", examples)
    source = flagembedding.read_examples(tmp_path / "rows.jsonl.gz")
    assert list(source) == examples == list(source)
    assert source.report == ReadReport(read=len(examples))


def test_metadata_is_the_rest_and_an_object_under_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"id": 7, "text": "a", "year": 1999, "metadata": {"tags": ["x"]}})
    assert list(jsonl.iter_documents(path)) == [Document("7", "a", metadata={"year": 1999, "tags": ["x"]})]
    write(path, {"id": "7", "text": "a", "year": 1999, "metadata": {"year": 2000}})
    with pytest.raises(TrichromeError, match=r'd\.jsonl:1: "year" is given twice'):
        list(jsonl.iter_documents(path))


def test_empty_and_very_long_texts(tmp_path: Path) -> None:
    given = [Document("empty", ""), Document("long", "長い文 " * 250_000)]  # > 1 MB
    jsonl.write_documents(tmp_path / "d.jsonl", given)
    assert list(read_documents(tmp_path / "d.jsonl")) == given


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("\ufeffone\r\ntwo\u2028still two\u0085\rstill\nthree".encode())
    assert list(read_lines(path)) == [(1, "one"), (2, "two\u2028still two\u0085\rstill"), (3, "three")]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl.gz", "before")
    with pytest.raises(TrichromeError, match=r":2: duplicate document id 'a', first at .*:1; give"):
        jsonl.write_documents(path, [Document("a", ""), Document("a", "")])
    with pytest.raises(TrichromeError, match=r":1: can't be written as JSON"):
        jsonl.write_documents(path, [Document("a", "", metadata={"score": float("nan")})])
    assert path.read_text() == "before\n"
    assert [file.name for file in tmp_path.iterdir()] == ["d.jsonl.gz"]


def test_equal_lines_give_equal_gzip_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.gz", ["same"])
    write_lines(tmp_path / "b.gz", ["same"])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


# Bad rows


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"id": "b", "text": "cut he', "the JSON is cut"),
        ('{"id": "b", ', "the JSON is cut"),
        ("plainly no JSON", "not JSON"),
        ('["a", "list"]', "a JSON array, not an object"),
        ('{"id": "b"}', 'no "text"'),
        ('{"text": "b"}', 'no "_id" or "id"'),
        ('{"id": "", "text": "b"}', '"id" is empty'),
        ('{"id": true, "text": "b"}', '"id" must be a string, got a boolean'),
        ('{"id": "b", "text": 5}', '"text" must be a string, got a number: 5'),
        ('{"id": "b", "text": null}', '"text" must be a string, got a null'),
        ('{"id": "b", "text": "", "title": []}', '"title" must be a string, got a array'),
        ('{"id": "b", "text": "", "lang": 1}', '"lang" must be a string'),
        ('{"id": "b", "text": "", "x": NaN}', "NaN is not JSON"),
        ('{"id": "b", "text": "\\ud800"}', "without its other half"),
        ('{"id": "b", "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"id": "a", "text": "again"}', "duplicate document id 'a', first at "),
    ],
)
def test_a_bad_document_row_is_placed(tmp_path: Path, row: str, what: str) -> None:
    path = write(tmp_path / "d.jsonl", {"id": "a", "text": "fine"}, "", row, {"id": "z", "text": "fine too"})
    with pytest.raises(TrichromeError) as caught:
        list(jsonl.iter_documents(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ")
    assert what in message
    assert "\n" not in message
    assert "; " in message  # what to do

    source = read_documents(path, skip_bad=True)
    assert [document.id for document in source] == ["a", "z"]
    assert list(source.report.skipped.values()) == [[f"{path}:3"]]
    assert (source.report.read, source.report.skipped_count) == (2, 1)


def test_invalid_utf8_is_placed_by_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"id": "a", "text": ""}\n{"id": "b", "text": "\xff"}\n')
    offset = path.read_bytes().index(b"\xff")
    with pytest.raises(
        TrichromeError, match=rf"d\.jsonl:2: invalid UTF-8: byte 0xff at byte offset {offset}; "
    ):
        list(read_documents(path))
    assert [document.id for document in read_documents(path, skip_bad=True)] == ["a"]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_cut_gzip_is_an_error_even_when_skipping(tmp_path: Path, skip_bad: bool) -> None:
    path = tmp_path / "d.jsonl.gz"
    lines = [json.dumps({"id": str(i), "text": f"number {i * i}"}) for i in range(2000)]
    write_lines(path, lines)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(TrichromeError, match=r"d\.jsonl\.gz:\d+: the gzip file is cut or damaged after line"):
        list(read_documents(path, skip_bad=skip_bad))


def test_gzip_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(gzip.compress(b'{"id": "a", "text": "t"}\n'))
    assert list(read_documents(path)) == [Document("a", "t")]
    write(tmp_path / "plain.gz", {"id": "a", "text": "t"})
    assert list(read_documents(tmp_path / "plain.gz")) == [Document("a", "t")]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"query": "q", "pos": ["p", 3]}, '"pos"[1] must be a string, got a number: 3'),
        ({"query": "q", "pos": "p"}, '"pos" must be an array of strings, got a string'),
        ({"query": "q", "pos": []}, '"pos" is empty'),
        ({"query": "q", "neg": []}, 'no "pos"'),
        ({"query": ["q"], "pos": ["p"]}, '"query" must be a string, got a array'),
        ({"query": " ", "pos": ["p"]}, '"query" is empty'),
        ({"query": "q", "pos": ["p"], "neg": ["n", ""]}, '"neg"[1] is empty'),
        ({"query": "q", "pos": ["p"], "neg": [None]}, '"neg"[0] must be a string, got a null'),
        ({"query": "q", "pos": ["p"], "pos_scores": [1, 2]}, '"pos_scores" holds 2 scores for 1 "pos"'),
        ({"query": "q", "pos": ["p"], "neg_scores": [1]}, '"neg_scores" holds 1 scores for 0 "neg"'),
        ({"query": "q", "pos": ["p"], "pos_scores": ["1"]}, '"pos_scores"[0] must be a number, got a string'),
        ({"query": "q", "pos": ["p"], "prompt": 1}, '"prompt" must be a string'),
    ],
)
def test_a_bad_training_row_is_placed(tmp_path: Path, row: dict[str, object], what: str) -> None:
    good = {"query": "q", "pos": ["p"], "neg": [], "neg_scores": None, "id": "dropped"}
    path = write(tmp_path / "train.jsonl", good, row, {"query": "r", "pos": ["p"]})
    with pytest.raises(TrichromeError) as caught:
        list(flagembedding.read_examples(path))
    assert str(caught.value).startswith(f"{path}:2: {what}")

    source = flagembedding.read_examples(path, skip_bad=True)
    assert [example.query for example in source] == ["q", "r"]
    (reason,) = source.report.skipped
    assert reason.startswith(what)
    assert source.report.skipped[reason] == [f"{path}:2"]


def test_blank_examples_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(TrichromeError, match=r'rows\.jsonl:1: "pos"\[0\] is empty'):
        flagembedding.write_examples(tmp_path / "rows.jsonl", [TrainingExample("q", ("",))])
    assert not list(tmp_path.iterdir())


# BEIR


def beir_folder(folder: Path) -> Path:
    beir.write_beir(
        folder,
        [
            Document("d1", "a red boat", lang="en", metadata={"pages": 3}),
            Document("d2", "ein Boot", lang="de"),
        ],
        [Query("q1", "boats", "en")],
        {"q1": {"d1": 2, "d2": 0}},
        compress=True,
    )
    return folder


def test_beir_qrels_are_found_by_name(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "boats")
    write(folder / "qrels.all.tsv", "query-id\tcorpus-id\tscore", "q1\td2\t1")
    for name in ("qrels.all.tsv", "all"):
        assert beir.read_task(folder, qrels=name).qrels == {"q1": {"d2": 1}}
    assert beir.read_qrels(folder) == beir.read_qrels(folder / "qrels.tsv") == {"q1": {"d1": 2, "d2": 0}}
    with pytest.raises(TrichromeError, match=r"no dev or .* it holds qrels\.all\.tsv, qrels\.tsv"):
        beir.read_qrels(folder, "dev")
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    assert beir.read_qrels(folder) == {"q1": {"d1": 2, "d2": 0}}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("q1 d1 1", "not three tab-separated columns"),
        ("q1\td1\tgood", "grade 'good' is not an integer"),
        ("q0\td0\t2", "query 'q0', document 'd0' is judged 2 here and 1 before"),
    ],
)
def test_bad_beir_qrels(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path / "qrels.tsv", "query-id\tcorpus-id\tscore", "q0\td0\t1", line)
    with pytest.raises(TrichromeError) as caught:
        beir.read_qrels(path)
    assert str(caught.value).startswith(f"{path}:3: {what}")


def test_incomplete_beir_folders(tmp_path: Path) -> None:
    with pytest.raises(TrichromeError, match="no such folder"):
        beir.read_task(tmp_path / "absent")
    folder = beir_folder(tmp_path / "boats")
    with pytest.raises(TrichromeError, match=r"ambiguous beside a new corpus\.jsonl;"):
        beir.write_beir(folder, [], [], {})
    write(folder / "corpus.jsonl", {"_id": "a", "text": ""})
    with pytest.raises(TrichromeError, match=r"both corpus\.jsonl and corpus\.jsonl\.gz"):
        next(beir.iter_corpus(folder))
    (folder / "queries.jsonl.gz").unlink()
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(TrichromeError, match=r"no queries\.jsonl or queries\.jsonl\.gz"):
        beir.read_task(folder)
    write(folder / "queries.jsonl", {"_id": "q", "text": "t"}, {"_id": "q", "text": "u"})
    with pytest.raises(TrichromeError, match=r"queries\.jsonl:2: duplicate query id 'q', first at .*:1;"):
        list(beir.iter_queries(folder))


def test_real_beir_folder(shared_data: Path) -> None:
    task = beir.read_task(shared_data / "eval" / "xquad-pool")
    assert task.name == "xquad-pool"
    corpus = read_documents(task.folder)
    assert corpus.format == "beir"
    assert {document.lang for document in corpus} == {
        *("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
    }
    assert corpus.report == ReadReport(read=2880)
    assert sum(1 for _ in task.queries()) == 14280
    assert sum(len(grades) for grades in task.qrels.values()) == 171360
    mono = beir.read_qrels(task.folder, "mono")
    assert sum(len(grades) for grades in mono.values()) == 14280


# MIRACL, MLDR


def test_miracl_files(tmp_path: Path) -> None:
    for part, numbers in (("docs-0.jsonl.gz", (0, 1)), ("docs-2.jsonl.gz", (2,)), ("docs-10.jsonl.gz", (3,))):
        rows = [json.dumps({"docid": f"{i}#0", "title": f"T{i}", "text": f"body {i}"}) for i in numbers]
        write_lines(tmp_path / "corpus" / part, rows)
    source = read_documents(tmp_path / "corpus")
    assert source.format == "miracl"
    assert list(source) == [Document(f"{i}#0", f"body {i}", f"T{i}") for i in range(4)]
    write_lines(tmp_path / "corpus" / "docs-11.jsonl", ['{"docid": "2#0", "text": "again"}'])
    with pytest.raises(TrichromeError, match=r"docs-11\.jsonl:1: duplicate .*docs-2\.jsonl\.gz:1;"):
        list(source)

    topics = write(tmp_path / "topics.tsv", "1\tWhere is it?", "2\tHow long\tand wide?")
    assert list(miracl.read_topics(topics, lang="en")) == [
        Query("1", "Where is it?", "en"),
        Query("2", "How long\tand wide?", "en"),
    ]
    write(topics, "1\tWhere is it?", "no tab")
    with pytest.raises(TrichromeError, match=r"topics\.tsv:2: no id, tab and query"):
        list(miracl.read_topics(topics))
    qrels = write(tmp_path / "qrels.tsv", "1 Q0 2#0 1", "1 Q0 3#0 0")
    assert miracl.read_qrels(qrels) == {"1": {"2#0": 1, "3#0": 0}}


def test_mldr_rows(tmp_path: Path) -> None:
    row = {
        "query_id": "q-1",
        "query": "Who sails?",
        "positive_passages": [{"docid": "a", "text": "The crew sails.", "title": "Crew"}],
        "negative_passages": [{"docid": "b", "text": "A car."}],
    }
    path = write(tmp_path / "dev.jsonl", row)
    (judged,) = miracl.iter_judged(path, lang="en")
    assert judged.query == Query("q-1", "Who sails?", "en")
    assert miracl.qrels_of(iter([judged])) == {"q-1": {"a": 1, "b": 0}}
    assert miracl.example_of(judged) == TrainingExample(
        "Who sails?", ("Crew\nThe crew sails.",), ("A car.",), lang="en"
    )
    write(path, row, {**row, "query_id": "q-2", "positive_passages": [{"docid": "a", "text": 1}]})
    with pytest.raises(
        TrichromeError, match=r'dev\.jsonl:2: "positive_passages"\[0\]: "text" must be a string'
    ):
        list(miracl.iter_judged(path))
    with pytest.raises(TrichromeError, match=r"training rows, not documents; read them with .*iter_judged"):
        read_documents(path)
