"""Planted false negatives: of a query's several answers one is its label, the others are known to us alone.

Q queries · n candidates of each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trichrome.negatives.filters import too_high
from trichrome.negatives.settings import Rules
from trichrome.papers.pattern.collection import Split
from trichrome.papers.pattern.mining import unanswering
from trichrome.papers.pattern.towers import Tower, vectors
from trichrome.papers.pattern.training import Read, Rows

Masks = NDArray[np.bool_]


def one_label(read: Read, seed: int) -> Read:
    """The same with one answer of each training query, drawn by the seed; its others are planted."""
    draw = np.random.default_rng(seed)
    train = read.collection.train
    labelled = Split(train.texts, [draw.choice(answers, 1) for answers in train.answers])
    return replace(read, collection=replace(read.collection, train=labelled))


@dataclass(frozen=True)
class Judged:
    """Mined candidates. rows [Q, n]: the best first. scores [Q, n] and labels [Q, 1]: of candidates and of
    the query's label. planted [Q, n]: which answer the query, though no label says so."""

    rows: Rows
    scores: NDArray[np.float32]
    labels: NDArray[np.float32]
    planted: Masks

    @classmethod
    def by(cls, tower: Tower, labelled: Read, known: Read, depth: int) -> Judged:
        """What a tower finds, and how it scores that. known: with all answers."""
        queries, passages = vectors(tower, labelled.queries), vectors(tower, labelled.passages)
        rows = unanswering(labelled, queries, passages, depth)
        label = np.concatenate(labelled.collection.train.answers)
        return cls(
            rows,
            np.einsum("qd,qnd->qn", queries, passages[rows]),
            np.einsum("qd,qd->q", queries, passages[label])[:, None],
            known.collection.train.hits(rows),
        )

    def removed(self, rules: Rules) -> Masks:
        """[Q, n] what a filter takes away."""
        return np.stack([removed(s, p, rules) for s, p in zip(self.scores, self.labels, strict=True)])

    def kept(self, gone: Masks, most: int) -> Rows:
        """[Q, most] the best that are left, again where they are fewer; the last candidate, where none is."""
        made = []
        for rows, mask in zip(self.rows, gone, strict=True):
            left = rows[~mask][:most]
            made.append(np.resize(left if len(left) else rows[-1:], most))
        return np.stack(made)

    def shares(self, gone: Masks) -> Mapping[str, NDArray[np.float64]]:
        """Of each query with a planted answer among its candidates [Q']: the share removed of these (recall)
        and of the others."""
        some = self.planted.any(1)
        gone, planted = gone[some], self.planted[some]
        return {
            "recall": (gone & planted).sum(1) / planted.sum(1),
            "removed of the others": (gone & ~planted).sum(1) / (~planted).sum(1),
        }

    def precision(self, gone: Masks) -> float:
        """Of what is removed, the share that was planted; NaN where nothing is."""
        return float((gone & self.planted).sum() / gone.sum()) if gone.any() else float("nan")


def removed(scores: NDArray[np.float32], positive: NDArray[np.float32], rules: Rules) -> Masks:
    """[n] which candidates of a query the rules of `trichrome mine` take away, by their scores [n] and those
    of its positives [p]."""
    masks = [mask for _, mask in too_high(scores, positive, rules)]
    return np.asarray(np.any([np.zeros(len(scores), np.bool_), *masks], axis=0), np.bool_)
