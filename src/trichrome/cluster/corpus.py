"""The input shards of a corpus: the files of a folder as they are, or parts that a rule cuts.

A folder of JSONL files (plain or gzip) is sharded already: each file is an input shard, read where it lies.
Any other corpus is read once and written as N parts: of its n documents, number i (from 0, in the order of
the corpus) goes to part ⌊i·N/n⌋. The same corpus and N always give the same parts, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from trichrome.errors import TrichromeError
from trichrome.formats import Documents, read_documents
from trichrome.formats.jsonl import write_documents
from trichrome.storage import sync_directory, write_json

#: Parts of a corpus that is not a folder of files.
PARTS = 16

_FOLDER = "input"
_SUFFIX = re.compile(r"(\.jsonl|\.json)?(\.gz)?$")


@dataclass(frozen=True)
class Part:
    """An input shard. name: of its output too, without suffix. path: a JSONL file, plain or gzip."""

    name: str
    path: Path


@dataclass(frozen=True)
class Parts:
    """The input shards of a corpus, in order.

    rule: how they came about: "files", or "parts/16". documents: how many they hold, None where they were
    not counted. left_out: reason → rows of the corpus that were left out while it was cut.
    """

    parts: list[Part]
    rule: str
    documents: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)


def find_parts(
    corpus: Path,
    out: Path,
    shards: int | None = None,
    *,
    format: str | None = None,
    skip_bad: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> Parts:
    """The input shards of a corpus; they are cut into OUT/input first where they have to be.

    shards: how many parts to cut; None takes a folder's JSONL files as they are, and cuts 16 parts of
    anything else. Parts that were cut before from the same files are used again. progress: called as
    ("count" or "cut", documents so far).
    TrichromeError: no corpus, no document in it, bad rows (unless skip_bad), two files of one name.
    """
    documents = read_documents(corpus, format=format, skip_bad=skip_bad)
    if documents.format == "jsonl" and corpus.is_dir() and shards is None:
        return Parts(_files(corpus), "files")
    return _cut(documents, out / _FOLDER, shards or PARTS, skip_bad, progress or _silent)


def _files(corpus: Path) -> list[Part]:
    files = sorted(path for path in corpus.iterdir() if path.is_file() and not path.name.startswith("."))
    parts = [Part(_SUFFIX.sub("", path.name), path) for path in files]
    names = [part.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TrichromeError(
            f"{corpus}: two files would both give the shard {twice[0]!r}: rename one, or remove the older"
        )
    return parts


def _cut(
    documents: Documents, folder: Path, shards: int, skip_bad: bool, progress: Callable[[str, int], None]
) -> Parts:
    """The parts of a corpus in a folder that appears whole; its parts.json says what they were cut from."""
    rule = f"parts/{shards}"
    made_from = {"rule": rule, "format": documents.format, "skip_bad": skip_bad}
    made_from["files"] = _state(documents.path)
    known = _known(folder, made_from)
    names = [f"{s:05d}-of-{shards:05d}" for s in range(shards)]
    if known is None:
        total = sum(1 for _ in _counted(documents, "count", progress))
        if not total:
            raise TrichromeError(f"{documents.path}: no document to encode ({documents.report.summary()})")
        folder.parent.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.glob(f".{_FOLDER}.*"):  # of a run that was killed while it cut
            shutil.rmtree(old, ignore_errors=True)
        temporary = Path(mkdtemp(dir=folder.parent, prefix=f".{_FOLDER}."))
        try:
            stream = _counted(documents, "cut", progress)
            for s, name in enumerate(names):
                size = (s + 1) * total // shards - s * total // shards
                write_documents(temporary / f"{name}.jsonl.gz", islice(stream, size))
            if next(stream, None) is not None or documents.report.read != total:
                raise TrichromeError(f"{documents.path}: it changed while it was read; run this again")
            left_out = {reason: len(places) for reason, places in documents.report.skipped.items()}
            known = {"made_from": made_from, "documents": total, "left_out": left_out}
            write_json(temporary / "parts.json", known)
            temporary.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            sync_directory(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    parts = [Part(name, folder / f"{name}.jsonl.gz") for name in names]
    return Parts(parts, rule, known["documents"], known["left_out"])


def _counted(documents: Documents, stage: str, progress: Callable[[str, int], None]) -> Iterator[Any]:
    number = 0
    for number, document in enumerate(documents, 1):
        yield document
        if number % 10_000 == 0:
            progress(stage, number)
    progress(stage, number)


def _known(folder: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """What parts.json says, where the parts were cut from the same files in the same way."""
    try:
        known: dict[str, Any] = json.loads((folder / "parts.json").read_bytes())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and known.get("made_from") == made_from else None


def _state(corpus: Path) -> str:
    """A hash of the names, sizes and times of a corpus' files: enough to see that it was not changed. What
    a part holds is compared by content besides."""
    files = sorted(corpus.rglob("*")) if corpus.is_dir() else [corpus]
    digest = hashlib.sha256(str(corpus.resolve()).encode())
    for file in files:
        if file.is_file():
            found = file.stat()
            digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes. TrichromeError: it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise TrichromeError(f"{path}: can't be read ({error.strerror}); check the path") from None
    return digest.hexdigest()


def _silent(stage: str, documents: int) -> None:
    """No progress is shown."""
