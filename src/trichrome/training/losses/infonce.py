"""InfoNCE (van den Oord et al. 2018; in retrieval DPR, Karpukhin et al. 2020)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trichrome.training.target import Target


def infonce(
    scores: Tensor,
    target: Target,
    *,
    temperature: float = 0.02,
    positives: Literal["each", "joint"] = "each",
    both_directions: bool = False,
) -> Tensor:
    """-log exp(s⁺/τ) / Σ exp(s/τ) over the passages that count for a query; mean over queries → scalar.

    scores [B, C] raw. positives, where a query has several: "each" takes the mean of one loss a positive,
    each against the negatives alone, so that positives don't compete (DPR with several positives);
    "joint" takes -log of the probability of all positives together. With one positive they are the same.
    both_directions: the mean of this and of the passage-to-query loss, in which every positive passage
    must find its query among those for which it counts.
    """
    logits = float32_at_least(scores) / temperature
    loss = _rows(logits, target.positive, target.mask, positives).mean()
    if not both_directions:
        return loss
    answers = target.positive.any(0)  # [C]: hard negatives look for no query
    columns = logits[:, answers].T, target.positive[:, answers].T, target.mask[:, answers].T
    return (loss + _rows(*columns, positives).mean()) / 2


def infonce_each(scores: Tensor, target: Target, *, temperature: float = 0.02) -> Tensor:
    """The same for each query alone: [B, C] → [B], several positives taken one at a time."""
    return _rows(float32_at_least(scores) / temperature, target.positive, target.mask, "each")


def _rows(logits: Tensor, positive: Tensor, mask: Tensor, positives: str) -> Tensor:
    """All [B, C]; every row has a positive → [B]."""
    if positives == "joint":
        of_all = logits.masked_fill(~mask, -torch.inf).logsumexp(1)  # [B]
        return of_all - logits.masked_fill(~positive, -torch.inf).logsumexp(1)
    if positives != "each":
        raise ValueError(f"positives must be 'each' or 'joint', got {positives!r}")
    # a query without a negative has the loss 0; -inf instead of a large number would make its gradient NaN
    nothing = torch.finfo(logits.dtype).min / 2
    negatives = logits.masked_fill(positive | ~mask, nothing).logsumexp(1, keepdim=True)  # [B, 1]
    losses = F.softplus(negatives - logits).masked_fill(~positive, 0)  # [B, C]
    return losses.sum(1) / positive.sum(1)


def float32_at_least(scores: Tensor) -> Tensor:
    """Scores divided by a small temperature need more digits than half precision has."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def log_softmax_counted(logits: Tensor, mask: Tensor) -> Tensor:
    """[B, C] → log softmax over the passages that count; 0 (not -inf) at the others."""
    return logits.masked_fill(~mask, -torch.inf).log_softmax(1).masked_fill(~mask, 0)


def softmax_counted(logits: Tensor, mask: Tensor) -> Tensor:
    """[B, C] → softmax over the passages that count; 0 at the others."""
    return logits.masked_fill(~mask, -torch.inf).softmax(1)
