"""Losses of one query's revisions against each other: more feedback must not make it worse."""

from __future__ import annotations

from torch import Tensor

from trichrome.training.losses.infonce import float32_at_least


def comparative(losses: Tensor) -> Tensor:
    """max(0, L_more − L_less), the mean over queries and over pairs of revisions → scalar.

    losses [B, R]: each query's loss by R revisions of it, from less to more feedback. A regulariser beside
    their mean: a reviser that can tell what helps from what doesn't loses nothing when it is given more. 0
    for a single revision. Where a pair is in the wrong order, the gradient raises the loss with less feedback
    as much as it lowers that with more. (LoL, arXiv 2204.11545, section 3.)
    """
    values = float32_at_least(losses)
    more, less = values[:, None, :], values[:, :, None]
    later = values.new_ones(losses.shape[1], losses.shape[1]).triu(1)  # [R, R], of which the second is later
    if not later.any():
        return losses.sum() * 0
    return ((more - less).clamp(min=0) * later).sum() / (len(losses) * later.sum())
