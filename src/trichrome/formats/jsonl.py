"""Documents as JSONL, one object a line, plain or gzip.

A row: ``_id`` or ``id`` (a string or an integer), ``text``, and optionally ``title`` and ``lang``; an
object under ``metadata`` and every other key become the document's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trichrome.errors import TrichromeError
from trichrome.formats.lines import (
    Seen,
    dump_row,
    fault,
    id_field,
    json_rows,
    text_field,
    unique,
    write_lines,
)
from trichrome.formats.report import ReadReport
from trichrome.records import Document

_FIX = 'each document needs "_id" or "id" and "text"; "title" and "lang" are optional strings'


def document_from_row(row: dict[str, Any], id_names: tuple[str, ...] = ("_id", "id")) -> Document:
    """The document that a JSON object describes. ValueError or TypeError says what is wrong with it.

    id_names: keys that can hold the id; the first that is present does, and the rest are metadata.
    """
    id = id_field(row, *id_names)
    used = {next(name for name in id_names if name in row), "text", "title", "lang"}
    metadata = {name: value for name, value in row.items() if name not in used}
    if isinstance(nested := metadata.get("metadata", {}), dict) or nested is None:
        metadata.pop("metadata", None)
        if both := metadata.keys() & (nested or {}).keys():
            raise ValueError(f'"{min(both)}" is given twice: beside "metadata" and inside it')
        metadata.update(nested or {})
    lang = None if row.get("lang") is None else text_field(row, "lang")
    return Document(id, text_field(row, "text"), text_field(row, "title", ""), lang, metadata)


def row_from_document(document: Document, id_name: str = "id") -> dict[str, Any]:
    """The JSON object of a document; document_from_row gives an equal document back."""
    row: dict[str, Any] = {id_name: document.id, "title": document.title, "text": document.text}
    if document.lang is not None:
        row["lang"] = document.lang
    if document.metadata:
        row["metadata"] = document.metadata
    return row


def iter_documents(
    path: str | Path,
    *,
    skip_bad: bool = False,
    report: ReadReport | None = None,
    seen: Seen | None = None,
    id_names: tuple[str, ...] = ("_id", "id"),
) -> Iterator[Document]:
    """Stream the documents of one JSONL file.

    skip_bad: count bad rows and repeated ids in `report` instead of raising.
    seen: ids of the files before this one, where a source has several.
    TrichromeError: a bad row or a repeated id (file, line, reason), a missing file, a cut gzip.
    """
    path = Path(path)
    rows = json_rows(
        path, lambda row: document_from_row(row, id_names), fix=_FIX, skip_bad=skip_bad, report=report
    )
    seen = Seen() if seen is None else seen
    return unique(rows, lambda document: document.id, path, seen, skip_bad=skip_bad, report=report)


def write_documents(path: str | Path, documents: Iterable[Document], *, id_name: str = "id") -> int:
    """Write documents as JSONL (gzip where the name ends in .gz), whole or not at all; returns how many.

    TrichromeError: a repeated id, or metadata that JSON can't hold.
    """
    return write_lines(path, _document_lines(Path(path), documents, id_name))


def _document_lines(path: Path, documents: Iterable[Document], id_name: str) -> Iterator[str]:
    seen = Seen()
    for number, document in enumerate(documents, 1):
        seen.check(document.id, path, number)
        yield encodable(path, number, row_from_document(document, id_name))


def encodable(path: Path, number: int, row: dict[str, Any]) -> str:
    """The JSON of row `number` to be written; TrichromeError where JSON can't hold it."""
    try:
        line = dump_row(row)
        line.encode()
    except (ValueError, TypeError) as error:
        if isinstance(error, TrichromeError):
            raise
        raise fault(f"{path}:{number}", f"can't be written as JSON ({error})", "mend that record") from None
    return line
