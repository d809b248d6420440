"""Training examples on disk: any number of FlagEmbedding JSONL files, read row by row through a memory map.

A file is read once, checked row by row, and its rows' places are noted in the cache; afterwards a row costs
one seek, and ten million rows take no more memory than ten thousand. A gzip file is unpacked into the cache,
since nothing can be looked up in it. Any entry of the cache may be deleted while nothing runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import EXAMPLE_FIX, example_from_row
from trichrome.formats.lines import fault, open_bytes, parse_json, placed_rows
from trichrome.formats.report import ReadReport
from trichrome.records import TrainingExample
from trichrome.storage import default_cache, sync_directory, write_json
from trichrome.training.mapped import MappedArray

#: Of what an index holds; another number makes it anew.
VERSION = 2
#: In an index folder: one ROW a row, the rest as JSON, and the good lines of a gzip file.
ROWS, ABOUT, LINES = "rows.bin", "about.json", "lines.jsonl"
#: offset, size: bytes of the row in its file. line: its number, from 1. texts: the texts (query, positives,
#: negatives) of all rows before it. lang: into the file's languages.
ROW = np.dtype(
    [("offset", "<i8"), ("line", "<i8"), ("texts", "<i8"), ("size", "<i4"),
     ("positives", "<i4"), ("negatives", "<i4"), ("lang", "<i4")]
)  # fmt: skip
#: Rows that are written at a time.
_CHUNK = 1 << 12
#: Bad rows that an error message names; all of them are in its report.
_NAMED = 20


class BadRows(TrichromeError):
    """Training files with bad rows. report: every one of them by reason, as path:line."""

    def __init__(self, message: str, report: ReadReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class ExampleFile:
    """One indexed file. data: its bytes. rows [N] of ROW. languages: None where unknown. digest: of its good
    rows, wherever the file lies."""

    path: Path
    data: MappedArray
    rows: MappedArray
    languages: tuple[str | None, ...]
    report: ReadReport
    digest: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> TrainingExample:
        row = self.rows[i]
        start, size = int(row["offset"]), int(row["size"])
        try:
            return example_from_row(parse_json(self.data.read(start, start + size).tobytes().decode()))
        except (ValueError, TypeError) as error:
            place = f"{self.path}:{int(row['line'])}"
            raise fault(place, f"no longer what it was ({error})", "leave the file alone meanwhile") from None

    @property
    def task(self) -> str:
        """The file's name without its endings."""
        return self.path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


class Examples(Sequence[TrainingExample]):
    """The rows of several files as one sequence."""

    def __init__(self, files: Sequence[ExampleFile]) -> None:
        self.files = list(files)
        self._ends = np.cumsum([len(f) for f in self.files])

    @classmethod
    def open(
        cls, paths: Sequence[str | Path], skip_bad: bool = False, cache: str | Path | None = None
    ) -> Examples:
        """Index what is not indexed yet, and map everything.

        skip_bad: leave bad rows out; `report` counts them and names their places. cache: a folder, by
        default `training` in $TRICHROME_CACHE. Files that are mapped must not be written to.
        BadRows: bad rows; every file is read to its end first, and the error's report has them all.
        TrichromeError: no such file, a cut gzip, no row at all, two files of one task's name.
        """
        folder = Path(cache) if cache is not None else default_cache() / "training"
        examples = cls([open_file(Path(path), folder) for path in paths])
        if examples.report.skipped and not skip_bad:
            raise _bad_rows(examples.report)
        if not len(examples):
            raise TrichromeError(f"no training example in {', '.join(str(p) for p in paths) or 'no file'}")
        names = [f.task for f in examples.files]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise TrichromeError(f"two files are called {twice[0]}: a file's name is its task's; rename one")
        return examples

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.files else 0

    def __getitem__(self, i: int) -> TrainingExample:  # type: ignore[override]  # one row at a time
        file, row = self.place(i)
        return file[row]

    def __iter__(self) -> Iterator[TrainingExample]:
        return (file[i] for file in self.files for i in range(len(file)))

    def task(self, i: int) -> str:
        """The task that row i is of."""
        return self.place(i)[0].task

    def lang(self, i: int) -> str | None:
        """The language tag of row i."""
        file, row = self.place(i)
        return file.languages[int(file.rows[row]["lang"])]

    @property
    def languages(self) -> list[str]:
        """The language tags of all files, sorted."""
        return sorted({lang for f in self.files for lang in f.languages if lang is not None})

    @property
    def report(self) -> ReadReport:
        """What was read and left out, of all files."""
        whole = ReadReport()
        for file in self.files:
            whole.read += file.report.read
            for reason, places in file.report.skipped.items():
                whole.skipped.setdefault(reason, []).extend(places)
        return whole

    @property
    def key(self) -> str:
        """Of the rows of these files, in this order."""
        return hashlib.sha256("\n".join(f.digest for f in self.files).encode()).hexdigest()[:32]

    def place(self, i: int) -> tuple[ExampleFile, int]:
        """The file of row i, and its number there."""
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        file = int(np.searchsorted(self._ends, i, side="right"))
        return self.files[file], int(i) - (int(self._ends[file - 1]) if file else 0)


