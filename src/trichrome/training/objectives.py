"""A recipe's `objective` as losses: the ranking loss that it names, and what it adds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trichrome.training.encoded import Encoded
from trichrome.training.losses import (
    adversarial,
    flops,
    infonce,
    kl,
    lambda_rank,
    listwise_kl,
    mann_whitney,
    margin_mse,
    pairwise,
    wasserstein,
)
from trichrome.training.recipe import Objective
from trichrome.training.target import Target


def ranking_loss(objective: Objective, scores: Tensor, target: Target) -> Tensor:
    """`objective.ranking` of one output's raw scores [B, C] → scalar."""
    temperature = objective.temperature
    match objective.ranking:
        case "mann_whitney":
            return mann_whitney(scores, target, temperature=temperature)
        case "pairwise":
            return pairwise(scores, target, temperature=temperature)
        case "lambda_rank":
            return lambda_rank(scores, target, temperature=temperature, cut=objective.rank_cut)
        case "none":
            return scores.sum() * 0
    return infonce(scores, target, temperature=temperature, both_directions=objective.both_directions)


def extras(
    objective: Objective, scores: Mapping[str, Tensor], target: Target, queries: Encoded, passages: Encoded
) -> dict[str, Tensor]:
    """FLOPS, and what the data's teacher teaches, where the recipe asks for them: by name, with its weight,
    summed over the outputs."""
    made: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        made[name] = made[name] + value if name in made else value

    for weight, texts in ((objective.flops_queries, queries), (objective.flops_passages, passages)):
        if weight and texts.sparse_weights is not None:
            add("flops", weight * flops(texts.ids, texts.sparse_weights))
    if target.teacher is None:
        return made
    both = {"temperature": objective.temperature, "teacher_temperature": objective.teacher_temperature}
    for values in scores.values():
        if objective.teacher:
            add("teacher", objective.teacher * _towards_teacher(objective, values, target))
        if objective.adversarial:
            add("adversarial", objective.adversarial * adversarial(values, target, **both))
    return made


def _towards_teacher(objective: Objective, scores: Tensor, target: Target) -> Tensor:
    """The recipe's loss of one output towards the teacher's scores."""
    if objective.teacher_loss == "margin_mse":
        return margin_mse(scores, target, scale=1 / objective.temperature)
    loss = {"listwise_kl": listwise_kl, "kl": kl, "wasserstein": wasserstein}[objective.teacher_loss]
    temperatures = objective.temperature, objective.teacher_temperature
    return loss(scores, target, temperature=temperatures[0], teacher_temperature=temperatures[1])
