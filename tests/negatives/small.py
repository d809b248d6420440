"""Small data for the mining tests: documents of random words, and questions about some of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.evaluation.tiny_task import WordEncoder
from trichrome.embeddings import SIGNALS, Embeddings, Sparse
from trichrome.index import Store, create_store
from trichrome.negatives import MemoryPool, MineSettings, PassageTable
from trichrome.records import Document, TrainingExample


class UntiedEncoder(WordEncoder):
    """A word weighs something else in every text, so that no two passages score alike."""

    def encode(
        self, texts: Sequence[str], kind: str = "passage", outputs: Sequence[str] = SIGNALS
    ) -> Embeddings:
        made = super().encode(texts, kind, SIGNALS)
        rows = []
        for i, text in enumerate(texts):
            ids, _ = made.sparse.row(i)
            rows.append(
                (ids, (0.5 + (ids * 31 + zlib.crc32(text.encode()) % 997) % 997 / 997).astype(np.float32))
            )
        return Embeddings(made.dense, Sparse.from_rows(rows), made.multivector).select(*outputs)


def documents(count: int = 60, seed: int = 3) -> list[Document]:
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"word{w}" for w in rng.integers(40, size=12)) for _ in range(count)]
    return [Document(f"d{i:02}", text, lang="en" if i % 2 else "sw") for i, text in enumerate(texts)]


def examples(corpus: list[Document], count: int = 25, seed: int = 4) -> list[TrainingExample]:
    """Questions of four words of a document; every fifth knows a second document that answers it."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        answers = [corpus[i], corpus[i + 30]] if i % 5 == 0 else [corpus[i]]
        made.append(
            TrainingExample(
                " ".join(rng.choice(corpus[i].text.split(), 4, replace=False)),
                tuple(d.content for d in answers),
                lang=corpus[i].lang,
                id=f"r{i}",
                positive_ids=tuple(d.id for d in answers),
            )
        )
    return made


def table(corpus: list[Document]) -> PassageTable:
    made = PassageTable()
    for document in corpus:
        made.add(document.content, document.lang, document.id)
    return made


def memory_pool(corpus: list[Document], settings: MineSettings) -> MemoryPool:
    return MemoryPool.encode(table(corpus), UntiedEncoder(), settings.signals, lambda *_: None)


def filled_store(path: Path, kind: str, corpus: list[Document]) -> Store:
    store = create_store(
        path,
        kind=kind,
        model="words",
        fingerprint="w" * 64,
        dense_dim=16,
        sparse=True,
        multivector_dim=16,
    )
    payloads = [{"text": d.text, "lang": d.lang, **d.metadata} for d in corpus]
    store.add([d.id for d in corpus], UntiedEncoder().encode([d.content for d in corpus]), payloads)
    return store
