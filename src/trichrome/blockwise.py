"""Sparse and multi-vector score matrices in blocks, with gradients, for training.

Written out plainly, the sparse scores of B queries and C passages keep [C, V] weights and the multi-vector
scores [B, C, Lq, Lp] products for the backward pass. Both scores are sums of products of maxima, so where
the maxima lie is all that is needed: here the backward pass keeps that, and the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Numbers that one block may hold: near the CPU's cache, and enough work for one launch on an accelerator.
_CPU_ELEMENTS, _OTHER_ELEMENTS = 1 << 20, 1 << 26


class MaxSim(torch.autograd.Function):
    """Mean over a query's tokens of the largest product with a passage's tokens.

    queries [B, Lq, d], passages [C, Lp, d], masks [B, Lq] and [C, Lp] → [B, C], in float32 or more. Kept:
    one place of a passage for each token of a query, [T, C] with T real query tokens.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        kind = torch.promote_types(queries.dtype, torch.float32)
        with torch.autocast(queries.device.type, enabled=False):
            q = queries[q_mask].to(kind)  # [T, d]
            first = p_mask.int().argmax(1)  # [C] first real token
            filled = p_mask.any(1)  # [C]
            n_places = passages.shape[1]
            places = torch.empty(
                len(q), len(passages), dtype=torch.int16 if n_places < 1 << 15 else torch.int32,
                device=q.device,
            )  # fmt: skip
            scores = q.new_zeros(len(queries), len(passages))
            used = p_mask.any(0).nonzero()
            end = int(used[-1]) + 1 if len(used) else 0  # longest real passage
            for c in _blocks(len(passages) if len(q) and end else 0, len(q) * end, q.device):
                best, places[:, c] = _best(q, passages[c, :end].to(kind), p_mask[c, :end], first[c])
                spread = best.new_zeros(*q_mask.shape, best.shape[1])
                spread[q_mask] = torch.where(filled[c], best, 0)
                scores[:, c] = spread.sum(1)  # [B, Lq, Cb] → [B, Cb]
            scores /= q_mask.sum(1, keepdim=True).clamp(min=1)
        ctx.save_for_backward(queries, passages, q_mask, p_mask, places)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        queries, passages, q_mask, p_mask, places = ctx.saved_tensors
        kind = gradient.dtype
        for_queries, for_passages = ctx.needs_input_grad[:2]
        q = queries[q_mask].to(kind)  # [T, d]
        counts = q_mask.sum(1)  # [B]
        owner = torch.repeat_interleave(counts)  # [T] whose token it is
        shares = gradient * p_mask.any(1) / counts.clamp(min=1)[:, None]  # [B, C]
        d_q = torch.zeros_like(q)
        d_passages = torch.zeros_like(passages) if for_passages else None
        length, dim = passages.shape[1:]
        # every number below is of one token of a query and one passage, except the passages' own vectors
        for c in _blocks(len(passages) if len(q) else 0, len(q) + length * dim, q.device):
            share = shares[owner, c]  # [T, Cb]
            where = places[:, c].long() + torch.arange(share.shape[1], device=q.device) * length  # [T, Cb]
            if for_queries:
                vectors = torch.where(
                    p_mask[c][..., None], passages[c], 0
                )  # an empty passage's may be anything
                vectors = vectors.view(-1, dim).to(kind)  # [Cb · Lp, d]
                d_q += F.embedding_bag(where, vectors, per_sample_weights=share, mode="sum")
            if d_passages is not None:
                # tokens in the order of the places that they chose; passages ascend, so each is sorted alone
                chosen, order = where.T.sort(1)  # [Cb, T]
                starts = torch.searchsorted(
                    chosen.reshape(-1), torch.arange(share.shape[1] * length, device=q.device)
                )  # [Cb · Lp]
                d_p = F.embedding_bag(
                    order.reshape(-1),
                    q,
                    starts,
                    per_sample_weights=share.T.gather(1, order).reshape(-1),
                    mode="sum",
                )
                d_passages[c] = d_p.view(-1, length, dim).to(passages.dtype)
        d_queries = None
        if for_queries:
            d_queries = torch.zeros_like(queries)
            d_queries[q_mask] = d_q.to(queries.dtype)
        return d_queries, d_passages, None, None


