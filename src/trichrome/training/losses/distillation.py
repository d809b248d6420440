"""Learning from a teacher's scores: KL over all passages that it scored, and the margins between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trichrome.errors import TrichromeError
from trichrome.training.losses.infonce import float32_at_least, log_softmax_counted, softmax_counted
from trichrome.training.target import Target


def kl(scores: Tensor, teacher: Tensor, mask: Tensor, *, temperature: float = 0.02) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(scores / τ)) over the passages of the mask; mean over queries → scalar.

    scores, teacher [B, C]; the teacher's at its own temperature (already divided), and without gradient.
    """
    logits = float32_at_least(scores) / temperature
    wanted = softmax_counted(float32_at_least(teacher).detach(), mask)  # [B, C]
    log_wanted = torch.where(wanted > 0, wanted, 1).log()
    return (wanted * (log_wanted - log_softmax_counted(logits, mask))).sum(1).mean()


def listwise_kl(
    scores: Tensor, target: Target, *, temperature: float = 0.02, teacher_temperature: float = 1.0
) -> Tensor:
    """KL towards the teacher's distribution over the passages that it scored (FlagEmbedding's distillation).

    Rows with fewer than two scored passages have nothing to rank and are left out; 0 where all are.
    """
    teacher, known = _known(target)
    rows = known.sum(1) > 1
    if not bool(rows.any()):
        return scores.sum() * 0
    return kl(scores[rows], teacher[rows] / teacher_temperature, known[rows], temperature=temperature)


def margin_mse(scores: Tensor, target: Target, *, scale: float = 1.0) -> Tensor:
    """Mean of ((s⁺ − s⁻) − (t⁺ − t⁻))² over every positive and negative that the teacher scored
    (Hofstätter et al. 2020, arXiv 2010.02666) → scalar. scale: of the student's scores."""
    teacher, known = _known(target)
    student = float32_at_least(scores) * scale
    pairs = (known & target.positive)[:, :, None] & (known & ~target.positive)[:, None]  # [B, C, C]
    if not bool(pairs.any()):
        return scores.sum() * 0
    wanted = teacher[:, :, None] - teacher[:, None]
    made = student[:, :, None] - student[:, None]
    return F.mse_loss(made[pairs], wanted[pairs])


def _known(target: Target) -> tuple[Tensor, Tensor]:
    """The teacher's scores, 0 where it gave none, and where it gave one: [B, C] twice."""
    if target.teacher is None:
        raise TrichromeError("no teacher's scores in the data: `trichrome score` adds them")
    known = ~target.teacher.isnan() & target.mask
    return target.teacher.nan_to_num(), known
