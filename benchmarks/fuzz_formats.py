"""Readers of text formats and documents as targets for benchmarks.fuzz: a good folder, and how it is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.fuzz_run import Target
from trichrome.errors import TrichromeError
from trichrome.formats import beir, django_catalogues, flagembedding, miracl, read_documents, squad, trec


def _text(name: str, *lines: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")

    return make


def _rows(name: str, *rows: Any) -> Callable[[Path], None]:
    return _text(name, *(json.dumps(row, ensure_ascii=False) for row in rows))


def _all(*makers: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


def _exhaust(records: Iterable[Any]) -> None:
    for _ in records:
        pass


_DOCUMENT_ROWS = (
    {"id": "a", "title": "T", "text": "some text", "lang": "en", "metadata": {"year": 2020}},
    {"_id": 7, "text": "more", "url": "x"},
)


def _documents(name: str, format: str | None) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        problem: TrichromeError | None = None
        try:
            _exhaust(read_documents(folder / name, format=format))
        except TrichromeError as error:
            problem = error
        skipping = read_documents(folder / name, format=format, skip_bad=True)
        try:
            _exhaust(skipping)
        finally:
            skipping.report.summary()
        if problem is not None:
            raise problem

    return read


def _read_beir(folder: Path) -> None:
    task = beir.read_task(folder)
    _exhaust(task.corpus())
    _exhaust(task.queries())


def _read_miracl(folder: Path) -> None:
    _exhaust(miracl.read_topics(folder / "topics.tsv", lang="en"))
    miracl.read_qrels(folder / "qrels.txt")
    _exhaust(miracl.iter_corpus(folder / "corpus"))
    for row in miracl.iter_judged(folder / "judged.jsonl"):
        miracl.qrels_of(iter([row]))


_SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "The moon is old.",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "How old?",
                            "answers": [{"text": "old", "answer_start": 12}],
                        },
                        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
_PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj
4 0 obj<</Length 44>>stream
BT /F1 12 Tf 9 9 Td (the river moon) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
xref
0 0
trailer<</Size 6/Root 1 0 R>>
startxref
360
%%EOF
"""
_HTML = (
    "<html><head><title>T</title><meta charset=utf-8></head><body><p>a <b>b</b><pre>c\nd</pre></body></html>"
)


def _make_pdf(folder: Path) -> None:
    (folder / "a.pdf").write_bytes(_PDF)


def _make_mo(folder: Path) -> None:
    texts = [
        ("", "Content-Type: text/plain; charset=UTF-8\n"),
        ("ctx\x04one\0many", "eins\0viele"),
        ("two", "zwei"),
    ]
    count = len(texts)
    at, tables, strings = 28 + 16 * count, [], b""
    for which in (0, 1):
        for pair in texts:
            raw = pair[which].encode()
            tables.append(struct.pack("<2I", len(raw), at + len(strings)))
            strings += raw + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    (folder / "django.mo").write_bytes(head + b"".join(tables) + strings)


