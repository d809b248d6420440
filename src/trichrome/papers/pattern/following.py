"""Training a query tower alone: on how an index of documents ranks at each step, or towards known vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome.papers.pattern.towers import Texts, Tower
from trichrome.papers.pattern.training import Loss, Plan, Read, set_rate, shuffled
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
    train, draw = read.collection.train, np.random.default_rng(plan.seed)
    order = shuffled(len(train), plan.rows)
    own = [p for p in tower.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(own, lr=plan.rate, weight_decay=0.01, fused=True)
    for parameter in index.parameters():
        optimiser.add_param_group({"params": [parameter], "weight_decay": 0.0})
    losses = []
    for step in range(plan.steps):
        rows = order(step, draw)
        queries = tower([read.queries[i] for i in rows])  # [B, D]
        documents, target = with_answers(index.nearest(queries, depth), [train.answers[i] for i in rows])
        value = loss(index(queries, documents), target)
        set_rate(optimiser, plan, step)
        for group in optimiser.param_groups[1:]:
            group["lr"] *= share
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
        losses.append(value.item())
    return losses


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
    draw, order = np.random.default_rng(plan.seed), shuffled(len(texts), plan.rows)
    own = [p for p in tower.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(own, lr=plan.rate, weight_decay=0.01, fused=True)
    losses = []
    for step in range(plan.steps):
        rows = order(step, draw)  # [B]
        value = loss(tower([texts[i] for i in rows]), torch.from_numpy(wanted[rows]))
        set_rate(optimiser, plan, step)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
        losses.append(value.item())
    return losses
