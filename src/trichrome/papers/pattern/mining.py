"""Negatives for training queries: what a tower ranks first and doesn't answer, or any passages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trichrome.papers.pattern.towers import Tower, nearest, vectors
from trichrome.papers.pattern.training import Negatives, Read, Rows


def hard(read: Read, tower: Tower, depth: int) -> Rows:
    """Each training query's first passages by a tower that don't answer it: [Q, depth], the best first."""
    return unanswering(read, vectors(tower, read.queries), vectors(tower, read.passages), depth)


def unanswering(read: Read, queries: NDArray[np.float32], passages: NDArray[np.float32], depth: int) -> Rows:
    """The same by vectors of the training queries [Q, d] and the passages [N, d]."""
    answers = read.collection.train.answers
    rows, _ = nearest(queries, passages, depth + max(map(len, answers)))
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
