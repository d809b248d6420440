"""Plain documents from a folder (recursively) or a single file: text, Markdown, HTML, PDF and manual pages.

Each may be gzipped (``notes.txt.gz``, ``ls.1.gz``). What is not read is counted in the report with its
path, under one of: hidden, unknown suffix, binary, link to a folder, broken link, manual page that is a
link to another, no text, and, with skip_bad, the reason why a file is bad.
"""

from __future__ import annotations

import codecs
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from trichrome.formats import man, markup, pdf
from trichrome.formats.lines import fault
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Payload

_FORMATS = {
    ".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf",
}  # fmt: skip
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_KNOWN = "txt, md, html, pdf or a manual page such as ls.1 (each also as .gz)"
_MAN_FIX = "install one: `apt install groff` or `apt install mandoc` (macOS: `brew install mandoc`)"


def format_of(name: str) -> str | None:
    """The format that a file's name promises: txt, md, html, pdf, man, or None."""
    plain = name.lower().removesuffix(".gz")
    if format := _FORMATS.get(Path(plain).suffix):
        return format
    return "man" if man.SUFFIX.search(name) else None


def iter_files(
    path: str | Path, *, skip_bad: bool = False, report: ReadReport | None = None
) -> Iterator[Document]:
    """Stream the documents of a folder in the order of their paths, or of one file.

    A document's id is its path relative to the folder, with `/` (a single file's: its name); metadata:
    `path` (the same), `format`, and `pages` for a PDF.
    skip_bad: count files that can't be read (invalid UTF-8, damaged or encrypted PDF, cut gzip, no
    permission, no renderer for manual pages) in `report` instead of raising.
    TrichromeError: such a file; a missing path; a single file of no known format.
    """
    path = Path(path)
    report = ReadReport() if report is None else report
    if path.is_file():
        if format_of(path.name) is None:
            raise fault(path, "no known kind of document", f"give {_KNOWN}, or a folder of them")
        yield from _read(path, path.name, skip_bad, report)
        if report.skipped and not skip_bad:  # asked for by name: leaving it out would be no answer
            raise fault(path, next(iter(report.skipped)), f"give {_KNOWN}")
        return
    if not path.is_dir():
        raise fault(path, "no such file or folder", "check the path")
    for file, relative in _walk(path, "", skip_bad, report):
        if format_of(file.name) is None:
            report.skip("unknown suffix", relative)
        else:
            yield from _read(file, relative, skip_bad, report)


def _walk(folder: Path, prefix: str, skip_bad: bool, report: ReadReport) -> Iterator[tuple[Path, str]]:
    """(path, relative path) of each visible regular file below a folder, sorted; the rest is counted."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        wrong = _Bad(f"can't be read ({error.strerror})", "check its permissions")
        _bad(folder, prefix, wrong, skip_bad, report)
        return
    for entry in entries:
        relative = prefix + entry.name
        if entry.is_dir():
            relative += "/"
        if not _is_text(entry.name):
            report.skip("name is not UTF-8", relative.encode("utf-8", "replace").decode())
        elif entry.name.startswith("."):
            report.skip("hidden", relative)
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), relative, skip_bad, report)
        elif entry.is_dir():
            report.skip("link to a folder", relative)
        elif entry.is_file():
            yield Path(entry.path), relative
        else:
            report.skip("broken link" if entry.is_symlink() else "not a regular file", relative)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of no encoding, which Python smuggles through as surrogates
        return False
    return True


class _Skip(Exception):
    """A file that holds nothing for us; always counted, never an error."""


class _Bad(Exception):
    """A file that should have held a document. args: what is wrong, what to do."""


def _bad(path: Path, relative: str, error: _Bad, skip_bad: bool, report: ReadReport) -> None:
    what, fix = error.args
    if not skip_bad:
        raise fault(path, what, fix) from None
    report.skip(what, relative)


def _read(path: Path, relative: str, skip_bad: bool, report: ReadReport) -> Iterator[Document]:
    """The document in one file of a known suffix; nothing where it is counted as skipped."""
    try:
        document = _load(path, relative)
    except _Skip as skip:
        report.skip(str(skip), relative)
    except _Bad as error:
        _bad(path, relative, error, skip_bad, report)
    else:
        yield document


def _load(path: Path, relative: str) -> Document:
    format = format_of(path.name)
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise _Bad("the gzip file is cut or damaged", "copy it again") from None
    except OSError as error:
        raise _Bad(f"can't be read ({error.strerror})", "check its permissions") from None
    metadata: Payload = {"path": relative, "format": format}
    title = ""
    try:
        if format == "pdf":
            text, title, metadata["pages"] = pdf.pdf_text(data)
        else:
            text = _text(data, format)
        if format == "md":
            title = markup.markdown_title(text)
        elif format == "html":
            text, title = markup.html_text(text)
        elif format == "man":
            text, title = man.man_text(text)
    except man.NoRenderer as error:
        raise _Bad(str(error), _MAN_FIX) from None
    except ValueError as error:
        raise _Bad(str(error), "mend or remove it, or read with skip_bad=True") from None
    if not text.strip():
        raise _Skip("no text")
    return Document(relative, text, title, None, metadata)


def _text(data: bytes, format: str | None) -> str:
    """The text in a file that isn't a PDF. _Skip: no text. ValueError: text that can't be decoded."""
    if b"\0" in data[:8192] and not data.startswith(_UTF16):
        raise _Skip("binary")
    if format == "man" and not man.is_roff(data):
        raise _Skip("unknown suffix")  # libfoo.so.6, release-1.2: not manual pages
    if format == "man" and man.is_link(data):
        raise _Skip("manual page that is a link to another")
    return _decode(data, markup.html_charset(data) if format == "html" else "utf-8")


def _decode(data: bytes, encoding: str) -> str:
    """The text of a file; a byte order mark tells UTF-8 and UTF-16 whatever `encoding` says. ValueError
    with the byte offset."""
    if data.startswith(_UTF16):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding.startswith("utf-8") else encoding
        offset = error.start + 3 * (encoding == "utf-8-sig")
        raise ValueError(f"invalid {name}: byte 0x{data[offset]:02x} at byte offset {offset}") from None
