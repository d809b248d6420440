"""BEIR folders: ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]``, and judgements as TSV.

The judgements are ``qrels.tsv`` beside the corpus or ``qrels/test.tsv``, with the header
``query-id  corpus-id  score``; a folder may hold others (``qrels.all.tsv``, ``qrels/dev.tsv``).
Layout: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trichrome.formats import jsonl
from trichrome.formats.lines import (
    Seen,
    fault,
    id_field,
    json_rows,
    read_lines,
    text_field,
    unique,
    write_lines,
)
from trichrome.formats.report import ReadReport
from trichrome.formats.trec import add_grade
from trichrome.records import Document, Qrels, Query

_HEADER = "query-id\tcorpus-id\tscore"


@dataclass(frozen=True, slots=True)
class BeirTask:
    """One retrieval task: a corpus and queries that are streamed, and judgements in memory.

    name: how results call it. folder: where it lies. qrels: query id → document id → grade.
    """

    name: str
    folder: Path
    qrels: Qrels

    def corpus(self) -> Iterator[Document]:
        """Stream the documents."""
        return iter_corpus(self.folder)

    def queries(self) -> Iterator[Query]:
        """Stream the queries, those without a judgement too."""
        return iter_queries(self.folder)


def read_task(folder: str | Path, *, qrels: str | None = None, name: str | None = None) -> BeirTask:
    """Open a BEIR folder.

    qrels: which judgements, as in read_qrels. name: the folder's own where None.
    TrichromeError: a missing folder or file, bad judgements.
    """
    folder = Path(folder)
    for part in ("corpus", "queries"):
        _part(folder, part)
    return BeirTask(name or folder.resolve().name, folder, read_qrels(folder, qrels))


def _part(folder: Path, name: str) -> Path:
    """folder/name.jsonl, plain or gzip; TrichromeError where there is none, or both."""
    if not folder.is_dir():
        raise fault(folder, "no such folder", "check the path")
    found = [path for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if path.is_file()]
    if not found:
        raise fault(
            folder, f"no {name}.jsonl or {name}.jsonl.gz", "a BEIR folder needs corpus, queries and qrels"
        )
    if len(found) == 2:
        raise fault(folder, f"both {name}.jsonl and {name}.jsonl.gz", "remove the older one")
    return found[0]


def iter_corpus(
    folder: str | Path, *, skip_bad: bool = False, report: ReadReport | None = None
) -> Iterator[Document]:
    """Stream the documents of a BEIR folder; keys other than _id, title, text and lang become metadata.

    skip_bad: count bad rows and repeated ids in `report` instead of raising.
    TrichromeError: missing folder or file, cut file, bad row, repeated id.
    """
    return jsonl.iter_documents(
        _part(Path(folder), "corpus"), skip_bad=skip_bad, report=report, id_names=("_id",)
    )


def _query(row: dict[str, Any]) -> Query:
    lang = None if row.get("lang") is None else text_field(row, "lang")
    return Query(id_field(row, "_id"), text_field(row, "text"), lang)


def iter_queries(folder: str | Path) -> Iterator[Query]:
    """Stream the queries; keys other than _id, text and lang are not part of a Query and are left in the
    file.

    TrichromeError: missing folder or file, cut file, bad row, repeated id.
    """
    path = _part(Path(folder), "queries")
    rows = json_rows(path, _query, fix='each query needs "_id" and "text"')
    return unique(rows, lambda query: query.id, path, Seen("query id"))


def qrels_path(folder: str | Path, name: str | None = None) -> Path:
    """The file of judgements in a BEIR folder.

    name: None for ``qrels.tsv``, else ``qrels/test.tsv``; a path inside the folder (``qrels.all.tsv``,
    ``qrels/dev.tsv``); or the bare word of one (``all``, ``dev``).
    TrichromeError: no such file; it names those that are there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise fault(folder, "no such folder", "check the path")
    tried = (
        ("qrels.tsv", "qrels/test.tsv") if name is None else (name, f"qrels.{name}.tsv", f"qrels/{name}.tsv")
    )
    for candidate in tried:
        if (folder / candidate).is_file():
            return folder / candidate
    there = sorted(
        str(path.relative_to(folder)) for path in [*folder.glob("qrels*.tsv"), *folder.glob("qrels/*.tsv")]
    )
    raise fault(folder, f"no {' or '.join(tried)}", f"it holds {', '.join(there)}" if there else "add one")


def read_qrels(path: str | Path, name: str | None = None) -> Qrels:
    """Read judgements in BEIR's three columns, from a file or a folder (then `name` is as in qrels_path).

    A first line whose third column is no integer is the header.
    TrichromeError: a line without three columns, a grade that is no integer, two grades for one pair.
    """
    path = Path(path)
    if name is not None or not path.is_file():
        path = qrels_path(path, name)
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != 3 or not columns[0] or not columns[1]:
            raise fault(
                f"{path}:{number}",
                "not three tab-separated columns",
                "write `query-id<TAB>corpus-id<TAB>score`",
            )
        query, document, grade = columns
        if number == 1 and not grade.strip().lstrip("+-").isdigit():
            continue
        add_grade(qrels, query, document, grade, f"{path}:{number}", "a qrels file")
    return qrels


def write_beir(
    folder: str | Path,
    documents: Iterable[Document],
    queries: Iterable[Query],
    qrels: Qrels,
    *,
    compress: bool = False,
) -> None:
    """Write a BEIR folder; each of its three files is whole or absent.

    compress: gzip the corpus and the queries.
    TrichromeError: a repeated id, an id with a tab or line break in the judgements, metadata that JSON
    can't hold, or a corpus in the other compression that lies there already.
    """
    folder = Path(folder)
    end, other = (".jsonl.gz", ".jsonl") if compress else (".jsonl", ".jsonl.gz")
    for name in ("corpus", "queries"):
        if (old := folder / f"{name}{other}").exists():
            raise fault(old, f"would be ambiguous beside a new {name}{end}", "remove it, or write elsewhere")
    jsonl.write_documents(folder / f"corpus{end}", documents, id_name="_id")
    write_lines(folder / f"queries{end}", _query_lines(folder / f"queries{end}", queries))
    write_lines(folder / "qrels.tsv", _qrels_lines(folder / "qrels.tsv", qrels))


def _query_lines(path: Path, queries: Iterable[Query]) -> Iterator[str]:
    seen = Seen("query id")
    for number, query in enumerate(queries, 1):
        seen.check(query.id, path, number)
        row = {"_id": query.id, "text": query.text}
        yield jsonl.encodable(path, number, row if query.lang is None else {**row, "lang": query.lang})


def _qrels_lines(path: Path, qrels: Qrels) -> Iterator[str]:
    yield _HEADER
    for query, grades in qrels.items():
        for document, grade in grades.items():
            for id in (query, document):
                if not id or any(character in id for character in "\t\r\n"):
                    raise fault(path, f"id {id!r} is empty or holds a tab or line break", "rename it")
            yield f"{query}\t{document}\t{grade:d}"
