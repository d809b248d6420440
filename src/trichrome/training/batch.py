"""One batch as the loop takes it: tokens of queries and passages, and what they are trained towards."""

from __future__ import annotations

from dataclasses import dataclass

from trichrome.encoder.tokenizer import Tokens
from trichrome.training.target import Target


@dataclass(frozen=True)
class TrainingBatch:
    """B queries and C passages (each example's positives, then its negatives, in the order of the queries).

    task: the data set or task the batch is of. rows: the B examples' numbers in the data.
    cut: how many of the texts were cut to the lengths that are trained on. unscored: rows whose negatives
    should have been drawn by a teacher's scores, and were drawn at random since the data has none.
    """

    queries: list[Tokens]
    passages: list[Tokens]
    target: Target
    task: str
    rows: list[int]
    cut: int = 0
    unscored: int = 0

    @property
    def tokens(self) -> int:
        """Real tokens, without padding."""
        return sum(len(t.ids) for t in (*self.queries, *self.passages))
