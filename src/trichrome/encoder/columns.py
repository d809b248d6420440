"""From one batch's tensors to NumPy columns, and from many batches' columns to Embeddings in input order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trichrome.embeddings import Embeddings, MultiVector, Sparse
from trichrome.encoder.heads import Outputs


@dataclass(frozen=True)
class BatchColumns:
    """One batch: dense [B, D]; sparse rows as counts [B], ids and weights; vectors [ΣT, d']."""

    dense: NDArray[Any] | None
    sparse: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None
    vectors: NDArray[Any] | None


def to_columns(made: Outputs, ids: Tensor) -> BatchColumns:
    """Drop padding and pool the sparse weights: the largest weight of each token id of a text."""
    sparse = None
    if made.sparse_weights is not None:
        row, place = made.sparse_weights.nonzero(as_tuple=True)  # [n], [n]
        if len(row):
            keys = row * (1 << 32) + ids[row, place]  # by text, then by token id
            unique, where = torch.unique(keys, return_inverse=True)
            weights = made.sparse_weights.new_zeros(len(unique))
            weights.scatter_reduce_(0, where, made.sparse_weights[row, place], reduce="amax")
        else:
            unique, weights = row, made.sparse_weights.new_zeros(0)
        counts = torch.bincount(unique >> 32, minlength=len(ids))
        token_ids = (unique & 0xFFFFFFFF).to(torch.int32)
        sparse = (counts.cpu().numpy(), token_ids.cpu().numpy(), weights.float().cpu().numpy())
    return BatchColumns(
        None if made.dense is None else made.dense.float().cpu().numpy(),
        sparse,
        None if made.vectors is None else made.vectors[made.vector_mask].float().cpu().numpy(),
    )


class ColumnWriter:
    """Collects batches in any order. How many vectors a text has is known before the forward pass, so the
    multi-vector column is written once, in place."""

    def __init__(
        self,
        vector_counts: Sequence[int],
        outputs: Sequence[str],
        dense_dim: int,
        vector_dim: int,
        vector_dtype: np.dtype[Any],
    ) -> None:
        n = len(vector_counts)
        self.dense = np.zeros((n, dense_dim), np.float32) if "dense" in outputs else None
        self.sparse: list[tuple[NDArray[Any], NDArray[Any]]] | None = None
        if "sparse" in outputs:
            self.sparse = [(np.empty(0, np.int32), np.empty(0, np.float32))] * n
        self.offsets = np.zeros(n + 1, np.int64)
        np.cumsum(vector_counts, out=self.offsets[1:])
        self.vectors = None
        if "multivector" in outputs:
            self.vectors = np.empty((int(self.offsets[-1]), vector_dim), vector_dtype)

    def put(self, rows: Sequence[int], batch: BatchColumns) -> None:
        """Store the outputs of the texts `rows`."""
        if self.dense is not None:
            self.dense[list(rows)] = batch.dense
        if self.sparse is not None and batch.sparse is not None:
            counts, ids, weights = batch.sparse
            ends = np.cumsum(counts)
            for i, end, count in zip(rows, ends.tolist(), counts.tolist(), strict=True):
                self.sparse[i] = (ids[end - count : end], weights[end - count : end])
        if self.vectors is not None and batch.vectors is not None:
            at = 0
            for i in rows:
                start, end = self.offsets[i], self.offsets[i + 1]
                self.vectors[start:end] = batch.vectors[at : at + end - start]
                at += end - start

    def finish(self) -> Embeddings:
        """Everything, in input order."""
        return Embeddings(
            self.dense,
            None if self.sparse is None else Sparse.from_rows(self.sparse),
            None if self.vectors is None else MultiVector(self.offsets, self.vectors),
        )
