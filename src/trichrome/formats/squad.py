"""SQuAD 1.1 and 2.0 files as a retrieval task: paragraphs are documents, questions are queries.

Layout: {"version", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers",
"is_impossible"}]}]}]}. Source: Rajpurkar et al., arXiv 1606.05250 and 1806.03822.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trichrome.formats.lines import fault, kind, parse_json, read_lines
from trichrome.records import Document, Qrels, Query

_FIX = "a SQuAD file is data → paragraphs → context, qas → id, question, answers"


@dataclass(frozen=True, slots=True)
class SquadTask:
    """documents: one a distinct paragraph, ids p0, p1 … in the file's order, title = the article's.
    queries: the questions that have an answer. qrels: each question → the paragraph it was asked of, grade 1.
    answerless: questions left out because the paragraph has no answer (SQuAD 2.0).
    repeated: paragraphs whose text an earlier one had; their questions point to that one.
    """

    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: Qrels
    answerless: int
    repeated: int


def read_squad(path: str | Path, *, lang: str | None = None) -> SquadTask:
    """Read a whole SQuAD file (JSON, plain or gzip; in memory, as one JSON value can't be streamed).

    lang: set on every document and query; the format carries none.
    TrichromeError: not JSON (file and line), a field missing or of the wrong type (with its place in the
    JSON), a question id twice.
    """
    path = Path(path)
    text = "\n".join(line for _, line in read_lines(path))
    try:
        root = parse_json(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        what = f"{'the JSON is cut' if cut else 'not JSON'} ({error.msg} at column {error.colno})"
        raise fault(f"{path}:{error.lineno}", what, "download the file again") from None
    except ValueError as error:
        raise fault(path, str(error), _FIX) from None

    documents: dict[str, Document] = {}  # context → its document
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    answerless = paragraphs = 0
    for place, article in _items(path, "", root, "data"):
        title = _string(path, place, article, "title", "")
        for place_p, paragraph in _items(path, place, article, "paragraphs"):
            paragraphs += 1
            context = _string(path, place_p, paragraph, "context")
            document = documents.get(context)
            if document is None:
                document = documents[context] = Document(f"p{len(documents)}", context, title, lang)
            for place_q, question in _items(path, place_p, paragraph, "qas"):
                id = _string(path, place_q, question, "id")
                if id in queries or not id:
                    what = f'"id" {id!r} is the id of an earlier question' if id else '"id" is empty'
                    raise fault(f"{path}: {place_q}", what, "give every question its own id")
                if question.get("is_impossible") is True or not question.get("answers"):
                    answerless += 1
                    continue
                queries[id] = Query(id, _string(path, place_q, question, "question"), lang)
                qrels[id] = {document.id: 1}
    return SquadTask(
        tuple(documents.values()), tuple(queries.values()), qrels, answerless, paragraphs - len(documents)
    )


def _items(path: Path, place: str, parent: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each object in parent[name]."""
    where = f"{place}.{name}" if place else name
    values = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(values, list):
        raise fault(f"{path}: {where}", f"an array is needed, got {kind(values)}", _FIX)
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise fault(f"{path}: {where}[{i}]", f"an object is needed, got {kind(value)}", _FIX)
        yield f"{where}[{i}]", value


def _string(path: Path, place: str, parent: dict[str, Any], name: str, default: str | None = None) -> str:
    value = parent.get(name, default)
    if not isinstance(value, str):
        raise fault(f"{path}: {place}.{name}", f"a string is needed, got {kind(value)}", _FIX)
    return value
