"""Python's standard library as a retrieval task: which function or class does what this sentence says?

    python examples/standard_library.py --to library

Real questions and documents that every reader has already; nothing is downloaded. A document is the source of
a function or class without any docstring, cut to --characters; a question is the first sentence of its
docstring. Whole top-level modules go to training, development or test, so no question is about a module that
training saw a question of. All documents are in the corpus. The same Python gives the same files:

    library/questions.jsonl    questions with their documents, as FlagEmbedding's JSONL, to train on
    library/dev/, library/test/    corpus.jsonl, queries.jsonl and qrels.tsv (BEIR's layout), to measure
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from trichrome import Document, Query, TrainingExample
from trichrome.errors import TrichromeError
from trichrome.formats.beir import write_beir
from trichrome.formats.flagembedding import write_examples

Definition: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef"

#: Not the library itself: its tests, what others wrote, what is made by programs.
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "_vendor"}
#: Parts of the modules by number out of 10: half are for training, one in ten for development.
TRAINING, DEVELOPMENT = 5, 6
FEWEST_WORDS, MOST_WORDS, FEWEST_LINES = 5, 30, 3


@dataclass(frozen=True)
class Entry:
    """One function or class. id: its place, as json.decoder.JSONDecoder.decode. question: None where it has
    no docstring that makes one."""

    id: str
    source: str
    question: str | None

    @property
    def part(self) -> int:
        """0 … 9, the same for everything in a top-level module."""
        module = self.id.partition(".")[0]
        return int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "big") % 10


def read_library(folder: Path, characters: int) -> list[Entry]:
    """Every function and class of three lines or more, in the order of their names; equal sources once."""
    entries: dict[str, Entry] = {}
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if LEFT_OUT & set(inside.parts):
            continue
        try:
            text = path.read_text("utf-8")
            tree = ast.parse(text)
        except (UnicodeDecodeError, SyntaxError):  # a few files are there to be wrong
            continue
        module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        docstrings = _docstring_lines(tree)
        lines = text.splitlines()
        for name, node in _definitions(tree, module):
            source = _source(node, lines, docstrings)
            if source.count("\n") + 1 >= FEWEST_LINES:
                entries.setdefault(name, Entry(name, _cut(source, characters), _question(node)))
    once = {entry.source: entry for entry in reversed(entries.values())}
    return sorted(once.values(), key=lambda entry: entry.id)


def _definitions(node: ast.AST, name: str) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{name}.{child.name}", child
            yield from _definitions(child, f"{name}.{child.name}")
        else:
            yield from _definitions(child, name)


def _docstring_lines(tree: ast.AST) -> set[int]:
    """The numbers of all lines that hold docstrings, from 1."""
    numbers: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            numbers |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return numbers


def _source(node: Definition, lines: Sequence[str], docstrings: set[int]) -> str:
    """Without docstrings and blank lines, and moved to the left."""
    numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    kept = [lines[n - 1].expandtabs().rstrip() for n in numbers if n not in docstrings]
    return "\n".join(line[node.col_offset :] for line in kept if line)


def _cut(text: str, characters: int) -> str:
    """The lines that fit in; of a longer first line its beginning."""
    if len(text) <= characters:
        return text
    end = text.rfind("\n", 0, characters + 1)
    return text[: end if end > 0 else characters]


def _question(node: Definition) -> str | None:
    """The first sentence of the docstring; a signature or a rule of a grammar is none."""
    text = (ast.get_docstring(node) or "").partition("\n\n")[0]
    sentence = re.split(r"(?<=[.!?:])\s", " ".join(text.split()))[0].rstrip(".:")
    if not FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS:
        return None
    return sentence if sentence[0].isupper() and not re.search(r"[=>|\\]", sentence) else None


def _drawn(entries: Sequence[Entry], parts: range, count: int) -> list[Entry]:
    """So many of those parts' entries with a question that no other one asks, drawn by a hash of the id."""
    asked = Counter(entry.question for entry in entries)
    there = [e for e in entries if e.part in parts and e.question is not None and asked[e.question] == 1]
    there.sort(key=lambda entry: hashlib.sha256(entry.id.encode()).digest())
    if len(there) < count:
        raise TrichromeError(f"only {len(there)} questions in these modules, {count} wanted: ask for fewer")
    return sorted(there[:count], key=lambda entry: entry.id)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, default=Path("library"), help="folder to write")
    parser.add_argument("--train", type=int, default=200, help="questions to train on")
    parser.add_argument("--dev", type=int, default=200, help="questions to choose settings by")
    parser.add_argument("--test", type=int, default=400, help="questions to measure by")
    parser.add_argument("--documents", type=int, default=4000, help="documents in the corpus")
    parser.add_argument("--characters", type=int, default=800, help="of a document, at most")
    wanted = parser.parse_args()

    entries = read_library(Path(sysconfig.get_paths()["stdlib"]), wanted.characters)
    parts = {"train": range(TRAINING), "dev": range(TRAINING, DEVELOPMENT), "test": range(DEVELOPMENT, 10)}
    drawn = {name: _drawn(entries, parts[name], getattr(wanted, name)) for name in parts}
    asked = {entry.id for chosen in drawn.values() for entry in chosen}
    others = [entry for entry in entries if entry.id not in asked]
    others.sort(key=lambda entry: hashlib.sha256(entry.id.encode()).digest())
    kept = asked | {entry.id for entry in others[: max(0, wanted.documents - len(asked))]}
    documents = [Document(entry.id, entry.source) for entry in entries if entry.id in kept]

    for name in ("dev", "test"):
        queries = [Query(f"{name}-{i}", entry.question or "") for i, entry in enumerate(drawn[name])]
        qrels = {q.id: {entry.id: 1} for q, entry in zip(queries, drawn[name], strict=True)}
        write_beir(wanted.to / name, documents, queries, qrels)
    write_examples(
        wanted.to / "questions.jsonl",
        [TrainingExample(e.question or "", (e.source,), positive_ids=(e.id,)) for e in drawn["train"]],
    )
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: {len(documents):,} of {len(entries):,} functions and classes in {wanted.to}")
    for name, chosen in drawn.items():
        modules = {entry.id.partition(".")[0] for entry in chosen}
        one = chosen[len(chosen) // 2].question
        print(f"{name}: {len(chosen)} questions about {len(modules)} modules; one: {one}")


if __name__ == "__main__":
    try:
        main()
    except TrichromeError as error:
        raise SystemExit(f"error: {error}") from None
