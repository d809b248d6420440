"""The work that benchmarks.crash interrupts: documents, changes and an encoder, the same in every process."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embeddings, MultiVector, Sparse
from trichrome.records import Document

DENSE, TOKEN, VOCABULARY = 64, 32, 30_000  # widths of the outputs, number of token ids
DELETED_AT_ONCE = 10


@dataclass(frozen=True)
class Round:
    """documents: new and changed ones. deletions: what is deleted together. optimize: whether to, then."""

    documents: list[str]
    deletions: list[list[str]]
    optimize: bool


def plan(size: int, rounds: int = 10, seed: int = 0) -> list[Round]:
    """Rounds that bring `size` new documents in all; of the old ones a third is changed or deleted."""
    draw = random.Random(seed)
    made: list[Round] = []
    present: list[str] = []
    for r in range(rounds):
        new = [f"d{i}" for i in range(r * size // rounds, (r + 1) * size // rounds)]
        changed = draw.sample(present, min(len(present), len(new) // 3))
        present += new
        gone = draw.sample(present, len(new) // 8)
        present = sorted(set(present) - set(gone))
        chunks = [gone[i : i + DELETED_AT_ONCE] for i in range(0, len(gone), DELETED_AT_ONCE)]
        documents = new + changed
        draw.shuffle(documents)
        made.append(Round(documents, chunks, draw.random() < 0.6))
    return made


def document(id: str, version: int) -> Document:
    """The text of a document in a round, the same in every process. Its first words name both."""
    draw = random.Random(f"{id} {version}")
    words = [f"w{min(int(draw.paretovariate(0.6)), 4000)}" for _ in range(draw.randint(8, 60))]
    text = f"{id} {version} {' '.join(words)}"
    return Document(id, text, lang=draw.choice(["en", "sw", "月"]), metadata={"version": version})


class HashEncoder:
    """Each word has fixed random vectors: a text is their sum, the words' ids, and the vectors themselves."""

    def __init__(self, before: Callable[[list[str]], None] | None = None) -> None:
        """before: called with the texts of each batch."""
        self.before = before

    def encode(self, texts: Sequence[str], kind: str) -> Embeddings:
        if self.before is not None:
            self.before(list(texts))
        rows = [[word_vectors(word) for word in text.split()] for text in texts]
        dense = np.stack([np.sum([vectors[0] for vectors in row], axis=0) for row in rows])
        sparse = []
        for row in rows:
            weights = {token: weight for _, _, token, weight in row}
            ids = np.array(sorted(weights), np.int32)
            sparse.append((ids, np.array([weights[i] for i in ids.tolist()], np.float32)))
        return Embeddings(
            (dense / np.linalg.norm(dense, axis=1, keepdims=True)).astype(np.float32),
            Sparse.from_rows(sparse),
            MultiVector.from_rows([np.stack([vectors[1] for vectors in row]) for row in rows]),
        )


@lru_cache(maxsize=1 << 14)
def word_vectors(word: str) -> tuple[NDArray[np.float32], NDArray[np.float32], int, float]:
    """Dense part [64], unit token vector [32], token id and weight of one word."""
    draw = np.random.default_rng(int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little"))
    token = draw.standard_normal(TOKEN)
    return (
        draw.standard_normal(DENSE).astype(np.float32),
        (token / np.linalg.norm(token)).astype(np.float32),
        int(draw.integers(VOCABULARY)),
        float(np.float32(draw.uniform(0.1, 1.0))),
    )
