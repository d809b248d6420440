"""TREC's files: runs, qrels, and documents in SGML.

A run line is ``qid Q0 docid rank score tag``; a qrels line ``qid iteration docid grade``. Columns are
separated by ASCII white space, so that an id may hold any other character, but none of that.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from trichrome.formats.lines import Seen, fault, read_lines, unique, write_lines
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Payload, Qrels, Run

_columns = re.compile(r"[^ \t\r\v\f]+").findall
_WHITE = re.compile(r"[ \t\n\r\v\f]")


def read_run(path: str | Path) -> Run:
    """Read a run; the documents of a query come by descending score, those of equal score in the file's
    order.

    The rank column is ignored, as trec_eval does.
    TrichromeError: a line without six columns, a score that is no finite number, a document twice for one
    query.
    """
    run: dict[str, dict[str, float]] = {}
    for number, line in read_lines(path):
        if not (columns := _columns(line)):
            continue
        if len(columns) != 6:
            raise fault(
                f"{path}:{number}",
                f"{len(columns)} columns where a run has 6",
                "write `qid Q0 docid rank score tag`",
            )
        query, _, document, _, text, _ = columns
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise fault(f"{path}:{number}", f"score {text!r} is not a finite number", "mend that line")
        scores = run.setdefault(query, {})
        if document in scores:
            raise fault(
                f"{path}:{number}",
                f"document {document!r} comes twice for query {query!r}",
                "keep its best line only",
            )
        scores[document] = score
    return {query: dict(sorted(scores.items(), key=lambda item: -item[1])) for query, scores in run.items()}


def write_run(path: str | Path, run: Run, tag: str = "trichrome") -> int:
    """Write a run, each query's documents by descending score (equal scores in the mapping's order);
    returns lines.

    Scores are written as the shortest decimals that read back to the same 64-bit floats.
    TrichromeError: an id or tag that is empty or holds white space, a score that is no finite number.
    """
    _check_id(path, "tag", tag)
    return write_lines(path, _run_lines(path, run, tag))


def _run_lines(path: str | Path, run: Run, tag: str) -> Iterator[str]:
    for query, scores in run.items():
        _check_id(path, "query id", query)
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        for rank, (document, score) in enumerate(ranked, 1):
            _check_id(path, "document id", document)
            if not math.isfinite(score):
                raise fault(
                    path, f"score {score} of {document!r} for {query!r}", "a run holds finite numbers only"
                )
            yield f"{query} Q0 {document} {rank} {float(score)!r} {tag}"


def _check_id(path: str | Path, what: str, value: str) -> None:
    if not value or _WHITE.search(value):
        raise fault(
            path, f"{what} {value!r} is empty or holds white space", "TREC files can't express it: rename it"
        )


def add_grade(
    qrels: dict[str, dict[str, int]], query: str, document: str, grade: str, place: str, name: str
) -> None:
    """Add one judgement to `qrels`. TrichromeError: no integer, or in contradiction to another."""
    try:
        value = int(grade)
    except ValueError:
        raise fault(
            place, f"grade {grade!r} is not an integer", f"{name} needs whole numbers (0: not relevant)"
        ) from None
    if qrels.setdefault(query, {}).setdefault(document, value) != value:
        raise fault(
            place,
            f"query {query!r}, document {document!r} is judged {value} here and "
            f"{qrels[query][document]} before",
            "keep one of the two",
        )


def read_qrels(path: str | Path) -> Qrels:
    """Read TREC qrels (four columns: qid, iteration, docid, grade). TrichromeError with file and line."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        if not (columns := _columns(line)):
            continue
        if len(columns) != 4:
            raise fault(
                f"{path}:{number}",
                f"{len(columns)} columns where TREC qrels have 4",
                "write `qid 0 docid grade` (a BEIR file with 3 columns is read by formats.beir)",
            )
        add_grade(qrels, columns[0], columns[2], columns[3], f"{path}:{number}", "a qrels file")
    return qrels


def write_qrels(path: str | Path, qrels: Qrels) -> int:
    """Write TREC qrels; returns how many lines. TrichromeError: an id that holds white space."""
    return write_lines(path, _qrels_lines(path, qrels))


