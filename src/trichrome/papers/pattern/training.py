"""Training of towers on a collection, and how well they retrieve: the loop that rows share.

B queries of a batch · C passages: one answer of each query, then n negatives of each · S [B, C]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome.encoder.tokenizer import Tokens
from trichrome.evaluation.metrics import METRICS_DEPTH, per_query
from trichrome.evaluation.rankings import Rankings
from trichrome.papers.pattern.collection import Collection, Split
from trichrome.papers.pattern.paper import Scale
from trichrome.papers.pattern.towers import (
    SHALLOW,
    BagTower,
    EncoderTower,
    Tower,
    nearest,
    tokenize,
    vectors,
)
from trichrome.training.shuffle import permuted_groups
from trichrome.training.target import Target

Rows: TypeAlias = "NDArray[np.int64]"
#: S [B, C] and its target, or one target a teacher → scalar.
Loss: TypeAlias = "Callable[..., Tensor]"
#: Rows of training queries [B] and of passages [C] → [B, C] a teacher's scores, NaN where it gives none.
Teacher: TypeAlias = "Callable[[Rows, Rows], NDArray[np.float32]]"
#: Rows of training queries [B] → rows of passages [B, n], their negatives.
Negatives: TypeAlias = "Callable[[Rows, np.random.Generator], Rows]"
#: The queries of a step, by rows [B].
Order: TypeAlias = "Callable[[int, np.random.Generator], Rows]"


@dataclass(frozen=True)
class Read:
    """A collection in tokens. queries, tests, passages: in the collection's order."""

    collection: Collection
    queries: list[Tokens]
    tests: list[Tokens]
    passages: list[Tokens]

    @classmethod
    def of(cls, collection: Collection, query_tokens: int = 32, passage_tokens: int = 64) -> Read:
        """Tokenised, and cut."""
        return cls(
            collection,
            tokenize(collection.train.texts, "query", query_tokens),
            tokenize(collection.test.texts, "query", query_tokens),
            tokenize(collection.passages, "passage", passage_tokens),
        )

    def tower(self, scale: Scale, seed: int, layers: int | None = SHALLOW) -> Tower:
        """A tower to train: of word vectors at scale mini, so many of the base's layers at small, where None
        and at gpu the base itself. Only the base has learnt to retrieve."""
        if scale != "mini":
            return EncoderTower.of_layers(None if scale == "gpu" else layers)
        return BagTower([i for t in self.queries + self.tests + self.passages for i in t.ids], seed=seed)


@dataclass(frozen=True)
class Plan:
    """steps of `rows` queries each. rate: of AdamW, with a warm-up over a tenth and a linear fall."""

    steps: int
    rows: int
    rate: float
    seed: int


def target_of(split: Split, queries: Rows, passages: Rows, given: Rows) -> Target:
    """For queries [B] and passages [C]: positive is given[b], the column of b's answer; other answers of a
    query are masked."""
    answers = split.hits_of(queries, passages)  # [B, C]
    positive = np.zeros_like(answers)
    positive[np.arange(len(queries)), given] = True
    return Target(torch.from_numpy(positive), torch.from_numpy(positive | ~answers))


def fit(
    read: Read,
    query_tower: Tower,
    passage_tower: Tower,
    plan: Plan,
    loss: Loss,
    *,
    negatives: Negatives | None = None,
    order: Order | None = None,
    in_batch: bool = True,
    teachers: Sequence[Teacher] = (),
) -> list[float]:
    """Train both towers (one, where they are the same); returns the loss of each step.

    negatives: hard ones for each query; in-batch passages serve besides, unless in_batch is False. order:
    which queries share a step; at random, without repetition in an epoch, where None. teachers: the loss is
    given one target for each, with its scores.
    """
    split = read.collection.train
    turn = order or shuffled(len(split), plan.rows)

    def value(step: int, draw: np.random.Generator) -> Tensor:
        queries = turn(step, draw)  # [B]
        chosen = np.array([draw.choice(split.answers[q]) for q in queries])
        extra = np.empty((len(queries), 0), np.int64) if negatives is None else negatives(queries, draw)
        passages = np.concatenate([chosen, extra.ravel()])  # [C]
        target = target_of(split, queries, passages, np.arange(len(queries)))
        if not in_batch:
            target = Target(target.positive, target.mask & _own(len(queries), extra.shape[1]))
        known = [torch.from_numpy(scores(queries, passages)) for scores in teachers]
        targets = [Target(target.positive, target.mask, scores) for scores in known] or [target]
        q = query_tower([read.queries[i] for i in queries])  # [B, d]
        p = passage_tower([read.passages[i] for i in passages])  # [C, d]
        return loss(q @ p.T, *targets)

    modules = {id(t): t for t in (query_tower, passage_tower)}.values()
    return descend(plan, [p for tower in modules for p in tower.parameters()], value)