def _bad_rows(report: ReadReport) -> BadRows:
    rows = [f"{place}: {reason}" for reason, places in report.skipped.items() for place in places]
    if len(rows) == 1:
        return BadRows(f"{rows[0]}; {EXAMPLE_FIX}", report)
    more = f"\n  … and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    listed = "".join(f"\n  {row}" for row in rows[:_NAMED])
    return BadRows(f"{len(rows):,} bad rows; {EXAMPLE_FIX}:{listed}{more}", report)


def open_file(path: Path, cache: Path) -> ExampleFile:
    """One file, bad rows left out and in its report; indexed now if it never was as it is."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise fault(path, "no such file", "check the path")
    stat = path.stat()
    identity = json.dumps([VERSION, str(path), stat.st_size, stat.st_mtime_ns])
    folder = cache / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if (about := _about(folder)) is None:
        _index(path, folder)
        now = path.stat()
        about = _about(folder)
        if about is None or (now.st_size, now.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            shutil.rmtree(folder, ignore_errors=True)
            raise fault(path, "changed while it was read", "wait until it is written, and try again")
    return ExampleFile(
        path,
        MappedArray.open(folder / LINES if about["unpacked"] else path, np.dtype(np.uint8)),
        MappedArray.open(folder / ROWS, ROW),
        tuple(about["languages"]),
        ReadReport(about["read"], about["skipped"]),
        about["digest"],
    )


def _about(folder: Path) -> dict[str, Any] | None:
    """What an index says of itself; None where it is absent or not whole."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text("utf-8"))
        whole = (folder / ROWS).stat().st_size == about["read"] * ROW.itemsize
        if about["unpacked"]:
            whole = whole and (folder / LINES).stat().st_size == about["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return about if whole else None


def _index(path: Path, folder: Path) -> None:
    """Read the whole file once; the folder takes its name when everything is in it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".indexing-")
    except OSError as error:
        raise fault(folder.parent, f"no cache can be kept here ({error.strerror})", "set $TRICHROME_CACHE") \
            from None  # fmt: skip
    with temporary as parent:
        made = Path(parent) / "index"
        made.mkdir()
        write_json(made / ABOUT, _write_index(path, made))
        if _about(folder) is None:  # else another process was faster, and may have it mapped
            shutil.rmtree(folder, ignore_errors=True)
            try:
                made.rename(folder)
            except OSError:
                if _about(folder) is None:
                    raise
    sync_directory(folder.parent)


def _write_index(path: Path, made: Path) -> dict[str, Any]:
    """Write ROWS and, of a gzip file, LINES; returns what ABOUT says."""
    with open_bytes(path) as file:
        plain = file.__class__.__name__ == "BufferedReader"
    report = ReadReport()
    languages: dict[str | None, int] = {}
    digest = hashlib.sha256()
    rows: list[tuple[int, ...]] = []
    texts = written = 0
    with ExitStack() as stack:
        index = stack.enter_context((made / ROWS).open("wb"))
        lines: IO[bytes] | None = None if plain else stack.enter_context((made / LINES).open("wb"))
        for number, start, line, example in placed_rows(
            path, example_from_row, fix=EXAMPLE_FIX, skip_bad=True, report=report
        ):
            report.read += 1
            digest.update(line + b"\n")
            if lines is not None:
                start, written = written, written + lines.write(line + b"\n")
            positives, negatives = len(example.positives), len(example.negatives)
            lang = languages.setdefault(example.lang, len(languages))
            rows.append((start, number, texts, len(line), positives, negatives, lang))
            texts += 1 + positives + negatives
            if len(rows) == _CHUNK:
                index.write(np.array(rows, ROW).tobytes())
                rows.clear()
        index.write(np.array(rows, ROW).tobytes())
    return {
        "path": str(path),
        "read": report.read,
        "skipped": report.skipped,
        "languages": list(languages),
        "digest": digest.hexdigest()[:32],
        "unpacked": not plain,
        "bytes": written,
    }
