"""The Mann-Whitney loss: every positive above every negative, whichever query a negative belongs to."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trichrome.training.losses.infonce import float32_at_least
from trichrome.training.target import Target


def mann_whitney(scores: Tensor, target: Target, *, temperature: float = 0.01) -> Tensor:
    """-log σ((s⁺ − s⁻)/τ), averaged over all pairs of a positive and a negative of the whole batch → scalar.

    scores [B, C] raw. A score that holds for every query alike is trained: one threshold can then part what
    answers from what doesn't. InfoNCE compares within a query only, and is the same whatever is added to a
    query's scores; this is not. The loss divided by ln 2 bounds the area over the ROC curve of the batch.

    The paper sums over negatives where this takes the mean: the same minimum, with gradients that don't grow
    with the batch. Memory: one number for each pair, positives × negatives.
    """
    logits = float32_at_least(scores) / temperature
    positives = logits[target.positive]  # [P]
    negatives = logits[target.mask & ~target.positive]  # [N]
    if not len(negatives):
        return scores.sum() * 0
    return F.softplus(negatives[None, :] - positives[:, None]).mean()
