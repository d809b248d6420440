"""MIRACL and MLDR files.

MIRACL (arXiv 2210.09984): topics as TSV (``qid<TAB>query``), qrels as TREC, a corpus of JSONL parts
``docs-0.jsonl.gz`` … with {docid, title, text}. MLDR (arXiv 2402.03216): JSONL rows {query_id, query,
positive_passages, negative_passages}, a passage being {docid, text} or {docid, title, text}; MIRACL's own
rows on the hub have the same shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trichrome.formats import jsonl, trec
from trichrome.formats.lines import Seen, fault, id_field, json_rows, kind, read_lines, text_field, unique
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Qrels, Query, TrainingExample


def read_topics(path: str | Path, *, lang: str | None = None) -> Iterator[Query]:
    """Stream MIRACL's topics, each with `lang`. TrichromeError: a line without a tab, a repeated id."""
    path = Path(path)
    return unique(_topics(path, lang), lambda query: query.id, path, Seen("query id"))


def _topics(path: Path, lang: str | None) -> Iterator[tuple[int, Query]]:
    for number, line in read_lines(path):
        if line.strip():
            id, tab, text = line.partition("\t")
            if not tab or not id:
                raise fault(f"{path}:{number}", "no id, tab and query", "write `qid<TAB>query`")
            yield number, Query(id, text, lang)


def read_qrels(path: str | Path) -> Qrels:
    """Read MIRACL's judgements, which are TREC qrels (formats.trec.read_qrels)."""
    return trec.read_qrels(path)


def corpus_parts(path: str | Path) -> list[Path]:
    """The JSONL files of a MIRACL corpus in the order of their numbers; a file is its own only part."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise fault(path, "no such file or folder", "check the path")
    parts = {
        part
        for pattern in ("*.jsonl", "*.jsonl.gz")
        for part in path.glob(pattern)
        if part.is_file() and not part.name.startswith(".")
    }
    if not parts:
        raise fault(path, "no *.jsonl or *.jsonl.gz in it", "name the folder of docs-0.jsonl.gz …")
    return sorted(parts, key=_number)


def _number(part: Path) -> tuple[int, str]:
    """Sorts docs-2 before docs-10."""
    digits = re.findall(r"[0-9]+", part.name)
    return (int(digits[-1]) if digits else -1, part.name)


def iter_corpus(
    path: str | Path, *, skip_bad: bool = False, report: ReadReport | None = None
) -> Iterator[Document]:
    """Stream a corpus of {docid, title, text} rows from one file or a folder of parts.

    skip_bad: count bad rows and repeated ids in `report` instead of raising.
    TrichromeError: missing path, bad row, an id that this part or another had.
    """
    seen = Seen()
    for part in corpus_parts(path):
        yield from jsonl.iter_documents(
            part, skip_bad=skip_bad, report=report, seen=seen, id_names=("docid", "_id", "id")
        )


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One row of MLDR (or of MIRACL's rows): a query with the passages judged for it."""

    query: Query
    positives: tuple[Document, ...]
    negatives: tuple[Document, ...]


def iter_judged(path: str | Path, *, lang: str | None = None) -> Iterator[JudgedQuery]:
    """Stream rows {query_id, query, positive_passages, negative_passages}.

    TrichromeError: a row without a query or with passages that are no {docid, text} (file, line, reason), a
    repeated query id.
    """
    path = Path(path)
    rows = json_rows(
        path, lambda row: _judged(row, lang), fix='each row needs "query_id", "query" and "positive_passages"'
    )
    return unique(rows, lambda row: row.query.id, path, Seen("query id"))


def _judged(row: dict[str, Any], lang: str | None) -> JudgedQuery:
    query = Query(id_field(row, "query_id"), text_field(row, "query"), lang)
    return JudgedQuery(query, _passages(row, "positive_passages"), _passages(row, "negative_passages"))


def _passages(row: dict[str, Any], name: str) -> tuple[Document, ...]:
    values = row.get(name)
    if values is None and name == "negative_passages":
        return ()
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise TypeError(f'"{name}" must be an array of objects, got a {kind(values)}')
    passages = []
    for i, value in enumerate(values):
        try:
            passages.append(jsonl.document_from_row(value, ("docid",)))
        except (ValueError, TypeError) as error:
            raise ValueError(f'"{name}"[{i}]: {error}') from None
    return tuple(passages)


def qrels_of(rows: Iterator[JudgedQuery]) -> Qrels:
    """Judgements out of rows: 1 for a positive passage, 0 for a negative one."""
    return {
        row.query.id: {
            **{passage.id: 0 for passage in row.negatives},
            **{passage.id: 1 for passage in row.positives},
        }
        for row in rows
    }


def example_of(row: JudgedQuery) -> TrainingExample:
    """A row as a training example; a passage's title is put before its text, as when documents are encoded.

    ValueError where the row has no positive passage (as in MIRACL's test sets).
    """
    return TrainingExample(
        row.query.text,
        tuple(passage.content for passage in row.positives),
        tuple(passage.content for passage in row.negatives),
        lang=row.query.lang,
    )
