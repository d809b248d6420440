"""In which order candidates are taken: the highest first, at random, or in turn from bins of the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trichrome.negatives.settings import Draw


def drawn(
    scores: NDArray[np.float32], draw: Draw, bins: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """[n] positions of the candidates in the order in which they are taken.

    scores: [n], higher is taken sooner by "top" (ties in the order given). "bins" cuts the range from the
    lowest to the highest score into equal parts and takes one of each in turn, from the highest part down,
    at random within a part; a part that is used up is passed over.
    """
    if draw == "top":
        return np.argsort(-scores, kind="stable")
    shuffled = random.permutation(len(scores))
    if draw == "random" or len(scores) == 0:
        return shuffled
    low, high = float(scores.min()), float(scores.max())
    width = (high - low) / bins or 1.0
    part = np.minimum(((scores - low) / width).astype(np.int64), bins - 1)[shuffled]  # 0 is the lowest
    turn = np.empty(len(scores), np.int64)  # how many of its part came before
    for p in range(bins):
        of_part = np.flatnonzero(part == p)
        turn[of_part] = np.arange(len(of_part))
    return shuffled[np.lexsort((-part, turn))]
