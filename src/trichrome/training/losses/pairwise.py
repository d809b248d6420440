"""Pairs of one query's positives and negatives: RankNet, and LambdaRank, which weighs them by their ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trichrome.training.losses.infonce import float32_at_least
from trichrome.training.target import Target


def pairwise(scores: Tensor, target: Target, *, temperature: float = 0.02) -> Tensor:
    """log(1 + exp((s⁻ − s⁺)/τ)), the mean over a query's pairs of a positive and a negative → scalar.

    scores [B, C] raw; the mean over queries, 0 for one without a negative. The softmax over two scores at a
    time (RankNet, Burges et al. 2005; the loss of STAR, arXiv 2104.08051): what a negative adds depends on
    its own score alone, where InfoNCE's softmax gives the hardest nearly everything.
    """
    return _mean_of_pairs(float32_at_least(scores) / temperature, target, None)


def lambda_rank(
    scores: Tensor, target: Target, *, temperature: float = 0.02, cut: int | None = None
) -> Tensor:
    """The same pairs, each times |1/rank⁺ − 1/rank⁻|: what swapping the two would change in the reciprocal
    rank (LambdaRank, Burges 2010, with ADORE's weights, arXiv 2104.08051).

    Ranks are those of the scores among the passages that count for a query, from 1, equal scores in the
    order of the columns; no gradient goes through them. cut: 1/rank is 0 for ranks beyond it, so a pair that
    lies there whole weighs nothing. Meant for a query's best passages in a whole index: ranks among a few
    drawn negatives say little.
    """
    with torch.no_grad():
        order = scores.masked_fill(~target.mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
        ranks = order.argsort(1) + 1  # [B, C]
        gains = 1 / ranks.to(float32_at_least(scores).dtype)
        if cut is not None:
            gains = gains.masked_fill(ranks > cut, 0)
    return _mean_of_pairs(float32_at_least(scores) / temperature, target, gains)


def _mean_of_pairs(logits: Tensor, target: Target, gains: Tensor | None) -> Tensor:
    """All [B, C] → scalar; memory: one number for each positive and column."""
    row, column = target.positive.nonzero(as_tuple=True)  # [P] each
    losses = F.softplus(logits[row] - logits[row, column][:, None])  # [P, C]
    if gains is not None:
        losses = losses * (gains[row] - gains[row, column][:, None]).abs()
    negatives = (target.mask & ~target.positive)[row]  # [P, C]
    of_positives = torch.where(negatives, losses, 0).sum(1)  # [P]
    sums = logits.new_zeros(len(logits)).index_add(0, row, of_positives)  # [B]
    pairs = logits.new_zeros(len(logits)).index_add(0, row, negatives.sum(1).to(logits.dtype))
    return (sums / pairs.clamp(min=1)).mean()
