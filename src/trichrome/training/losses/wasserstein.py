"""The Wasserstein distance between the scores of a batch and its grades (SyCL, arXiv 2503.23239)."""

from __future__ import annotations

import torch
from torch import Tensor

from trichrome.errors import TrichromeError
from trichrome.training.losses.infonce import softmax_counted
from trichrome.training.target import Target


def wasserstein(
    scores: Tensor, target: Target, *, temperature: float = 0.02, teacher_temperature: float = 1.0
) -> Tensor:
    """‖μ_X − μ_Y‖² + Tr(Σ_X + Σ_Y − 2 (Σ_X Σ_Y)^½) → scalar: the squared Wasserstein-2 distance of Gaussians.

    scores [B, C] raw. X = softmax(scores / τ) and Y = softmax(teacher / τ_t) [B, C], over the passages that
    count for a query; their rows are taken for draws of two Gaussians with means μ [C] and covariances
    Σ [C, C] (sums over B − 1). For relevance in several grades, such as 3 … 0, which stand where a teacher's
    scores do: a passage that has none counts as 0, so give grades ≥ 0. All queries are compared at once; a
    query without any grade is left out, and where none has one the loss is 0.

    Nothing as large as [C, C] is made: with centred rows A and B divided by √(B − 1), Tr Σ = ‖A‖² and
    Tr (Σ_X Σ_Y)^½ is the sum of the singular values of A Bᵀ [B, B]. In float64, since it is a small
    difference of traces.
    """
    if target.teacher is None:
        raise TrichromeError("no grades in the data: give them as pos_scores and neg_scores")
    graded = (~target.teacher.isnan() & target.mask).any(1)  # [B]
    if not bool(graded.any()):
        return scores.sum() * 0
    mask = target.mask[graded]
    grades = target.teacher[graded].nan_to_num().double() / teacher_temperature
    made = softmax_counted(scores[graded].double() / temperature, mask)  # X
    wanted = softmax_counted(grades, mask)  # Y
    means = (made.mean(0) - wanted.mean(0)).square().sum()
    spread = max(1, len(made) - 1) ** 0.5
    a, b = (made - made.mean(0)) / spread, (wanted - wanted.mean(0)) / spread  # [B, C]
    values = torch.linalg.svdvals(a @ b.T)  # [B]
    # those that are 0 but for rounding have no direction: centred rows always have one such
    shared = values[values > values.detach()[0] * 1e-9].sum()
    squared: Tensor = means + a.square().sum() + b.square().sum() - 2 * shared
    return squared.to(torch.promote_types(scores.dtype, torch.float32))
