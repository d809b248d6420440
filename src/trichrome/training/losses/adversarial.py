"""Learning to cheat a ranker: more probability for what it can't tell from the positive (AR2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trichrome.training.losses.distillation import known_scores
from trichrome.training.losses.infonce import float32_at_least, log_softmax_counted
from trichrome.training.target import Target


def adversarial(
    scores: Tensor, target: Target, *, temperature: float = 0.02, teacher_temperature: float = 1.0
) -> Tensor:
    """Σ_d log σ((t⁺ − t_d)/τ_t) · log p(d), with p = softmax(scores / τ) over the passages that the teacher
    scored; the mean over queries → scalar.

    scores [B, C] raw. The teacher is a ranker: the first factor is the log of how surely it puts the positive
    before d, so a passage weighs the more the less surely it does. The positive itself weighs log 2, as in
    the authors' code; of several positives t⁺ is the teacher's highest score. Beside a loss towards the same
    scores, such as `listwise_kl`, this finds the ranker's next hard negatives; alone it would learn to
    retrieve what the ranker gets wrong. Queries whose positive, or all else, has no score are left out; 0
    where all are. (Zhang et al. 2021, arXiv 2110.03611.)
    """
    teacher, known = known_scores(target)
    rows = (known & target.positive).any(1) & (known.sum(1) > 1)
    if not bool(rows.any()):
        return scores.sum() * 0
    teacher, known, positive = float32_at_least(teacher[rows]).detach(), known[rows], target.positive[rows]
    best = teacher.masked_fill(~(known & positive), -float("inf")).amax(1, keepdim=True)  # [B, 1]
    surely = F.logsigmoid((best - teacher) / teacher_temperature).masked_fill(~known, 0)  # [B, C], ≤ 0
    log_made = log_softmax_counted(float32_at_least(scores[rows]) / temperature, known)
    return (surely * log_made).sum(1).mean()
