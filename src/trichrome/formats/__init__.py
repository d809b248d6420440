"""On-disk formats, one file each; read_documents opens any source of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from trichrome.formats import beir, files, jsonl, miracl, squad, trec
from trichrome.formats.detect import FORMATS, detect
from trichrome.formats.lines import Seen, fault
from trichrome.formats.report import ReadReport, Records
from trichrome.records import Document

__all__ = ["FORMATS", "Documents", "ReadReport", "Records", "read_documents"]

#: Documents streamed anew at each iteration, with `.path`, `.format` and the `.report` of the latest one.
Documents: TypeAlias = Records[Document]


def read_documents(path: str | Path, *, format: str | None = None, skip_bad: bool = False) -> Documents:
    """Open a source of documents; nothing but its head is read before the first iteration.

    format: one of `beir`, `jsonl`, `squad`, `trec`, `miracl`, `files`. None tells it from the content, gzip
    or not; a name that ends in .jsonl counts only where the content tells nothing.

    - A folder with a corpus.jsonl[.gz] that holds JSON objects: `beir` (its corpus).
    - A folder whose visible files all begin alike: `jsonl` (objects), `miracl` (objects with a docid) or
      `trec` (`<DOC>`); every part is read, in the order of the names.
    - Any other folder: `files`, recursively: txt, md, html, pdf and manual pages. Names tell these apart, as
      nothing else does; JSONL among other files is counted as an unknown suffix.
    - A file whose first line is an object: `squad` where that, or an object over many lines, has an array
      `data` or `paragraphs`; `miracl` where it has a docid and no id; else `jsonl`. Training rows (query with
      pos, or with positive_passages) and JSON arrays are refused with a hint.
    - A file that begins with `<DOC>`: `trec`. Any other file: `files`.

    skip_bad: leave out bad rows, files and repeated ids, and list them in `.report`; else the first one
    raises. A file that is cut, or a SQuAD file with any fault, raises in either case.

    TrichromeError: a missing path (here, at once); bad content (as it is met), with file and line; an id that
    was there before, with both places.
    """
    path = Path(path)
    if not path.exists():
        raise fault(path, "no such file or folder", "check the path")
    if format is None:
        format = detect(path)
    readers: dict[str, Callable[[ReadReport], Iterator[Document]]] = {
        "beir": lambda report: beir.iter_corpus(path, skip_bad=skip_bad, report=report),
        "jsonl": lambda report: _jsonl(path, skip_bad, report),
        "squad": lambda report: _squad(path, report),
        "trec": lambda report: _trec(path, skip_bad, report),
        "miracl": lambda report: miracl.iter_corpus(path, skip_bad=skip_bad, report=report),
        "files": lambda report: files.iter_files(path, skip_bad=skip_bad, report=report),
    }
    if format not in readers:
        raise fault(path, f"unknown format {format!r}", f"choose one of {', '.join(FORMATS)}")
    return Records(path, format, readers[format])


def _parts(path: Path) -> list[Path]:
    """The visible files of a folder, sorted, or the one file."""
    if path.is_file():
        return [path]
    return sorted(part for part in path.iterdir() if part.is_file() and not part.name.startswith("."))


def _jsonl(path: Path, skip_bad: bool, report: ReadReport) -> Iterator[Document]:
    seen = Seen()
    for part in _parts(path):
        yield from jsonl.iter_documents(part, skip_bad=skip_bad, report=report, seen=seen)


def _trec(path: Path, skip_bad: bool, report: ReadReport) -> Iterator[Document]:
    seen = Seen()
    for part in _parts(path):
        yield from trec.iter_documents(part, skip_bad=skip_bad, report=report, seen=seen)


def _squad(path: Path, report: ReadReport) -> Iterator[Document]:
    task = squad.read_squad(path)
    if task.repeated:
        report.skipped["repeated paragraph"] = [str(path)] * task.repeated
    yield from task.documents
