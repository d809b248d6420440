"""Which of a row's passages are taken, and which of a batch's passages count against which query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trichrome.records import TrainingExample
from trichrome.training.target import Target


@dataclass(frozen=True)
class Drawn:
    """Which positives and which negatives of a row are taken, by their place among the row's."""

    positives: list[int]
    negatives: list[int]


def draw(
    positives: int,
    negatives: int,
    group_size: int,
    all_positives: bool,
    key: Sequence[int],
    *,
    scores: Sequence[float] | None = None,
    bins: int = 0,
) -> Drawn:
    """One positive of a row at random (or all), and negatives at random up to group_size passages.

    scores: a teacher's, of the row's negatives; with bins > 0 they are drawn evenly over them (`balanced`).
    A row with fewer negatives brings what it has. The same key, the same draw.
    """
    taken = positives if all_positives else 1
    room = min(max(0, group_size - taken), negatives)
    if taken == positives and room == negatives:  # nothing is left to chance
        return Drawn(list(range(positives)), list(range(negatives)))
    chance = np.random.default_rng(list(key))
    first = list(range(positives)) if all_positives else [int(chance.integers(positives))]
    if scores is not None and bins and room:
        return Drawn(first, sorted(balanced(np.asarray(scores, np.float64), room, bins, chance)))
    rest = sorted(chance.choice(negatives, room, replace=False).tolist()) if room else []
    return Drawn(first, rest)


def balanced(
    scores: NDArray[np.floating[Any]], count: int, bins: int, chance: np.random.Generator
) -> list[int]:
    """Places of `count` different scores [n], drawn evenly over bins of equal width between the least and the
    largest: each time one of the bins that still hold any, then one score in it.

    Of a teacher's scores of negatives, this balances the margins to the positive: a mined list has many of
    nearly the same margin, and few that are hard or easy (TAS-Balanced, arXiv 2104.06967, section 3.2).
    """
    width = np.ptp(scores) / bins if len(scores) else 0
    of = np.zeros(len(scores), np.int64) if width == 0 else ((scores - scores.min()) / width).astype(np.int64)
    of = np.minimum(of, bins - 1)  # the largest score belongs to the last bin
    held = [np.flatnonzero(of == b).tolist() for b in np.unique(of)]
    drawn: list[int] = []
    for _ in range(min(count, len(scores))):
        one = held[int(chance.integers(len(held)))]
        drawn.append(one.pop(int(chance.integers(len(one)))))
        held = [places for places in held if places]
    return drawn


@dataclass(frozen=True)
class Passage:
    """One passage of a batch. id: its document id, where known. score: a teacher's, where given."""

    text: str
    positive: bool
    id: str | None
    score: float | None


def passages_of(example: TrainingExample, drawn: Drawn) -> list[Passage]:
    """The drawn positives, then the drawn negatives."""
    return [
        *(_passage(example, "positive", i) for i in drawn.positives),
        *(_passage(example, "negative", i) for i in drawn.negatives),
    ]


def _passage(example: TrainingExample, kind: Literal["positive", "negative"], i: int) -> Passage:
    texts, ids, scores = (getattr(example, f"{kind}{end}") for end in ("s", "_ids", "_scores"))
    return Passage(texts[i], kind == "positive", ids[i] if ids else None, scores[i] if scores else None)


def target_of(
    examples: Sequence[TrainingExample], drawn: Sequence[Sequence[Passage]], in_batch: bool
) -> Target:
    """The target of B rows and the C passages drawn for them, row after row.

    A passage is no negative of a query where it has the id or the text of one of the query's positives
    (drawn or not), or is a positive of a row with the same id or the same query.
    """
    passages = [p for ps in drawn for p in ps]
    owner = np.repeat(np.arange(len(drawn)), [len(ps) for ps in drawn])  # [C]
    own = owner[None] == np.arange(len(drawn))[:, None]  # [B, C]
    positive = own & np.array([p.positive for p in passages])
    answers = _answers(examples, passages, owner)
    mask = (own | in_batch) & (~answers | positive)
    known = np.array([np.nan if p.score is None else p.score for p in passages], np.float32)  # [C]
    teacher = None if np.isnan(known).all() else torch.from_numpy(np.where(own, known, np.nan).astype("f4"))
    return Target(torch.from_numpy(positive), torch.from_numpy(mask), teacher)


def _answers(
    examples: Sequence[TrainingExample], passages: Sequence[Passage], owner: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """[B, C]: which passages answer which query, as far as the data tells.

    Columns are looked up by what they have in common with a query, so nothing is compared B times C times.
    """
    columns: dict[Hashable, list[int]] = defaultdict(list)
    for column, (passage, row) in enumerate(zip(passages, owner.tolist(), strict=True)):
        columns["text", passage.text].append(column)
        if passage.id is not None:
            columns["id", passage.id].append(column)
        if passage.positive:
            example = examples[row]
            columns["query", example.prompt, example.query].append(column)
            if example.id is not None:
                columns["row", example.id].append(column)
    answers = np.zeros((len(examples), len(passages)), bool)
    for row, example in enumerate(examples):
        shared: list[Hashable] = [("query", example.prompt, example.query), ("row", example.id)]
        shared += [("text", text) for text in example.positives]
        shared += [("id", id) for id in example.positive_ids or ()]
        for what in shared:
            answers[row, columns.get(what, [])] = True
    return answers