FORMATS = (
    Target("jsonl", _rows("a.jsonl", *_DOCUMENT_ROWS), _documents("a.jsonl", "jsonl"), lines=True),
    Target("any file", _rows("a.jsonl", *_DOCUMENT_ROWS), _documents("", None)),
    Target(
        "beir",
        _all(
            _rows("corpus.jsonl", {"_id": "a", "title": "T", "text": "x", "n": 1}, {"_id": "b", "text": "y"}),
            _rows("queries.jsonl", {"_id": "q", "text": "x", "lang": "en"}),
            _text("qrels.tsv", "query-id\tcorpus-id\tscore", "q\ta\t1", "q\tb\t0"),
        ),
        _read_beir,
        (b"\t", b"\n", b"1"),
        lines=True,
    ),
    Target(
        "trec run",
        _text("run", "q1 Q0 a 1 2.5 t", "q1 Q0 b 2 1e-3 t", "q2 Q0 a 1 0 t"),
        lambda folder: trec.read_run(folder / "run"),
        (b" ", b"\n", b"nan", b"1e999", b"\xe2\x80\xa8"),
        lines=True,
    ),
    Target(
        "trec qrels",
        _text("qrels", "q1 0 a 1", "q1 0 b 0"),
        lambda folder: trec.read_qrels(folder / "qrels"),
        (b" ", b"\n", b"-", b"1_0", b"9" * 5000),
        lines=True,
    ),
    Target(
        "trec documents",
        _text(
            "d.sgml",
            "<DOC><DOCNO>a</DOCNO><HEADLINE>h &amp; i</HEADLINE>",
            "<TEXT>x",
            "y</TEXT>",
            "<DATE>1</DATE></DOC>",
            "<DOC>",
            "<DOCNO> b </DOCNO>",
            "z",
            "</DOC>",
        ),
        _documents("d.sgml", "trec"),
        (
            b"<DOC>",
            b"</DOC>",
            b"<DOCNO>",
            b"</DOCNO>",
            b"<TEXT>",
            b"</TEXT>",
            b"&#x110000;",
            b"&#55296;",
            b"<",
        ),
        lines=True,
    ),
    Target("squad", _text("s.json", json.dumps(_SQUAD)), lambda folder: squad.read_squad(folder / "s.json")),
    Target(
        "miracl",
        _all(
            _text("topics.tsv", "1\twhat is", "2\twhere"),
            _text("qrels.txt", "1 Q0 a#0 1", "1 Q0 b#1 0"),
            _rows(
                "corpus/docs-0.jsonl",
                {"docid": "a#0", "title": "T", "text": "x"},
                {"docid": "b#1", "text": "y"},
            ),
            _rows(
                "judged.jsonl",
                {
                    "query_id": "1",
                    "query": "what",
                    "positive_passages": [{"docid": "a", "text": "x"}],
                    "negative_passages": [{"docid": "b", "title": "t", "text": "y"}],
                },
            ),
        ),
        _read_miracl,
        (b"\t", b"\n"),
        lines=True,
    ),
    Target(
        "flagembedding",
        _rows(
            "t.jsonl",
            {
                "query": "q",
                "pos": ["a", "b"],
                "neg": ["c"],
                "pos_scores": [1, 0.5],
                "neg_scores": [0.1],
                "prompt": "p",
                "type": "t",
                "lang": "en",
                "id": "1",
                "pos_ids": ["a", 2],
                "neg_ids": ["c"],
            },
            {"query": "r", "pos": ["d"]},
        ),
        lambda folder: _exhaust(flagembedding.read_examples(folder / "t.jsonl")),
        lines=True,
    ),
    Target(
        "text, markdown, html",
        _all(
            _text("a.txt", "some text"),
            _text("b.md", "---", "title: t", "---", "# h", "x", "=", "```", "# n", "```"),
            _text("c.html", _HTML),
        ),
        _documents("", "files"),
        (b"---", b"<", b"<pre>", b"</p>", b"&#0;", b"<meta charset=", b"\xff\xfe", b"\xef\xbb\xbf"),
    ),
    Target(
        "pdf",
        _make_pdf,
        _documents("a.pdf", "files"),
        (b"obj", b"endobj", b"<<", b">>", b"[", b" 0 R", b"stream"),
    ),
    Target(
        "manual pages",
        _text("ls.1", ".TH LS 1", ".SH NAME", "ls \\- list", ".SH B", ".B x", ".so y.1"),
        _documents("ls.1", "files"),
        (b".TH ", b".so ", b".if ", b".de X\n", b".X\n", b"\\", b".while 1 .X\n"),
    ),
    Target(
        "gettext catalogue",
        _make_mo,
        lambda folder: _exhaust(django_catalogues.read_mo(folder / "django.mo")),
    ),
)
