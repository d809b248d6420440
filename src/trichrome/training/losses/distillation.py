"""Learning from a teacher's scores: their distribution, or the margins between them."""

from __future__ import annotations

import torch
from torch import Tensor

from trichrome.errors import TrichromeError
from trichrome.training.losses.infonce import float32_at_least, log_softmax_counted, softmax_counted
from trichrome.training.target import Target


def listwise_kl(
    scores: Tensor, target: Target, *, temperature: float = 0.02, teacher_temperature: float = 1.0
) -> Tensor:
    """KL(softmax(teacher / τ_t) ‖ softmax(scores / τ)), both over the passages that the teacher scored.

    scores [B, C] raw → scalar, the mean over queries. For the order within each query's own list; in-batch
    passages stay out of it (add InfoNCE for them). Queries with fewer than two scored passages have nothing
    to order and are left out; 0 where all are. (Hinton et al. 2015; RocketQAv2, arXiv 2110.07367.)
    """
    teacher, known = known_scores(target)
    return _divergence(scores, teacher / teacher_temperature, known, known, temperature)


def kl(
    scores: Tensor, target: Target, *, temperature: float = 0.02, teacher_temperature: float = 1.0
) -> Tensor:
    """The same, but the student's softmax is over all passages that count for the query.

    Those that the teacher did not score should get no probability: InfoNCE with soft labels, which pushes
    in-batch passages away as it orders the scored ones.
    """
    teacher, known = known_scores(target)
    return _divergence(scores, teacher / teacher_temperature, known, target.mask, temperature)


def margin_mse(scores: Tensor, target: Target, *, scale: float = 1.0) -> Tensor:
    """Mean of ((s⁺ − s⁻) − (t⁺ − t⁻))² over every positive and negative of one query that the teacher scored.

    scores [B, C] raw → scalar; 0 where there is no such pair. scale: multiplies the student's scores, for a
    teacher whose scores span more than cosines do. (Hofstätter et al. 2020, arXiv 2010.02666.)
    """
    teacher, known = known_scores(target)
    positive, negative = known & target.positive, known & ~target.positive
    error = (float32_at_least(scores) * scale - teacher).masked_fill(~known, 0)  # [B, C]
    # a pair's error is the difference of its two; taking the row's mean off keeps the squares below small
    counted = known.sum(1, keepdim=True).clamp(min=1)
    error = (error - error.sum(1, keepdim=True) / counted).masked_fill(~known, 0)
    # Σ over pairs of (e⁺ − e⁻)² = n⁻ Σ e⁺² + n⁺ Σ e⁻² − 2 Σ e⁺ Σ e⁻, without a tensor of pairs
    up, down = error * positive, error * negative  # [B, C]
    n_up, n_down = positive.sum(1), negative.sum(1)  # [B]
    squares = n_down * up.square().sum(1) + n_up * down.square().sum(1) - 2 * up.sum(1) * down.sum(1)
    return squares.sum() / (n_up * n_down).sum().clamp(min=1)


def _divergence(
    scores: Tensor, teacher: Tensor, known: Tensor, counted: Tensor, temperature: float
) -> Tensor:
    """All [B, C] → KL of the teacher's softmax over `known` from the student's over `counted`."""
    rows = known.sum(1) > 1
    if not bool(rows.any()):
        return scores.sum() * 0
    wanted = softmax_counted(float32_at_least(teacher[rows]).detach(), known[rows])
    log_wanted = torch.where(wanted > 0, wanted, 1).log()
    log_made = log_softmax_counted(float32_at_least(scores[rows]) / temperature, counted[rows])
    return (wanted * (log_wanted - log_made)).sum(1).mean()


def known_scores(target: Target) -> tuple[Tensor, Tensor]:
    """The teacher's scores, 0 where it gave none, and where it gave one that counts: [B, C] twice."""
    if target.teacher is None:
        raise TrichromeError("no teacher's scores in the data: `trichrome score` adds them")
    return target.teacher.nan_to_num(), ~target.teacher.isnan() & target.mask
