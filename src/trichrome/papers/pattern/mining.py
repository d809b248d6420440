"""Negatives for training queries: what a tower ranks first and doesn't answer, or any passages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trichrome.papers.pattern.towers import Tower, nearest, vectors
from trichrome.papers.pattern.training import Negatives, Read, Rows


def hard(read: Read, tower: Tower, depth: int, passages: NDArray[np.float32] | None = None) -> Rows:
    """Each training query's first passages by a tower that don't answer it: [Q, depth], the best first.
    passages: their vectors by that tower, where they are known."""
    answers = read.collection.train.answers
    most = max(map(len, answers))
    if passages is None:
        passages = vectors(tower, read.passages)
    rows, _ = nearest(vectors(tower, read.queries), passages, depth + most)
    return np.stack([row[~np.isin(row, own)][:depth] for row, own in zip(rows, answers, strict=True)])


def drawn(mined: Rows, each: int) -> Negatives:
    """So many of each query's mined ones, at random."""

    def take(queries: Rows, draw: np.random.Generator) -> Rows:
        places = draw.integers(mined.shape[1], size=(len(queries), each))
        return np.take_along_axis(mined[queries], places, 1)

    return take


def anywhere(read: Read, each: int) -> Negatives:
    """So many of all passages, at random."""
    return lambda queries, draw: draw.integers(len(read.passages), size=(len(queries), each))
