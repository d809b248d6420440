"""Which candidates are false negatives: passages that answer the query, or may."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trichrome.negatives.pool import Pool, Rows, Scores, plain
from trichrome.negatives.settings import Rules
from trichrome.records import TrainingExample

#: The rules in the order in which they are applied; what two of them remove counts for the first.
RULES = (
    "own positive",
    "own negative",
    "same query",
    "same id",
    "same text",
    "absolute margin",
    "relative margin",
    "adaptive margin",
    "ceiling",
    "rescored absolute margin",
    "rescored relative margin",
    "rescored adaptive margin",
    "rescored ceiling",
)

Mask = NDArray[np.bool_]


class PairScorer(Protocol):
    """Scores a query with a passage: a cross-encoder, say."""

    @property
    def name(self) -> str: ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """[n] one score a (query, passage), higher is better."""


@dataclass(frozen=True)
class Answers:
    """What rows with the same query know together: a passage that answers it in one row answers it in all.

    texts: their positives. keys: "doc:ID" of the positives and "row:ID" of the rows.
    """

    texts: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


def keys_of(example: TrainingExample) -> frozenset[str]:
    """The keys under which a passage is about what this row is about."""
    rows = [] if example.id is None else [f"row:{example.id}"]
    return frozenset([*rows, *(f"doc:{id}" for id in example.positive_ids or ())])


def shared_answers(examples: Iterable[TrainingExample]) -> Mapping[str, Answers]:
    """The query (see `plain`) → what all rows know of it."""
    found: dict[str, Answers] = {}
    for example in examples:
        query = plain(example.query)
        known = found.get(query, Answers())
        found[query] = Answers(known.texts | set(example.positives), known.keys | keys_of(example))
    return found


def known_answers(
    pool: Pool, example: TrainingExample, answers: Mapping[str, Answers], rows: Rows
) -> Iterator[tuple[str, Mask]]:
    """(rule, [n] which of the candidate rows it removes) for the rules that need no score."""
    own = [
        row
        for i, text in enumerate(example.positives)
        for row in pool.rows_of(text, _id(example, i)).tolist()
    ]
    yield "own positive", np.isin(rows, own)
    mine = [row for text in example.negatives for row in pool.rows_of(text, None).tolist()]
    yield "own negative", np.isin(rows, mine)
    shared = answers.get(plain(example.query), Answers())
    keys, others = keys_of(example), shared.keys - keys_of(example)
    texts = shared.texts - set(example.positives)
    of_others = pool.alike(rows, pool.with_keys(others)) if others else np.zeros(len(rows), np.bool_)
    yield "same query", of_others | pool.same_text(rows, texts) if texts else of_others
    yield "same id", pool.alike(rows, pool.with_keys(keys))
    yield "same text", pool.same_text(rows, [*example.positives, example.query])


def _id(example: TrainingExample, i: int) -> str | None:
    return None if example.positive_ids is None else example.positive_ids[i]


def too_high(scores: Scores, positives: Scores, rules: Rules, prefix: str = "") -> Iterator[tuple[str, Mask]]:
    """(rule, [n] which candidates it removes) by their scores [n] and those of the query's positives [p].

    A NaN, as a rescorer may give, is no ground to trust a candidate: it is removed.
    """
    lowest = float(positives.min())
    limits = {
        "absolute margin": None if rules.absolute_margin is None else lowest - rules.absolute_margin,
        "relative margin": None
        if rules.relative_margin is None
        else lowest - (1 - rules.relative_margin) * abs(lowest),
        "adaptive margin": None
        if rules.adaptive_margin is None
        else lowest - rules.adaptive_margin * spread(scores),
        "ceiling": rules.ceiling,
    }
    for name, limit in limits.items():
        if limit is not None:
            yield prefix + name, ~(scores <= np.float32(limit))


def spread(scores: Scores) -> float:
    """The standard deviation of scores [n], those that are no numbers aside; 0 for fewer than two."""
    known = scores[np.isfinite(scores)].astype(np.float64)
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0