def _qrels_lines(path: str | Path, qrels: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for query, grades in qrels.items():
        _check_id(path, "query id", query)
        for document, grade in grades.items():
            _check_id(path, "document id", document)
            yield f"{query} 0 {document} {grade:d}"


# Documents ------------------------------------------------------------

_DOC = re.compile(r"<(/?)DOC>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_OPEN = re.compile(r"<([A-Za-z][\w-]*)[^<>]*>")
_TITLES = ("title", "headline", "hl", "ttl", "head")


def iter_documents(
    path: str | Path, *, skip_bad: bool = False, report: ReadReport | None = None, seen: Seen | None = None
) -> Iterator[Document]:
    """Stream the documents of one SGML file: ``<DOC> <DOCNO>…</DOCNO> … </DOC>``, plain or gzip, UTF-8.

    id: DOCNO. title: the first TITLE, HEADLINE, HL, TTL or HEAD. text: all TEXT elements, with what stands
    in no element; the elements beside them (DATE, AUTHOR …) become metadata under their lower-case names.
    A document with no TEXT has all its elements but DOCHDR as its text. Tags inside are dropped and
    entities resolved.
    skip_bad: count bad documents and repeated ids in `report` instead of raising.
    TrichromeError: a DOC that is not closed or has no DOCNO, text outside of DOC, a repeated id.
    """
    path = Path(path)
    seen = Seen() if seen is None else seen
    rows = _parsed(path, skip_bad, report)
    return unique(rows, lambda document: document.id, path, seen, skip_bad=skip_bad, report=report)


def _parsed(path: Path, skip_bad: bool, report: ReadReport | None) -> Iterator[tuple[int, Document]]:
    for number, body, wrong in _bodies(path):
        if not wrong:
            try:
                yield number, _parse_document(body)
                continue
            except ValueError as error:
                wrong = str(error)
        if not skip_bad:
            raise fault(f"{path}:{number}", wrong, "write <DOC><DOCNO>id</DOCNO><TEXT>…</TEXT></DOC>")
        if report is not None:
            report.skip(wrong, f"{path}:{number}")


def _bodies(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line of its <DOC>, what stands up to </DOC>, what is wrong) of each document and stray text."""
    parts: list[str] | None = None
    start = 0
    for number, line in read_lines(path):
        position = 0
        for tag in _DOC.finditer(line):
            before = line[position : tag.start()]
            position = tag.end()
            if parts is None and before.strip():
                yield number, "", "text outside of <DOC>"
            if tag[1]:  # </DOC>
                if parts is None:
                    yield number, "", "</DOC> without <DOC>"
                else:
                    yield start, "\n".join([*parts, before]), ""
                parts = None
            else:
                if parts is not None:
                    yield start, "", f"<DOC> is not closed before the next one, at line {number}"
                parts, start = [], number
        rest = line[position:]
        if parts is not None:
            parts.append(rest)
        elif rest.strip():
            yield number, "", "text outside of <DOC>"
    if parts is not None:
        yield start, "", "<DOC> is not closed: the file is cut"


def _elements(body: str) -> Iterator[tuple[str, str]]:
    """(lower-case name, content) of each outermost element, and ("", text) of what is between."""
    lower = body.lower()
    if len(lower) != len(body):  # a few letters grow in lower case: positions would shift
        lower = re.sub(r"[A-Z]", lambda letter: letter[0].lower(), body)
    position = 0
    lone: set[str] = set()  # names that have no closing tag further on: looked for once, so this stays linear
    scan = 0
    while tag := _OPEN.search(body, scan):
        name = tag[1].lower()
        scan = tag.end()
        if name in lone:
            continue
        end = lower.find(f"</{name}>", scan)
        if end < 0:
            lone.add(name)
            continue
        if body[position : tag.start()].strip():
            yield "", body[position : tag.start()]
        yield name, body[tag.end() : end]
        position = scan = end + len(name) + 3
    if body[position:].strip():
        yield "", body[position:]


def _clean(content: str) -> str:
    return html.unescape(_TAG.sub("", content)).strip()


def _parse_document(body: str) -> Document:
    elements = list(_elements(body))
    names = {name for name, _ in elements}
    ids = [_clean(content) for name, content in elements if name == "docno"]
    if len(ids) != 1 or not ids[0]:
        raise ValueError(f"{len(ids)} DOCNO elements" if len(ids) != 1 else "an empty DOCNO")
    title = ""
    texts: list[str] = []
    metadata: Payload = {}
    for name, content in elements:
        value = _clean(content)
        if name == "docno" or not value:
            continue
        if name in _TITLES and not title:
            title = " ".join(value.split())
        elif name in ("", "text") or (name != "dochdr" and "text" not in names):
            texts.append(value)
        else:
            earlier = metadata.get(name)
            metadata[name] = f"{earlier}\n{value}" if earlier else value
    return Document(ids[0], "\n".join(texts), title, None, metadata)
