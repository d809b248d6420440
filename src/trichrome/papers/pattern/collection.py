"""Real text for the rows: titles and what they name, from a folder of training sets, or from a package.

With a folder (`--data`, or TRICHROME_DATA) that holds train/ddtp.jsonl.gz: titles of software packages and
their descriptions, in English. Without: Django's catalogues, English messages and their translations.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trichrome.errors import TrichromeError
from trichrome.formats.django_catalogues import read_catalogues
from trichrome.formats.flagembedding import read_examples
from trichrome.papers.pattern.paper import Source

#: Where training sets are looked for, unless the caller says.
VARIABLE = "TRICHROME_DATA"
#: The catalogues' languages where there is no folder: those that share an alphabet with English.
LANGUAGES = ("de", "es", "fr", "it", "nl", "pl", "pt_BR", "sv")
#: Words of a text whose halves both say what it is about, at least.
WORDS = 24


@dataclass(frozen=True)
class Split:
    """Queries with the passages that answer them. texts: Q queries. answers[q]: rows of the passages."""

    texts: list[str]
    answers: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, rows: Sequence[int] | NDArray[np.int64]) -> Split:
        """Some of the queries."""
        return Split([self.texts[i] for i in rows], [self.answers[i] for i in rows])

    def hits_of(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows of queries [B] and passages [C] → [B, C] whether a passage answers a query."""
        return np.stack([np.isin(passages, self.answers[q]) for q in queries])

    def hits(self, found: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows of passages [Q, K] → whether each answers its query."""
        return np.stack([np.isin(row, answers) for row, answers in zip(found, self.answers, strict=True)])


@dataclass(frozen=True)
class Collection:
    """N passages, queries to train on, and others to measure with; no text is in both."""

    passages: list[str]
    train: Split
    test: Split
    source: Source


def data_folder(given: Path | None = None) -> Path | None:
    """The folder that was given, or else that TRICHROME_DATA names. TrichromeError where it has no train/."""
    name = given or os.environ.get(VARIABLE)
    if not name:
        return None
    path = Path(name).expanduser()
    if not (path / "train").is_dir():
        raise TrichromeError(f"{path}: no folder train/ in it; mend {VARIABLE} or --data")
    return path


def titles_and_texts(
    folder: Path | None, *, train: int, test: int, passages: int, seed: int = 0
) -> Collection:
    """So many queries, at most, to train on and to test with, and passages: at least all their answers.

    folder: with train/ddtp.jsonl.gz; a package's text where None.
    """
    pairs, source = _packages(folder) if folder else _messages()
    return collect(pairs, source, train, test, passages, seed)


def titles_and_translations(
    folder: Path | None, *, train: int, test: int, passages: int, seed: int = 0
) -> Collection:
    """The same with several answers a query: an English title, and the text in each of several languages.

    folder: with train/ddtp.jsonl.gz; a package's messages and their translations where None.
    """
    pairs, source = _translated(folder) if folder else _messages()
    return collect(pairs, source, train, test, passages, seed)


def titles_and_rests(
    folder: Path | None, *, train: int, test: int, passages: int, seed: int = 0
) -> Collection:
    """A title, and the second half of what it names: harder than the whole, whose beginning often says the
    title again, so that a good encoder needs no training to find it.

    folder: with train/ddtp.jsonl.gz; a package's messages and their translations, whole, where None.
    """
    pairs, source = _packages(folder) if folder else _messages()
    return collect(_halves(pairs)[1::2] if folder else pairs, source, train, test, passages, seed)


def titles_and_halves(
    folder: Path | None, *, train: int, test: int, passages: int, seed: int = 0
) -> Collection:
    """The same with two answers a query: a title, and the two halves of what it names, each a passage.

    folder: with train/ddtp.jsonl.gz; a package's messages and their translations, whole, where None.
    """
    pairs, source = _packages(folder) if folder else _messages()
    return collect(_halves(pairs) if folder else pairs, source, train, test, passages, seed)


def collect(
    pairs: Sequence[tuple[str, str]], source: Source, train: int, test: int, passages: int, seed: int = 0
) -> Collection:
    """(query, passage) pairs as a collection: queries are parted at random, every passage stays a candidate.

    A query that several pairs name has all their passages as answers. Passages beyond those that a drawn
    query needs fill up to `passages`.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    for query, passage in pairs:
        if query.strip() and passage.strip():
            answers[query.strip()].add(passage.strip())
    queries = sorted(answers)
    random.Random(seed).shuffle(queries)
    test, train = min(test, len(queries) // 3), min(train, len(queries) - len(queries) // 3)
    chosen = {"test": queries[:test], "train": queries[test : test + train]}
    places: dict[str, int] = {}
    for query in chosen["test"] + chosen["train"]:
        for passage in sorted(answers[query]):
            places.setdefault(passage, len(places))
    for query in queries[test + train :]:
        for passage in sorted(answers[query])[: max(0, passages - len(places))]:
            places.setdefault(passage, len(places))

    def split(texts: list[str]) -> Split:
        return Split(texts, [np.array([places[p] for p in sorted(answers[q])], np.int64) for q in texts])

    return Collection(list(places), split(chosen["train"]), split(chosen["test"]), source)


def _packages(folder: Path) -> tuple[list[tuple[str, str]], Source]:
    """Titles and descriptions of Debian packages, English."""
    path = folder / "train" / "ddtp.jsonl.gz"
    return _english(path), Source("Debian package descriptions, English", "free, by package")


@lru_cache(maxsize=1)
def _english(path: Path) -> list[tuple[str, str]]:
    rows = read_examples(path, skip_bad=True)
    return [(row.query, row.positives[0]) for row in rows if row.lang == "en" and row.positives]


def _halves(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each text that is long enough, by the middle of its words, in two."""
    parts = []
    for query, text in pairs:
        if len(words := text.split()) >= WORDS:
            middle = len(words) // 2
            parts += [(query, " ".join(words[:middle])), (query, " ".join(words[middle:]))]
    return parts


def _translated(folder: Path) -> tuple[list[tuple[str, str]], Source]:
    """English titles of Debian packages, and their descriptions in at least three languages."""
    source = Source("Debian package descriptions, English and translations", "free, by package")
    return _translations(folder / "train" / "ddtp.jsonl.gz"), source


@lru_cache(maxsize=1)
def _translations(path: Path) -> list[tuple[str, str]]:
    titles: dict[str, str] = {}
    texts: dict[str, list[str]] = defaultdict(list)
    for row in read_examples(path, skip_bad=True):
        if row.id is not None and row.positives:
            texts[row.id].append(row.positives[0])
            if row.lang == "en":
                titles[row.id] = row.query
    return [(title, text) for id, title in titles.items() if len(texts[id]) > 2 for text in texts[id]]


def _messages() -> tuple[list[tuple[str, str]], Source]:
    """English messages of a web framework and their translations."""
    found = read_catalogues(LANGUAGES, shortest=20)
    pairs = [(str(document.metadata["english"]), document.text) for document in found.documents]
    return pairs, Source("Django's catalogues, English → " + ", ".join(LANGUAGES), "BSD-3-Clause")
