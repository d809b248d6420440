"""Lines of a file, plain or gzip, and the rows of a JSONL file, with every error placed at its line.

A file is taken for gzip by its first two bytes, never by its name. Lines end at ``\\n`` alone (a ``\\r``
before it is dropped), because U+2028, U+0085 and their like occur inside real texts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from trichrome.errors import TrichromeError
from trichrome.formats.report import ReadReport
from trichrome.storage import atomic_write

T = TypeVar("T")
_BOM = b"\xef\xbb\xbf"


def fault(place: object, what: str, fix: str) -> TrichromeError:
    """The one form of every error here: ``place: what; what to do``."""
    return TrichromeError(f"{place}: {what}; {fix}")


def open_bytes(path: Path) -> IO[bytes]:
    """Open a plain or gzip file for reading; the caller closes it. TrichromeError if it can't be opened."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise fault(path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise fault(path, "a folder where a file was expected", "name the file") from None
    except OSError as error:
        raise fault(path, f"can't be read ({error.strerror})", "check its permissions") from None
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()
    return cast("IO[bytes]", gzip.open(path, "rb"))


def raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, byte offset in the uncompressed file, line without its end) of each line.

    TrichromeError: the file is missing, or its gzip stream is cut or damaged.
    """
    number = offset = 0
    with open_bytes(path) as file:
        try:
            for line in file:
                number += 1
                start, offset = offset, offset + len(line)
                if number == 1 and line.startswith(_BOM):
                    start, line = start + 3, line[3:]
                yield number, start, line.rstrip(b"\r\n") if line.endswith(b"\n") else line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise fault(
                f"{path}:{number + 1}",
                f"the gzip file is cut or damaged after line {number} ({error})",
                "copy or download it again",
            ) from None


def _decode(line: bytes, start: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise ValueError(f"invalid UTF-8: byte 0x{byte:02x} at byte offset {start + error.start}") from None


_UTF8_FIX = "convert the file to UTF-8 (for instance with iconv)"


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each line of a UTF-8 file, plain or gzip; a byte order mark is dropped.

    TrichromeError: missing file, invalid UTF-8, cut gzip.
    """
    path = Path(path)
    for number, start, line in raw_lines(path):
        try:
            text = _decode(line, start)
        except ValueError as error:
            raise fault(f"{path}:{number}", str(error), _UTF8_FIX) from None
        yield number, text


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(text: str) -> Any:
    """A JSON value. ValueError: not JSON (NaN and Infinity aren't), or half of a surrogate pair."""
    try:
        value = _JSON.decode(text)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if "\\u" in text and "\\ud" in text.lower():  # the only way for half a pair to come in
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a \\ud800–\\udfff escape without its other half is not text") from None
    return value


