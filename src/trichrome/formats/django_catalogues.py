"""Django's translation catalogues: the same messages in many languages, translated by people.

The installed package `django` carries compiled GNU gettext catalogues: conf/locale/LANG/LC_MESSAGES/django.mo
and contrib/APP/locale/LANG/LC_MESSAGES/django.mo. A message in English is a query, its translations are the
documents that answer it.
Layout of .mo files: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from trichrome.errors import TrichromeError
from trichrome.formats.lines import fault
from trichrome.formats.report import ReadReport
from trichrome.records import Document, Qrels, Query

#: English messages of fewer characters ("Yes", "January") say too little to be searched for.
SHORTEST = 35

_MAGIC = 0x950412DE


@dataclass(frozen=True)
class Catalogues:
    """documents: one a language and message, with the id LANG:HASH and the metadata `english` (the message
    that it translates), `message` (that one's hash) and `catalogue` ("conf", "contrib.admin" …).
    queries: the English messages that have a translation; their id is the hash.
    qrels: query id → its translations, and documents of the very same text, each of grade 1.
    report: what was read, and what was left out and why.
    """

    documents: list[Document]
    queries: list[Query]
    qrels: Qrels
    report: ReadReport


def read_catalogues(
    languages: Sequence[str] | None = None, *, shortest: int = SHORTEST, root: Path | None = None
) -> Catalogues:
    """Read the catalogues of some languages (folder names as Django spells them: `de`, `pt_BR`, `zh_Hans`),
    or of all.

    shortest: characters of an English message, at least. root: Django's folder; the installed package's
    where None. A message with plural forms gives the first form. Left out and counted: English messages that
    are shorter, translations equal to the English, and a message that a language's catalogue repeats.

    Errors: TrichromeError where Django is not installed, a language is unknown, or a file is damaged.
    """
    root = root or _installed()
    files = _files(root)
    chosen = sorted(files) if languages is None else list(dict.fromkeys(languages))
    if unknown := [language for language in chosen if language not in files]:
        raise TrichromeError(
            f"{root}: no catalogue of the language {unknown[0]!r}; there are {', '.join(sorted(files))}"
        )
    report = ReadReport()
    documents: dict[str, Document] = {}
    english: dict[str, str] = {}
    for language in chosen:
        for path, catalogue in files[language]:
            place = f"{language}/{catalogue}"
            for message, translation in read_mo(path):
                key = hashlib.sha256(message.encode()).hexdigest()[:12]
                if len(message) < shortest:
                    report.skip(f"shorter than {shortest} characters", place)
                elif not translation.strip() or translation == message:
                    report.skip("untranslated", place)
                elif f"{language}:{key}" in documents:
                    report.skip("repeated", place)
                else:
                    english[key] = message
                    documents[f"{language}:{key}"] = Document(
                        f"{language}:{key}",
                        translation,
                        lang=language,
                        metadata={"english": message, "message": key, "catalogue": catalogue},
                    )
                    report.read += 1
    queries = [Query(key, english[key], "en") for key in sorted(english)]
    return Catalogues(list(documents.values()), queries, _judge(documents), report)


def read_mo(path: str | Path) -> Iterator[tuple[str, str]]:
    """(message, translation) of each entry of a compiled catalogue but its header, in the first plural form
    and without context. TrichromeError where the file is no whole catalogue in UTF-8."""
    path = Path(path)
    data = path.read_bytes()
    try:
        order = "<" if struct.unpack_from("<I", data)[0] == _MAGIC else ">"
        magic, _, count, originals, translations = struct.unpack_from(f"{order}5I", data)
        if magic != _MAGIC:
            raise fault(path, "not a compiled gettext catalogue", "install django again")
        for i in range(count):
            message = _string(data, order, originals + 8 * i)
            translation = _string(data, order, translations + 8 * i)
            if message:  # the empty one is the header
                yield message.rpartition("\x04")[2].partition("\0")[0], translation.partition("\0")[0]
    except (struct.error, UnicodeDecodeError) as error:
        raise fault(path, f"the catalogue is damaged ({error})", "install django again") from None


def _string(data: bytes, order: str, at: int) -> str:
    length, start = struct.unpack_from(f"{order}2I", data, at)
    if start + length > len(data):
        raise struct.error("a text lies beyond the end")
    return data[start : start + length].decode("utf-8")


def _installed() -> Path:
    """The folder of the package, found without importing it."""
    spec = find_spec("django")
    if spec is None or spec.origin is None:
        raise TrichromeError("the package django is not installed: pip install 'trichrome[demo]'")
    return Path(spec.origin).parent


def _files(root: Path) -> dict[str, list[tuple[Path, str]]]:
    """Language → (file, name of its catalogue), the main catalogue first; English itself is left out."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for pattern in ("conf/locale/*/LC_MESSAGES/django.mo", "contrib/*/locale/*/LC_MESSAGES/django.mo"):
        for path in sorted(root.glob(pattern)):
            *catalogue, _, language, _, _ = path.relative_to(root).parts
            if language.partition("_")[0] != "en":
                found.setdefault(language, []).append((path, ".".join(catalogue)))
    if not found:
        raise fault(root, "no translation catalogues (conf/locale/*/LC_MESSAGES/django.mo)", "install django")
    return found


def _judge(documents: dict[str, Document]) -> Qrels:
    """A translation answers its message, and so does the same text under another message: English tells
    apart some messages that other languages do not."""
    same: dict[tuple[str | None, str], list[str]] = {}
    for document in documents.values():
        same.setdefault((document.lang, document.text), []).append(document.id)
    qrels: dict[str, dict[str, int]] = {}
    for document in documents.values():
        grades = qrels.setdefault(str(document.metadata["message"]), {})
        grades.update(dict.fromkeys(same[document.lang, document.text], 1))
    return qrels
