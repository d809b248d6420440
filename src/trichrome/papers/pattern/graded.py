"""Real text in four grades of relevance, made of families: packages described in part by the same paragraph.

For a title of a package, 3: its own description; 2: the second half of that; 1: the description of another
package of the family; 0: everything else. Without a folder of training sets: a web framework's messages, with
the German translation as 3, the second half of that as 2, and translations to other languages as 1.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trichrome.formats.django_catalogues import read_catalogues
from trichrome.formats.flagembedding import read_examples
from trichrome.papers.pattern.collection import LANGUAGES, Collection, Split
from trichrome.papers.pattern.paper import Source

#: Characters of a paragraph that makes a family, at least, and packages that share it, at most: a long one
#: says what a package is about, one that many share is boilerplate.
PARAGRAPH, SHARED = 80, 8
#: Members of a family at most; chains of paragraphs make a few that are about many things.
LARGEST = 12
#: Words of a text that has a half worth judging, at least.
WORDS = 6

#: (query, text) of its members; the query is empty where a text is no answer to any.
Family: TypeAlias = "list[tuple[str, str]]"
#: Row of a passage → its grade, of those above 0.
Grades: TypeAlias = "dict[int, int]"


@dataclass(frozen=True)
class Graded(Collection):
    """A collection whose queries have passages in grades; `answers` of its splits are those of grade 3."""

    train_grades: list[Grades]
    test_grades: list[Grades]


def graded_titles(folder: Path | None, *, train: int, test: int, seed: int = 0) -> Graded:
    """So many queries, at most, each of a family of its own. folder: with train/ddtp.jsonl.gz; a package's
    text where None."""
    families, source = _packages(folder) if folder else _messages()
    return grade(families, source, train, test, seed)


def grade(families: Sequence[Family], source: Source, train: int, test: int, seed: int = 0) -> Graded:
    """One query of each family, drawn by the seed among those whose texts have a half worth judging. Families
    without a passage of each grade are left out."""
    chance = random.Random(seed)
    chosen: list[tuple[str, dict[str, int]]] = []
    for family in chance.sample(list(families), len(families)):
        if long := [(query, text) for query, text in family if query and len(text.split()) >= WORDS]:
            query, own = chance.choice(long)
            words = own.split()
            judged = {text: 3 if title == query else 1 for title, text in family}
            judged = {" ".join(words[len(words) // 2 :]): 2} | judged
            if {*judged.values()} == {1, 2, 3}:
                chosen.append((query, judged))
    test, train = min(test, len(chosen) // 3), min(train, len(chosen) - len(chosen) // 3)
    places: dict[str, int] = {}
    made = [
        (query, {places.setdefault(text, len(places)): given for text, given in judged.items()})
        for query, judged in chosen[: test + train]
    ]

    def split(part: list[tuple[str, Grades]]) -> Split:
        return Split([query for query, _ in part], [rows(grades, 3) for _, grades in part])

    tests, trains = made[:test], made[test:]
    return Graded(
        list(places), split(trains), split(tests), source, [g for _, g in trains], [g for _, g in tests]
    )


def rows(grades: Grades, given: int) -> NDArray[np.int64]:
    """The passages of one grade."""
    return np.array([row for row, its in grades.items() if its == given], np.int64)


def _packages(folder: Path) -> tuple[list[Family], Source]:
    """English descriptions of Debian packages; binary packages of one source often share a paragraph."""
    read = read_examples(folder / "train" / "ddtp.jsonl.gz", skip_bad=True)
    pairs = {row.positives[0]: row.query for row in read if row.lang == "en" and row.positives}
    texts = sorted(pairs)
    sharing: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        for paragraph in {p.strip() for p in text.split("\n\n")}:
            if len(paragraph) >= PARAGRAPH:
                sharing[paragraph].append(i)
    families = joined(len(texts), [group for group in sharing.values() if len(group) <= SHARED])
    source = Source("Debian package descriptions, English, by shared paragraphs", "free, by package")
    return [[(pairs[texts[i]], texts[i]) for i in family] for family in families], source


def joined(count: int, groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers below `count` that groups connect, 2 to LARGEST together, in ascending order."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for group in groups:
        for i in group[1:]:
            parent[root(i)] = root(group[0])
    found: dict[int, list[int]] = defaultdict(list)
    for i in range(count):
        found[root(i)].append(i)
    return [family for family in found.values() if 2 <= len(family) <= LARGEST]


def _messages() -> tuple[list[Family], Source]:
    """English messages of a web framework and their translations."""
    families: dict[str, Family] = defaultdict(list)
    for document in read_catalogues(LANGUAGES, shortest=20).documents:
        message = str(document.metadata["english"])
        families[message].append((message if document.lang == LANGUAGES[0] else "", document.text))
    return [families[m] for m in sorted(families)], Source(
        "Django's catalogues, English → " + ", ".join(LANGUAGES), "BSD-3-Clause"
    )
