"""The M3 scores as pure functions (arXiv 2402.03216 v4, section 3.2).

    dense        q · p
    sparse       Σ over the token ids that both hold of w_q · w_p
    multivector  (1/N_q) Σ_i max_j q_i · p_j      the maximum over real passage tokens only
    weighted     w_dense·dense + w_sparse·sparse + w_multivector·multivector, raw scores

On torch tensors, with gradients: `*_scores` give every query against every passage [B, C], `*_pair_scores`
give row i against row i [B]. On stored Embeddings: `score` and `score_pairs`, in float32 NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from trichrome.blockwise import MaxSim, SparseScores
from trichrome.embeddings import SIGNALS, Embeddings, MultiVector, Sparse

#: Weights of dense, sparse and multivector when all are summed (M3 paper, MIRACL).
M3_WEIGHTS = (1.0, 0.3, 1.0)
#: The same for long documents (M3 paper, MLDR and NarrativeQA).
M3_LONG_WEIGHTS = (0.15, 0.5, 0.35)

#: Query-token × passage-token products that one block of a multi-vector score may hold.
_MAXSIM_ELEMENTS = 1 << 24

Score = TypeVar("Score", Tensor, NDArray[np.floating[Any]], float)


# dense


def dense_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """[B, D] against [C, D] → [B, C] inner products."""
    return queries @ passages.T


def dense_pair_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """[B, D] with [B, D] → [B]."""
    return (queries * passages).sum(-1)


# sparse: token ids and the weight at each position, as the encoder's head yields them. Weights are 0 at
# padding and at special tokens, so those never count; of a token that occurs twice the larger weight counts.


def sparse_scores(q_ids: Tensor, q_weights: Tensor, p_ids: Tensor, p_weights: Tensor) -> Tensor:
    """[B, Lq] ids and weights against [C, Lp] → [B, C].

    Only the token ids that occur on both sides take part, in blocks, so nothing as wide as the vocabulary
    is built, nor kept for the backward pass.
    """
    shared = _shared_ids(q_ids, p_ids)  # [U]
    scores: Tensor = SparseScores.apply(q_ids, q_weights, p_ids, p_weights, shared)  # type: ignore[no-untyped-call]
    return scores


def sparse_pair_scores(q_ids: Tensor, q_weights: Tensor, p_ids: Tensor, p_weights: Tensor) -> Tensor:
    """[B, Lq] ids and weights with [B, Lp] → [B]."""
    shared = _shared_ids(q_ids, p_ids)
    return (sparse_matrix(q_ids, q_weights, shared) * sparse_matrix(p_ids, p_weights, shared)).sum(-1)


def sparse_matrix(ids: Tensor, weights: Tensor, columns: Tensor) -> Tensor:
    """[B, L] ids and weights → [B, U]: the largest weight of each of the token ids `columns` (ascending)."""
    if columns.numel() == 0:
        return weights.new_zeros(len(ids), 0)
    where = torch.searchsorted(columns, ids).clamp_(max=len(columns) - 1)  # [B, L]
    known = columns[where] == ids
    matrix = weights.new_zeros(len(ids), len(columns))
    return matrix.scatter_reduce(1, where, weights * known, reduce="amax", include_self=True)


def _shared_ids(q_ids: Tensor, p_ids: Tensor) -> Tensor:
    """[U] token ids that occur in both batches, ascending."""
    q: Tensor = torch.unique(q_ids)
    p: Tensor = torch.unique(p_ids)
    return q[torch.isin(q, p, assume_unique=True)]


# multivector: token vectors [B, L, d] and a mask [B, L] of the real ones


def multivector_scores(queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
    """[B, Lq, d] against [C, Lp, d], masks [B, Lq] and [C, Lp] (true = real token) → [B, C].

    A query or a passage without a token scores 0. Products are made in blocks; the backward pass keeps only
    which of a passage's tokens each query token chose.
    """
    scores: Tensor = MaxSim.apply(queries, passages, q_mask, p_mask)  # type: ignore[no-untyped-call]
    return scores


def multivector_pair_scores(queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
    """[B, Lq, d] with [B, Lp, d], masks [B, Lq] and [B, Lp] → [B]."""
    products = torch.einsum("bqd,bpd->bqp", queries, passages)  # [B, Lq, Lp]
    # max and not amax: its backward pass needs the winners' places only, not all products again
    best = products.masked_fill(~p_mask[:, None], -torch.inf).max(-1).values  # [B, Lq]
    counted = q_mask & p_mask.any(-1, keepdim=True)
    total = torch.where(counted, best, 0).sum(-1)
    return total / q_mask.sum(-1).clamp(min=1)


# weighted


def weighted(
    scores: Mapping[str, Score], weights: Sequence[float] = M3_WEIGHTS, normalise: bool = False
) -> Score:
    """The weighted sum of the signals that are given, in the order dense, sparse, multivector.

    normalise: divide by the sum of the weights used, as FlagEmbedding does; rankings are the same.
    """
    used = [(scores[name], weight) for name, weight in zip(SIGNALS, weights, strict=True) if name in scores]
    if not used:
        raise ValueError(f"no score to sum; known signals are {', '.join(SIGNALS)}")
    total = sum(weight * score for score, weight in used)
    return total / sum(weight for _, weight in used) if normalise else total  # type: ignore[return-value]


# stored embeddings


def score(signal: str, queries: Embeddings, passages: Embeddings) -> NDArray[np.float32]:
    """[N, M] scores of all queries against all passages under one signal."""
    q, p = _columns(signal, queries), _columns(signal, passages)
    if isinstance(q, Sparse):
        width = 1 + max((int(s.ids.max()) for s in (q, p) if len(s.ids)), default=0)
        return np.asarray((_csr(q, width) @ _csr(p, width).T).todense(), dtype=np.float32)
    if isinstance(q, MultiVector):
        return (
            np.stack([_maxsim(q.row(i), p) for i in range(len(q))]) if len(q) else np.zeros((0, len(p)), "f4")
        )
    return np.asarray(q @ p.T, dtype=np.float32)


def score_pairs(signal: str, queries: Embeddings, passages: Embeddings) -> NDArray[np.float32]:
    """[N] scores of query i against passage i under one signal."""
    if len(queries) != len(passages):
        raise ValueError(f"pairs need equal numbers: {len(queries)} queries, {len(passages)} passages")
    q, p = _columns(signal, queries), _columns(signal, passages)
    if isinstance(q, Sparse):
        width = 1 + max((int(s.ids.max()) for s in (q, p) if len(s.ids)), default=0)
        return np.asarray((_csr(q, width) * _csr(p, width)).sum(axis=1), dtype=np.float32).reshape(-1)
    if isinstance(q, MultiVector):
        pairs = ((q.row(i), MultiVector(np.array([0, len(p.row(i))]), p.row(i))) for i in range(len(q)))
        return np.array([_maxsim(vectors, one)[0] for vectors, one in pairs], dtype=np.float32)
    return np.asarray(np.einsum("nd,nd->n", q, p), dtype=np.float32)


def _columns(signal: str, batch: Embeddings) -> Any:
    if signal not in SIGNALS:
        raise ValueError(f"unknown signal {signal!r}; there are {', '.join(SIGNALS)}")
    columns = getattr(batch, signal)
    if columns is None:
        raise ValueError(f"these embeddings hold no {signal} output, only {batch.signals}")
    return columns.astype(np.float32, copy=False) if signal == "dense" else columns


def _csr(sparse: Sparse, width: int) -> csr_array:
    return csr_array(
        (np.asarray(sparse.weights), np.asarray(sparse.ids), sparse.indptr), shape=(len(sparse), width)
    )


def _maxsim(query: NDArray[Any], passages: MultiVector) -> NDArray[np.float32]:
    """[Tq, d] against M passages → [M]; blocks of passages keep the products within a fixed size."""
    scores = np.zeros(len(passages), dtype=np.float32)
    if not len(query):
        return scores
    q = np.ascontiguousarray(query, dtype=np.float32)
    offsets = np.asarray(passages.offsets)
    start = 0
    while start < len(passages):
        limit = offsets[start] + max(1, _MAXSIM_ELEMENTS // len(q))
        end = max(start + 1, int(np.searchsorted(offsets, limit, side="right")) - 1)
        block = np.asarray(passages.vectors[offsets[start] : offsets[end]], dtype=np.float32)  # [T, d]
        filled = np.flatnonzero(np.diff(offsets[start : end + 1]))  # reduceat needs segments with tokens
        if len(filled):
            products = q @ block.T  # [Tq, T]
            best = np.maximum.reduceat(products, (offsets[start:end] - offsets[start])[filled], axis=1)
            scores[start + filled] = best.mean(axis=0)  # [Tq, segments] → [segments]
        start = end
    return scores
