"""Shuffled orders that are computed place by place, so that shuffling needs no memory.

A keyed Feistel network is a bijection of the numbers below a power of four; walking its cycles until a number
lies below n makes it one of the numbers below n (Black and Rogaway 2002, "Ciphers with arbitrary finite
domains"). It shuffles ten million rows, or asks for row 7,654,321 of that order, without a list of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
#: Up to so many numbers, a list of them is cheaper.
_LISTED = 1 << 12


def permuted(places: NDArray[np.int64], n: int, key: Sequence[int]) -> NDArray[np.int64]:
    """The numbers at `places` [k] of a shuffled 0 … n-1. The same key (integers ≥ 0), the same order."""
    if len(places) and (places.min() < 0 or places.max() >= n):
        raise IndexError(f"places must lie in 0 … {n - 1}")
    if n <= _LISTED:
        return np.random.default_rng(list(key)).permutation(n)[places]
    half = np.uint64(((n - 1).bit_length() + 1) // 2)
    rounds = np.random.SeedSequence(list(key)).generate_state(_ROUNDS, np.uint64).astype(np.uint64)
    numbers = _feistel(places.astype(np.uint64), half, rounds)
    while (outside := numbers >= n).any():
        numbers[outside] = _feistel(numbers[outside], half, rounds)
    return numbers.astype(np.int64)


def permuted_groups(
    places: NDArray[np.int64], ends: NDArray[np.int64], key: Sequence[int]
) -> NDArray[np.int64]:
    """The same, of a shuffled order in which the numbers of each group stay together: group g is
    ends[g - 1] … ends[g] - 1 [G]. Groups are shuffled, and the numbers within each."""
    if len(places) and (places.min() < 0 or places.max() >= ends[-1]):
        raise IndexError(f"places must lie in 0 … {ends[-1] - 1}")
    sizes = np.diff(ends, prepend=0)
    order = permuted(np.arange(len(ends)), len(ends), key)  # [G]
    reached = np.cumsum(sizes[order])
    at = np.searchsorted(reached, places, side="right")  # [k]
    groups = order[at]
    within = places - reached[at] + sizes[groups]
    numbers = np.empty(len(places), np.int64)
    for group in np.unique(groups).tolist():
        mine = groups == group
        inside = permuted(within[mine], int(sizes[group]), (*key, group))
        numbers[mine] = ends[group] - sizes[group] + inside
    return numbers


def _feistel(numbers: NDArray[np.uint64], half: np.uint64, rounds: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """numbers [k] below 4^half → as many others below 4^half."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in rounds:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << half) | right


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the input sways every bit of the output (the finaliser of SplitMix64, Steele 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
