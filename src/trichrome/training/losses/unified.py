"""The objective of M3-Embedding: three heads and their sum, which teaches each (arXiv 2402.03216 v4, 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from trichrome.embeddings import SIGNALS
from trichrome.training.losses.infonce import (
    float32_at_least,
    infonce,
    log_softmax_counted,
    softmax_counted,
)
from trichrome.training.target import Target


def unified(
    scores: Mapping[str, Tensor],
    target: Target,
    *,
    temperature: float = 0.02,
    mix: Sequence[float] = (1.0, 0.3, 1.0),
    weights: Sequence[float] = (1.0, 0.1, 1.0),
    distil: bool = True,
    distil_weights: Sequence[float] = (1.0, 0.1, 1.0),
    positives: Literal["each", "joint"] = "each",
) -> dict[str, Tensor]:
    """Self-knowledge distillation over raw scores [B, C] by signal → scalars by name, to minimise: total.

        s_inter = w1·s_dense + w2·s_sparse + w3·s_multivector                       mix
        L  = (λ1·L_dense + λ2·L_sparse + λ3·L_multivector + L_inter) / 4             weights
        L' = (λ1·L'_dense + λ2·L'_sparse + λ3·L'_multivector) / 3                    distil_weights
        total = (L + L') / 2                                                         distil, otherwise L

    L_* is InfoNCE at `temperature`, which divides every score before they are mixed; L'_* is the cross
    entropy of a signal's softmax towards that of s_inter, detached, over the passages that count. The keys
    dense, sparse, multivector, inter hold L_*, distil_dense, distil_sparse, distil_multivector hold L'_*,
    without their weights. `mix`, `weights` and `distil_weights` are in the order dense, sparse, multivector.

    With two signals the sums and their divisors (3 and 2) have the terms that are there. With one there is
    nothing to mix and nothing to learn from: total is its InfoNCE, whatever the weights.
    """
    unknown = set(scores) - set(SIGNALS)
    if unknown or not scores:
        raise ValueError(f"scores must be of {', '.join(SIGNALS)}; got {', '.join(scores) or 'none'}")
    signals = [s for s in SIGNALS if s in scores]
    logits = {s: float32_at_least(scores[s]) / temperature for s in signals}
    losses = {s: infonce(x, target, temperature=1, positives=positives) for s, x in logits.items()}
    if len(signals) == 1:
        return {**losses, "total": losses[signals[0]]}

    w, lambdas = (dict(zip(SIGNALS, x, strict=True)) for x in (mix, weights))
    inter = _sum([w[s] * logits[s] for s in signals])  # [B, C]
    losses["inter"] = infonce(inter, target, temperature=1, positives=positives)
    total = _sum([*(lambdas[s] * losses[s] for s in signals), losses["inter"]]) / (len(signals) + 1)
    if distil:
        teacher = softmax_counted(inter.detach(), target.mask)  # [B, C]
        lambdas = dict(zip(SIGNALS, distil_weights, strict=True))
        for s in signals:
            log_student = log_softmax_counted(logits[s], target.mask)  # [B, C]
            losses[f"distil_{s}"] = -(teacher * log_student).sum(1).mean()
        taught = _sum([lambdas[s] * losses[f"distil_{s}"] for s in signals]) / len(signals)
        total = (total + taught) / 2
    losses["total"] = total
    return losses


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
