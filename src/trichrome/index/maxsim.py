"""Multi-vector scores of one query against stored passages, which may be packed in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

#: Passage tokens gathered at a time: bounds the copy to 32 MiB in float16 at width 128.
_BLOCK_TOKENS = 1 << 17
#: Sizes below which torch copies (2^15 numbers) and OpenBLAS multiplies (2^18 products) without threads.
_SMALL_COPY = 30 << 10
_SMALL_PRODUCT = 1 << 18
#: Rows of a block that make up for the calls it takes.
_WORTHWHILE = 32


#: (what is stored [T, …], out [T, d] float32): writes the vectors that stored rows stand for.
Widen: TypeAlias = "Callable[[NDArray[Any], NDArray[np.float32]], None]"


def widen_floats(stored: NDArray[np.floating[Any]], out: NDArray[np.float32]) -> None:
    """Rows of floats [T, d] → out; torch converts float16 ten times faster than NumPy does."""
    torch.from_numpy(out).copy_(torch.from_numpy(stored))


def maxsim(
    query: NDArray[np.floating[Any]], passages: Sequence[NDArray[Any]], widen: Widen = widen_floats
) -> NDArray[np.float32]:
    """Query [Tq, d] against passages of [T_i, …] → [n] means over query tokens of the best passage token.

    widen: how stored rows become float32 vectors [T, d]; rows in float32 are taken as they are.
    A query or a passage without a token scores 0.
    """
    scores = np.zeros(len(passages), dtype=np.float32)
    filled = [i for i, passage in enumerate(passages) if len(passage)]
    if not len(query):
        return scores
    q = np.ascontiguousarray(query, dtype=np.float32)  # [Tq, d]
    start = 0
    while start < len(filled):
        end, tokens = start, 0
        while end < len(filled) and (end == start or tokens + len(passages[filled[end]]) <= _BLOCK_TOKENS):
            tokens += len(passages[filled[end]])
            end += 1
        block = [passages[i] for i in filled[start:end]]
        starts = np.cumsum([0] + [len(passage) for passage in block[:-1]])
        products = _products(np.concatenate(block), q, widen)  # [T, Tq]
        best = np.maximum.reduceat(products, starts, axis=0)  # [passages, Tq]
        scores[filled[start:end]] = best.mean(axis=1)
        start = end
    return scores


def _products(tokens: NDArray[Any], query: NDArray[np.float32], widen: Widen) -> NDArray[np.float32]:
    """[T, …] with [Tq, d] → [T, Tq] inner products, in float32.

    In blocks that stay in the cache, and so small that torch and BLAS do them on the calling thread: waking
    their two thread pools in turn took two to four times as long on two cores, and more on busy ones.
    """
    dim = query.shape[1]
    rows = min(_SMALL_COPY // dim, _SMALL_PRODUCT // (dim * len(query)))
    if tokens.dtype == np.float32 or rows < _WORTHWHILE:  # a long query is worth several threads
        if tokens.dtype != np.float32:
            stored, tokens = tokens, np.empty((len(tokens), dim), dtype=np.float32)
            widen(stored, tokens)
        return np.asarray(tokens @ query.T, dtype=np.float32)
    products = np.empty((len(tokens), len(query)), dtype=np.float32)
    block = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, len(tokens), rows):
        part = tokens[start : start + rows]
        wide = block[: len(part)]
        widen(part, wide)
        np.matmul(wide, query.T, out=products[start : start + len(part)])
    return products