def _best(q: Tensor, vectors: Tensor, mask: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """q [T, d], vectors [Cb, L, d], mask [Cb, L], first [Cb] → best products [T, Cb] and their places."""
    count, length, dim = vectors.shape
    rows = torch.arange(count, device=q.device)
    # padding takes the first real token's vector: it can't win over it, and products need no mask
    vectors = torch.where(mask[..., None], vectors, vectors[rows, first][:, None])
    flat = vectors.reshape(-1, dim).T  # [d, Cb · L]
    step = max(1, _elements(q.device) // (count * length))
    made = [(q[i : i + step] @ flat).view(-1, count, length).max(-1) for i in range(0, len(q), step)]
    best, place = torch.cat([m.values for m in made]), torch.cat([m.indices for m in made])  # [T, Cb]
    return best, torch.where(mask[rows, place], place, first)


class SparseScores(torch.autograd.Function):
    """Products of the weights of shared token ids; of a token that occurs twice the larger weight counts.

    ids and weights ≥ 0, [B, Lq] and [C, Lp]; columns [U]: the token ids that both sides hold, ascending
    → [B, C], in float32 or more. Kept: a column and a share for each position, [B, Lq] and [C, Lp].
    """

    @staticmethod
    def forward(
        ctx: Any, q_ids: Tensor, q_weights: Tensor, p_ids: Tensor, p_weights: Tensor, columns: Tensor
    ) -> Tensor:
        kind = torch.promote_types(q_weights.dtype, torch.float32)
        if not len(columns):
            columns = columns.new_full((1,), -1)  # a token that nothing holds
        width = len(columns)
        with torch.autocast(q_weights.device.type, enabled=False):
            q_where, q_share = _winners(q_ids, q_weights, columns)
            q = _matrix(q_where, q_weights * q_share, width).to(kind)  # [B, U]
            scores = q.new_zeros(len(q_ids), len(p_ids))
            kept = []
            for c in _blocks(len(p_ids), width, q.device):
                where, share = _winners(p_ids[c], p_weights[c], columns)
                scores[:, c] = q @ _matrix(where, p_weights[c] * share, width).to(kind).T
                kept.append((where, share))
        p_where, p_share = (torch.cat(parts) for parts in zip(*kept, strict=True))
        ctx.save_for_backward(q_where, q_weights, q_share, p_where, p_weights, p_share)
        ctx.width = width
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None, Tensor | None, None]:
        q_where, q_weights, q_share, p_where, p_weights, p_share = ctx.saved_tensors
        d_pw = torch.zeros_like(p_weights)
        q = _matrix(q_where, q_weights * q_share, ctx.width).to(gradient.dtype)  # [B, U]
        d_q = torch.zeros_like(q)
        for c in _blocks(len(p_where), ctx.width, q.device):
            p = _matrix(p_where[c], p_weights[c] * p_share[c], ctx.width).to(gradient.dtype)  # [Cb, U]
            d_q += gradient[:, c] @ p
            d_pw[c] = (gradient[:, c].T @ q).gather(1, p_where[c].long()).to(d_pw.dtype) * p_share[c]
        d_qw = d_q.gather(1, q_where.long()).to(q_weights.dtype) * q_share
        return None, d_qw, None, d_pw, None


def _winners(ids: Tensor, weights: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """[N, L] → the column of each position, and its share in that column's maximum: 1, less where positions
    tie, 0 where it is not the largest or its token is not among the columns."""
    where = torch.searchsorted(columns, ids).clamp_(max=len(columns) - 1)
    weights = weights * (columns[where] == ids)
    largest = weights.new_zeros(len(ids), len(columns))
    largest.scatter_reduce_(1, where, weights, reduce="amax", include_self=True)
    share = ((weights > 0) & (weights == largest.gather(1, where))).to(weights.dtype)
    ties = largest.zero_().scatter_add_(1, where, share).gather(1, where)
    return where.int(), share / ties.clamp(min=1)


def _matrix(where: Tensor, weights: Tensor, width: int) -> Tensor:
    """[N, L] columns and the parts that add up to the maxima → [N, U]."""
    return weights.new_zeros(len(where), width).scatter_add_(1, where.long(), weights)


def _elements(device: torch.device) -> int:
    return _CPU_ELEMENTS if device.type == "cpu" else _OTHER_ELEMENTS


def _blocks(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows × width ≤ the elements of a block (or of one row)."""
    step = max(1, _elements(device) // max(1, width))
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
