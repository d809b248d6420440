"""An index as training sees it: dense vectors that stay as they are, and which of them answer which query.

B queries of width D · N documents
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome.errors import TrichromeError
from trichrome.index import document_of
from trichrome.index.store import Store
from trichrome.negatives.pool import plain
from trichrome.records import TrainingExample

#: Documents that are read, or scored, at once.
_READ, _SCORED = 1024, 1 << 16


class FrozenIndex(nn.Module):
    """Dense vectors [N, D], none of them trained."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.from_numpy(np.ascontiguousarray(vectors)), persistent=False)
        self.vectors: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Queries [B, D] and rows of documents [B, C], each query's own → scores [B, C], with gradients to
        the queries."""
        return torch.einsum("bd,bcd->bc", queries.to(self.vectors.dtype), self.vectors[documents])

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int) -> Tensor:
        """Rows [B, k] of the documents with the largest products with queries [B, D], the best first."""
        k = min(k, len(self))
        best = queries.new_empty(len(queries), 0, dtype=self.vectors.dtype)
        rows = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
        for start in range(0, len(self), _SCORED):
            scores = queries.to(self.vectors.dtype) @ self.vectors[start : start + _SCORED].T  # [B, n]
            here = torch.arange(start, start + scores.shape[1], device=rows.device).expand(len(queries), -1)
            best, places = torch.cat([best, scores], 1).topk(min(k, best.shape[1] + scores.shape[1]), dim=1)
            rows = torch.cat([rows, here], 1).gather(1, places)
        return rows


@dataclass(frozen=True)
class ReadDocuments:
    """A store's N documents, by their ids, in the order in which they were read, and by what they say."""

    by_id: dict[str, int]
    by_text: dict[int, list[int]]

    def answers(self, examples: Iterable[TrainingExample]) -> list[NDArray[np.int64]]:
        """For each example the rows, ascending, of the documents that answer it: those with the id or the
        text of a positive of this query in any example; none where the index holds none."""
        found: dict[Hashable, set[int]] = {}
        keys: list[Hashable] = []
        for example in examples:
            keys.append((example.prompt, plain(example.query)))
            rows = found.setdefault(keys[-1], set())
            rows.update(self.by_id[id] for id in example.positive_ids or () if id in self.by_id)
            for text in example.positives:
                rows.update(self.by_text.get(hash(plain(text)), ()))
        made = {key: np.array(sorted(rows), np.int64) for key, rows in found.items()}
        return [made[key] for key in keys]


@dataclass(frozen=True)
class ReadIndex(ReadDocuments):
    """With their dense vectors [N, D]."""

    vectors: NDArray[np.float32]


def read_documents(store: Store) -> ReadDocuments:
    """Which documents a store holds."""
    by_id: dict[str, int] = {}
    by_text: dict[int, list[int]] = {}
    for row, (id, payload) in enumerate(store.scan(fields=["text", "title"])):
        by_id[id] = row
        by_text.setdefault(hash(plain(document_of(id, payload).content)), []).append(row)
    return ReadDocuments(by_id, by_text)


def read_index(store: Store, progress: Callable[[int, int], None] | None = None) -> ReadIndex:
    """Every dense vector of a store, in memory: N × D × 4 bytes. progress: (read, of how many).

    TrichromeError: a store without dense vectors, or without documents.
    """
    width, count = store.manifest.dense_dim, store.count()
    if width is None or not count:
        raise TrichromeError(f"the index holds no {'dense vectors' if count else 'documents'} to train with")
    documents = read_documents(store)
    ids, vectors = list(documents.by_id), np.empty((count, width), np.float32)
    for start in range(0, count, _READ):
        some = ids[start : start + _READ]
        dense = store.embeddings(store.rows_of(some)).dense
        assert dense is not None
        vectors[start : start + len(some)] = dense
        if progress is not None:
            progress(start + len(some), count)
    return ReadIndex(documents.by_id, documents.by_text, vectors)


def answered(answers: Sequence[NDArray[np.int64]], skip_bad: bool, where: str) -> int:
    """How many examples have an answer in the index. TrichromeError where some have none, unless skip_bad,
    and where all have none."""
    there = sum(len(rows) > 0 for rows in answers)
    if not there or (there < len(answers) and not skip_bad):
        raise TrichromeError(
            f"{where}: {len(answers) - there:,} of {len(answers):,} rows of the data have no positive in the "
            "index, by its id (pos_ids) or its text; index those documents, or set skip_bad: true"
        )
    return there
