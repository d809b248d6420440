"""Tasks: which queries count, sampling, languages, BEIR folders."""

import pytest

from trichrome.errors import TrichromeError
from trichrome.evaluation import Task, load_task
from trichrome.formats.beir import write_beir
from trichrome.records import Document, Query


def test_only_judged_queries_count(task) -> None:
    assert len(task.queries) == 24
    assert task.unjudged == 1


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_order(task) -> None:
    ids = [q.id for q in task.sample(5, seed=1).queries]
    assert ids == [q.id for q in task.sample(5, seed=1).queries]
    assert ids != [q.id for q in task.sample(5, seed=2).queries]
    assert ids == sorted(ids, key=lambda id: int(id[1:]))
    assert len(ids) == 5
    assert task.sample(None) is task
    assert task.sample(99) is task
    with pytest.raises(TrichromeError, match="at least 1"):
        task.sample(0)


def test_pools(task, within) -> None:
    assert [(lang, len(d), len(q)) for lang, d, q in task.pools()] == [(None, 40, 24)]
    pools = within.pools()
    assert [(lang, len(d), len(q)) for lang, d, q in pools] == [("en", 20, 12), ("sw", 20, 12)]
    assert {within.documents[i].lang for i in pools[0][1]} == {"en"}
    assert {within.queries[i].lang for i in pools[1][2]} == {"sw"}


@pytest.mark.parametrize(
    ("queries", "qrels", "documents", "message"),
    [
        ([Query("q", "x", "en")], {"q": {"d": 0}}, [Document("d", "x", lang="en")], "0 of them"),
        (
            [Query("q", "x", "en")],
            {"q": {"d": 1}},
            [Document("d", "x", lang="sw")],
            "'en', which no document",
        ),
        ([Query("q", "x")], {"q": {"d": 1}}, [Document("d", "x")], "None, which no document"),
        ([Query("q", "x", "en")], {"q": {"d": 1}}, [Document("d", "x", lang="en")] * 2, "the same id"),
    ],
)
def test_what_cannot_be_measured_is_refused(queries, qrels, documents, message) -> None:
    with pytest.raises(TrichromeError, match=message):
        Task.of("t", documents, queries, qrels, within_language=True)


def test_beir_folder(tmp_path, task) -> None:
    write_beir(tmp_path / "tiny", task.documents, task.queries, task.qrels)
    (tmp_path / "tiny" / "qrels.few.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    read = load_task(tmp_path / "tiny")
    assert (read.name, list(read.documents), list(read.queries)) == (
        "tiny",
        list(task.documents),
        list(task.queries),
    )
    few = load_task(tmp_path / "tiny", qrels="qrels.few.tsv", within_language=True)
    assert (few.name, [q.id for q in few.queries], few.unjudged) == ("tiny:few", ["q1"], 23)


def test_real_task(shared_data) -> None:
    task = load_task(shared_data / "eval" / "man-long", within_language=True)
    assert (len(task.documents), len(task.queries), task.unjudged) == (1686, 1682, 0)
    assert [lang for lang, _, _ in task.pools()] == sorted(
        ["en", "de", "fr", "ja", "zh_CN", "ru", "es", "pl"]
    )
