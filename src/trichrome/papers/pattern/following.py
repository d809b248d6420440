"""Training a query tower alone: on how an index of documents ranks at each step, or towards known vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trichrome.papers.pattern.towers import Texts, Tower
from trichrome.papers.pattern.training import Loss, Plan, Read, descend, shuffled
from trichrome.training.coded import DEPTH, CodedIndex, with_answers
from trichrome.training.frozen import FrozenIndex

Index: TypeAlias = "FrozenIndex | CodedIndex"


def follow(
    read: Read, tower: Tower, index: Index, plan: Plan, loss: Loss, *, share: float = 1.0, depth: int = DEPTH
) -> list[float]:
    """Train a query tower; returns the loss of each step.

    The loss sees each query's `depth` best documents by the tower and the index as they are, and its answers.
    The index's own parameters are trained with it where it has any, at `share` times the rate.
    """
    train = read.collection.train
    order = shuffled(len(train), plan.rows)

    def value(step: int, draw: np.random.Generator) -> Tensor:
        rows = order(step, draw)
        queries = tower([read.queries[i] for i in rows])  # [B, D]
        documents, target = with_answers(index.nearest(queries, depth), [train.answers[i] for i in rows])
        return loss(index(queries, documents), target)

    return descend(plan, tower.parameters(), value, index.parameters(), share)


def towards(
    tower: Tower,
    texts: Texts,
    wanted: NDArray[np.float32],
    plan: Plan,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> list[float]:
    """Train a tower so that each text's vector nears the wanted one [N, d]; returns the loss of each step.

    loss: (made, wanted), both [B, d] → scalar.
    """
    order = shuffled(len(texts), plan.rows)

    def value(step: int, draw: np.random.Generator) -> Tensor:
        rows = order(step, draw)  # [B]
        return loss(tower([texts[i] for i in rows]), torch.from_numpy(wanted[rows]))

    return descend(plan, tower.parameters(), value)