def _parse_row(line: bytes, start: int) -> tuple[dict[str, Any], None] | tuple[None, tuple[str, str]]:
    """The object on a line, or (what is wrong, what to do)."""
    try:
        text = _decode(line, start)
    except ValueError as error:
        return None, (str(error), _UTF8_FIX)
    try:
        row = parse_json(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        what = f"{'the JSON is cut' if cut else 'not JSON'} ({error.msg} at column {error.colno})"
        return None, (what, "each line must be one whole JSON object")
    except ValueError as error:
        return None, (str(error), "each line must be one whole JSON object")
    if not isinstance(row, dict):
        return None, (f"a JSON {kind(row)}, not an object", "each line must be one JSON object")
    return row, None


def json_rows(
    path: str | Path,
    parse: Callable[[dict[str, Any]], T],
    *,
    fix: str,
    skip_bad: bool = False,
    report: ReadReport | None = None,
) -> Iterator[tuple[int, T]]:
    """(line number, parse(row)) of each non-blank line of a JSONL file, streaming; see placed_rows."""
    for number, _, _, value in placed_rows(path, parse, fix=fix, skip_bad=skip_bad, report=report):
        yield number, value


def placed_rows(
    path: str | Path,
    parse: Callable[[dict[str, Any]], T],
    *,
    fix: str,
    skip_bad: bool = False,
    report: ReadReport | None = None,
) -> Iterator[tuple[int, int, bytes, T]]:
    """(line number, byte offset in the uncompressed file, line, parse(row)) of each non-blank line.

    parse: may raise ValueError or TypeError with the reason why a row is bad.
    fix: what the user should do about such a row; it ends the error message.
    skip_bad: count bad rows (with their places) in `report` instead of raising at the first.
    TrichromeError: a bad row, or a file that is missing or cut; the last two even with skip_bad.
    """
    path = Path(path)
    for number, start, line in raw_lines(path):
        if not line.strip():
            continue
        row, wrong = _parse_row(line, start)
        if row is not None:
            try:
                value = parse(row)
            except (ValueError, TypeError) as error:
                wrong = (str(error), fix)
            else:
                yield number, start, line, value
                continue
        assert wrong is not None
        if not skip_bad:
            raise fault(f"{path}:{number}", *wrong)
        if report is not None:
            report.skip(wrong[0], f"{path}:{number}")


def kind(value: object) -> str:
    """JSON's word for the type of a value."""
    names = {dict: "object", list: "array", str: "string", int: "number", float: "number", bool: "boolean"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def text_field(row: dict[str, Any], name: str, default: str | None = None) -> str:
    """row[name] as a string; null counts as absent where there is a default. TypeError, ValueError
    otherwise.
    """
    value = row.get(name)
    if value is None and default is not None:
        return default
    if name not in row:
        raise ValueError(f'no "{name}"')
    if not isinstance(value, str):
        raise TypeError(f'"{name}" must be a string, got a {kind(value)}: {value!r:.60}')
    return value


def id_field(row: dict[str, Any], *names: str) -> str:
    """The id under the first of `names` that is present: a string, or an integer as its digits."""
    for name in names:
        if name in row:
            value = row[name]
            if type(value) is int:
                return str(value)
            text = text_field(row, name)
            if not text:
                raise ValueError(f'"{name}" is empty')
            return text
    raise ValueError("no " + " or ".join(f'"{name}"' for name in names))


class Seen:
    """The ids met so far in one source, at about 130 bytes each, however long they are.

    A dictionary of 16-byte hashes to places, so that a duplicate can be reported with both.
    """

    def __init__(self, what: str = "document id") -> None:
        self._what = what
        self._places: dict[bytes, int] = {}
        self._paths: list[Path] = []

    def clash(self, id: str, path: Path, line: int) -> str | None:
        """Remember the id; where it was there before, what is wrong (with the first place), else None."""
        if not self._paths or self._paths[-1] is not path:
            self._paths.append(path)
        key = hashlib.blake2b(id.encode(), digest_size=16).digest()
        first = self._places.setdefault(key, place := (len(self._paths) - 1) << 40 | line)
        if first == place:
            return None
        return f"duplicate {self._what} {id!r}, first at {self._paths[first >> 40]}:{first & (1 << 40) - 1}"

    def check(self, id: str, path: Path, line: int) -> None:
        """Remember the id; TrichromeError where it was there before."""
        if what := self.clash(id, path, line):
            raise fault(f"{path}:{line}", what, "give every one its own id")


def unique(
    rows: Iterable[tuple[int, T]],
    get_id: Callable[[T], str],
    path: Path,
    seen: Seen,
    *,
    skip_bad: bool = False,
    report: ReadReport | None = None,
) -> Iterator[T]:
    """The rows whose ids weren't seen before; the others are an error, or counted with skip_bad."""
    for line, row in rows:
        if what := seen.clash(get_id(row), path, line):
            if not skip_bad:
                raise fault(f"{path}:{line}", what, "give every one its own id")
            if report is not None:
                report.skip("duplicate id", f"{path}:{line}")
            continue
        yield row


def dump_row(row: dict[str, Any]) -> str:
    """One JSONL line without its end. ValueError for NaN, TypeError for what JSON can't hold."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """Write lines (given without ends) atomically, gzip where the name ends in .gz; returns how many."""
    path = Path(path)
    count = 0
    with atomic_write(path) as file, ExitStack() as stack:
        out: IO[bytes] = file
        if path.suffix == ".gz":  # mtime=0: the same lines give the same bytes
            out = cast("IO[bytes]", stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)))
        for line in lines:
            out.write(line.encode() + b"\n")
            count += 1
    return count
