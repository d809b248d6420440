"""A tiny task, and an encoder that needs no weights: hashed words make its vectors."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trichrome.embeddings import SIGNALS, Embeddings, MultiVector, Sparse
from trichrome.evaluation import Task
from trichrome.records import Document, Query


def word_ids(text: str) -> list[int]:
    return [zlib.crc32(word.encode()) % 5000 for word in re.findall(r"\w+", text.lower())]


def word_vector(word: int) -> np.ndarray:
    vector = np.random.default_rng(word).standard_normal(16).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class WordEncoder:
    """Dense: the mean of the words' vectors; sparse: weight 1 a word; multivector: a vector a word."""

    fingerprint: str = "w" * 64
    signals: tuple[str, ...] = SIGNALS
    name: str = "words"
    encoded: list[str] = field(default_factory=list)

    def encode(
        self, texts: Sequence[str], kind: str = "passage", outputs: Sequence[str] = SIGNALS
    ) -> Embeddings:
        self.encoded += texts
        ids = [word_ids(text) for text in texts]
        tokens = [np.array([word_vector(i) for i in row] or np.empty((0, 16)), np.float32) for row in ids]
        dense = np.array([t.sum(axis=0) for t in tokens], np.float32)
        sparse = [(np.unique(row).astype(np.int32), np.ones(len(set(row)), np.float32)) for row in ids]
        return Embeddings(
            dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9),
            Sparse.from_rows(sparse),
            MultiVector.from_rows(tokens, 16),
        ).select(*outputs)

    def token(self, id: int) -> str:
        return str(id)

    def token_spans(self, text: str, kind: str):
        raise NotImplementedError

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [word_ids(text) for text in texts]


def make_task(**changes) -> Task:
    """40 documents of random words in two languages; queries are parts of a document's words."""
    rng = np.random.default_rng(3)
    documents, queries, qrels = [], [], {}
    for i in range(40):
        lang = "en" if i % 2 else "sw"
        text = " ".join(f"word{w}" for w in rng.integers(60, size=12))
        documents.append(Document(f"d{i}", text, lang=lang))
        if i < 24:
            queries.append(Query(f"q{i}", " ".join(rng.choice(text.split(), 3)), lang))
            qrels[f"q{i}"] = {f"d{i}": 1}
    queries.append(Query("q99", "nobody judged this", "en"))
    return Task.of(**{"name": "tiny", "documents": documents, "queries": queries, "qrels": qrels} | changes)