def descend(
    plan: Plan,
    parameters: Iterable[nn.Parameter],
    value: Callable[[int, np.random.Generator], Tensor],
    beside: Iterable[nn.Parameter] = (),
    share: float = 1.0,
) -> list[float]:
    """AdamW on those parameters that are trained, a plan's steps; returns the loss of each.

    value: the loss of a step, by its number and the plan's random numbers. beside: parameters that are
    trained at `share` times the rate, and neither decayed nor clipped.
    """
    own = [p for p in parameters if p.requires_grad]
    draw = np.random.default_rng(plan.seed)
    optimiser = torch.optim.AdamW(own, lr=plan.rate, weight_decay=0.01, fused=True)
    for parameter in beside:
        optimiser.add_param_group({"params": [parameter], "weight_decay": 0.0})
    losses = []
    for step in range(plan.steps):
        made = value(step, draw)
        rate = plan.rate * (min(1.0, (step + 1) / max(1, plan.steps // 10)) * (1 - step / plan.steps))
        for i, group in enumerate(optimiser.param_groups):
            group["lr"] = rate * (share if i else 1.0)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(made)
        nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
        losses.append(made.item())
    return losses


def shuffled(count: int, rows: int) -> Order:
    """Every query once an epoch, in an order that the seed decides."""
    waiting: list[int] = []

    def take(step: int, draw: np.random.Generator) -> Rows:
        while len(waiting) < rows:
            waiting.extend(draw.permutation(count).tolist())
        taken = waiting[:rows]
        del waiting[:rows]
        return np.array(sorted(set(taken)))

    return take


def by_topic(labels: NDArray[np.int64], rows: int) -> Order:
    """Queries of one topic [N] share a step, topics and the queries of each in random order; a step is filled
    up from the next topic where one ends. Queries that fill no step wait for another epoch."""
    sorted_by = np.argsort(labels, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(labels[sorted_by])) + 1, len(labels))
    waiting: list[Rows] = []

    def take(step: int, draw: np.random.Generator) -> Rows:
        if not waiting:
            order = permuted_groups(np.arange(len(labels)), ends, (int(draw.integers(1 << 31)),))
            steps = len(labels) // rows
            waiting.extend(draw.permutation(sorted_by[order][: steps * rows].reshape(steps, rows)))
        return waiting.pop()

    return take


def search(read: Read, query_tower: Tower, passage_tower: Tower, k: int = METRICS_DEPTH) -> Rows:
    """The k best passages of each test query: [Q, k]."""
    return nearest(vectors(query_tower, read.tests), vectors(passage_tower, read.passages), k)[0]


def quality(
    split: Split, found: Rows, grades: Sequence[Mapping[int, int]] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Rows of passages [Q, K], best first → metric → [Q], by ir-measures. grades: of each query, row of a
    passage → its gain; where None, 1 for an answer."""
    if grades is None:
        grades = [dict.fromkeys(answers.tolist(), 1) for answers in split.answers]
    ids = [str(i) for i in range(len(split))]
    passages = [str(i) for i in range(int(found.max()) + 1)]
    falling = np.arange(found.shape[1], 0, -1, dtype=np.float32)
    run = Rankings.from_rows(ids, passages, [(row, falling) for row in found])
    qrels = {i: {str(p): g for p, g in of.items()} for i, of in zip(ids, grades, strict=True)}
    return per_query(qrels, run, ids)


def within(k: int, read: Read, tower: Tower, passages: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a test query has an answer among the first k of the passages' vectors [N, d]: [Q]."""
    rows, _ = nearest(vectors(tower, read.tests), passages, k)
    return np.asarray(read.collection.test.hits(rows).any(1))


def mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """In points."""
    return 100 * float(np.mean(values))


def _own(rows: int, each: int) -> Tensor:
    """[B, B + B·n]: a query's own answer and negatives."""
    eye = torch.eye(rows, dtype=torch.bool)
    return torch.cat([eye, eye.repeat_interleave(each, 1)], 1)
