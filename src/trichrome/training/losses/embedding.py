"""Learning a teacher's outputs themselves, so that a small encoder can take a large one's place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trichrome.training.losses.infonce import float32_at_least


def embedding_match(
    made: Tensor, wanted: Tensor, mask: Tensor | None = None, *, mse: float = 1.0, cosine: float = 1.0
) -> Tensor:
    """mse · mean((made − wanted)²) + cosine · mean(1 − cos(made, wanted)), the mean over texts → scalar.

    made, wanted [N, d], the student's and the teacher's vectors; or [N, L, d] of tokens, with mask [N, L]:
    then the mean over each text's tokens, and over the texts that have any. The squares are averaged over d.
    (ScalingNote, arXiv 2411.15766, distils its query tower by these two.)

    Between unit vectors both are one loss: mean((a − b)²) = 2 (1 − cos) / d. Where a head does not bring its
    vectors to unit length, the squares teach the length too.
    """
    made, wanted = float32_at_least(made), float32_at_least(wanted)
    far = mse * (made - wanted).square().mean(-1) + cosine * (1 - F.cosine_similarity(made, wanted, dim=-1))
    return far.mean() if mask is None else mean_over_tokens(far, mask)


def weight_match(made: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """The mean square difference of two texts' token weights [N, L], over the tokens of the mask → scalar.

    For sparse outputs: the mean over each text's tokens, and over the texts that have any.
    """
    return mean_over_tokens((float32_at_least(made) - float32_at_least(wanted)).square(), mask)


def mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """[N, L] → scalar: the mean over each text's tokens, then over the texts; 0 where there are none."""
    counts = mask.sum(1)  # [N]
    means = values.masked_fill(~mask, 0).sum(1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)
