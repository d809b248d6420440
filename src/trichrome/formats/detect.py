"""Which format a path holds, told by what is in it.

Names decide only where the content can't: between txt and md, or which manual page is one.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

from trichrome.formats import files
from trichrome.formats.lines import fault, open_bytes

#: What read_documents can read.
FORMATS = ("beir", "jsonl", "squad", "trec", "miracl", "files")

_DOC = re.compile(rb"\s*<DOC>", re.IGNORECASE)
_SQUAD = re.compile(rb'"(data|paragraphs)"\s*:\s*\[')
_LONGEST_LINE = 64 << 20
_HEAD = 1 << 16
_MAX_PARTS = 10_000


def detect(path: Path) -> str:
    """The format of a file or folder; see read_documents for the rules. TrichromeError where none fits."""
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise fault(path, "no such file or folder", "check the path")
    format = sniff(path)
    if format in ("flagembedding", "judged"):
        reader = "flagembedding.read_examples" if format == "flagembedding" else "miracl.iter_judged"
        raise fault(path, "training rows, not documents", f"read them with trichrome.formats.{reader}")
    if format == "array":
        raise fault(path, "a JSON array, which can't be streamed", "write one object a line (JSONL)")
    if format == "json":
        raise fault(path, "JSON that is neither JSONL nor SQuAD", "write one document object a line (JSONL)")
    return format


def _folder(folder: Path) -> str:
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (folder / name).is_file() and sniff(folder / name, by_name=False) == "jsonl":
            return "beir"
    kinds: set[str] = set()
    for number, path in enumerate(sorted(folder.iterdir())):
        if path.name.startswith(".") or not path.is_file():
            continue
        kinds.add(sniff(path, by_name=False))
        if len(kinds) > 1 or number > _MAX_PARTS:
            break
    only = kinds.pop() if len(kinds) == 1 else "files"
    return only if only in ("jsonl", "trec", "miracl") else "files"


def sniff(path: Path, *, by_name: bool = True) -> str:
    """What a file holds: jsonl, miracl, squad, trec, files; or, where that is no documents, flagembedding,
    judged, array, json.

    by_name: take any text for jsonl, if a broken one, where its name ends in .jsonl.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        with open_bytes(path) as file:
            head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8).lstrip()
            first, end, _ = head.partition(b"\n")
            if not end and head.startswith(b"{"):  # one long line: a long document, or a whole SQuAD file
                first += file.readline(_LONGEST_LINE)
    except (EOFError, gzip.BadGzipFile, zlib.error):  # the reader that the name calls for will say so
        head = first = b""
    if not head:
        return "jsonl" if suffix == ".jsonl" else "files"
    if _DOC.match(head):
        return "trec"
    named = files.format_of(path.name) is not None  # `{` and `[` may begin a txt or md too
    if head.startswith(b"[") and suffix in (".json", ".jsonl"):
        return "array"
    if not head.startswith(b"{"):
        return "jsonl" if by_name and suffix == ".jsonl" else "files"
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        row = None
    if isinstance(row, dict):
        return _row_kind(row, named)
    if _SQUAD.search(head):
        return "squad"
    return "files" if named else "json" if suffix == ".json" else "jsonl"


def _row_kind(row: dict[str, Any], named: bool) -> str:
    if isinstance(row.get("data"), list) and "text" not in row:
        return "squad"
    if "query" in row and ("pos" in row or "positive_passages" in row):
        return "flagembedding" if "pos" in row else "judged"
    if "docid" in row and "text" in row and not {"_id", "id"} & row.keys():
        return "miracl"
    if named and "text" not in row:  # a text file that begins with some object
        return "files"
    return "jsonl"
