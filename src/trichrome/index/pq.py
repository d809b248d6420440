"""Product quantisation: a vector as the numbers of a few centroids, scored by looking up a table.

    n vectors of width D · M pieces of w numbers each (M·w ≥ D, zeros fill up) · K ≤ 256 centroids a piece

A vector is rotated and cut into M pieces, and each is stored as the number of its nearest centroid: M bytes.
A query is not rounded (asymmetric distances): its products with all centroids are a table [M, K], and a
vector's score is the sum of M of its entries. (Jégou, Douze and Schmid, IEEE TPAMI 2011.)

The rotation spreads what the vectors differ in evenly over the pieces and then lets it and the centroids
follow each other (optimised product quantisation: Ge, He, Ke and Sun, CVPR 2013, section 4 for where it
starts and section 3 for its rounds).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trichrome.embeddings import Floats
from trichrome.errors import TrichromeError
from trichrome.storage import load_arrays, save_arrays

#: Of bytes (uint8); NDArray[Any], for stores keep them where vectors are.
Codes: TypeAlias = NDArray[Any]
Table: TypeAlias = NDArray[np.float32]

#: Numbers of a piece unless the caller says otherwise: a 32nd of the bytes of float32.
WIDTH = 8
#: Centroids that a byte can name.
MOST_CENTROIDS = 256
#: Vectors that a quantiser is trained on at most: 64 for each centroid.
SAMPLE = 1 << 14
#: Rounds of training. More hardly lower the error.
ROUNDS = 12
#: Vectors that a centroid should stand for: with fewer it would remember them. But some are needed at all.
_LEAST_EACH, _LEAST_CENTROIDS = 8, 16
_BLOCK = 1 << 14


@dataclass(frozen=True)
class ProductQuantiser:
    """rotation: [D, M·w] float32 with orthonormal rows, so that products of rotated vectors are those of the
    vectors. centroids: [M, K, w] float32."""

    rotation: NDArray[np.float32]
    centroids: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, array, axes in (("rotation", self.rotation, 2), ("centroids", self.centroids, 3)):
            if array.dtype != np.float32 or array.ndim != axes:
                raise ValueError(f"{name}: {array.dtype} of shape {array.shape}")
        pieces, count, width = self.centroids.shape
        if not 1 <= count <= MOST_CENTROIDS or self.rotation.shape[1] != pieces * width:
            raise ValueError(f"rotation {self.rotation.shape} and centroids {self.centroids.shape} differ")

    @property
    def dim(self) -> int:
        """D."""
        return int(self.rotation.shape[0])

    @property
    def pieces(self) -> int:
        """M, the bytes of a vector."""
        return int(self.centroids.shape[0])

    def encode(self, vectors: Floats) -> Codes:
        """[n, D] → [n, M], in each piece the nearest centroid."""
        codes = np.empty((len(vectors), self.pieces), np.uint8)
        for start in range(0, len(vectors), _BLOCK):
            turned = np.asarray(vectors[start : start + _BLOCK], np.float32) @ self.rotation
            for m, part in enumerate(_cut(turned, self.pieces)):
                codes[start : start + len(part), m] = _nearest(part, self.centroids[m])
        return codes

    def decode(self, codes: Codes) -> NDArray[np.float32]:
        """[n, M] → [n, D], what the codes stand for."""
        turned = self.centroids[np.arange(self.pieces), codes].reshape(len(codes), -1)  # [n, M·w]
        return np.asarray(turned @ self.rotation.T, np.float32)

    def table(self, query: Floats) -> Table:
        """A query [D] → [M, K], what each centroid adds to its scores."""
        turned = (np.asarray(query, np.float32) @ self.rotation).reshape(self.pieces, -1, 1)  # [M, w, 1]
        return np.ascontiguousarray((self.centroids @ turned)[:, :, 0])

    def scores(self, query: Floats, codes: Codes, out: NDArray[np.float32]) -> None:
        """Inner products of a query [D] with what codes [n, M] stand for → out [n]."""
        _look_up(self.table(query), codes, out)

    def names(self, codes: Codes) -> bool:
        """Whether all codes [n, M] name centroids that are there."""
        count = self.centroids.shape[1]
        return count == MOST_CENTROIDS or not codes.size or int(codes.max()) < count

    def error(self, vectors: Floats) -> float:
        """Mean of |x - decode(encode(x))|² over vectors [n, D]."""
        x = np.asarray(vectors, np.float32)
        return float(np.square(x - self.decode(self.encode(x))).sum(1).mean())

    def save(self, path: Path) -> None:
        """Write it as a safetensors file."""
        save_arrays(path, {"rotation": self.rotation, "centroids": self.centroids})

    @classmethod
    def load(cls, path: Path) -> ProductQuantiser:
        """A file that `save` wrote. TrichromeError where it is missing, cut or of another kind."""
        try:
            arrays = load_arrays(path)
            return cls(np.array(arrays["rotation"]), np.array(arrays["centroids"]))
        except (OSError, KeyError, ValueError) as error:
            raise TrichromeError(f"{path}: no quantiser, or damaged ({error}); index again") from None


def train_quantiser(
    vectors: Floats,
    pieces: int | None = None,
    *,
    rotate: bool = True,
    rounds: int = ROUNDS,
    sample: int = SAMPLE,
    seed: int = 0,
) -> ProductQuantiser:
    """A quantiser for vectors like these [n, D]; at most `sample` of them, evenly spread, are looked at.

    pieces: M, the bytes of a vector; a byte for each 8 numbers by default. rotate: learn a rotation (OPQ);
    without, the pieces are the vectors' own (PQ). rounds: each moves all centroids once (and the rotation).
    seed: of the centroids' start. There are 256 centroids, or an eighth of the vectors where that is less,
    but 16 where there are as many vectors. TrichromeError: no vector, or more pieces than numbers.
    """
    count, dim = vectors.shape
    pieces = -(-dim // WIDTH) if pieces is None else pieces
    if not count or not 1 <= pieces <= dim:
        raise TrichromeError(f"{count} vectors of {dim} numbers can't be cut into {pieces} pieces")
    some = np.linspace(0, count - 1, min(count, sample)).round().astype(np.int64)
    x = np.asarray(vectors[some], np.float32)  # [n, D]
    width = -(-dim // pieces)
    padded = np.zeros((len(x), pieces * width), np.float32)  # [n, M·w]
    padded[:, :dim] = x
    rotation = _spread(padded, pieces) if rotate else np.eye(pieces * width, dtype=np.float32)
    turned = padded @ rotation
    wanted = max(_LEAST_CENTROIDS, min(MOST_CENTROIDS, len(x) // _LEAST_EACH))
    centroids = _start(turned, pieces, min(wanted, len(x)), seed)
    for _ in range(rounds):
        parts = _cut(turned, pieces)
        near = [_nearest(part, centroids[m]) for m, part in enumerate(parts)]
        for m, part in enumerate(parts):
            centroids[m] = _means(part, near[m], centroids[m])
        if rotate:  # the orthogonal matrix that takes the vectors nearest to what their codes stand for
            coded = np.concatenate([centroids[m][near[m]] for m in range(pieces)], axis=1)
            left, _, right = np.linalg.svd(padded.T.astype(np.float64) @ coded)
            rotation = (left @ right).astype(np.float32)
            turned = padded @ rotation
    return ProductQuantiser(np.ascontiguousarray(rotation[:dim]), centroids)


def _spread(x: NDArray[np.float32], pieces: int) -> NDArray[np.float32]:
    """[n, P] → a rotation [P, P] onto principal directions, dealt out so that the product of variances is
    about the same in every piece: each, from the largest, to the piece with room whose product is least."""
    values, directions = np.linalg.eigh(np.cov(x.T.astype(np.float64), bias=True).reshape(len(x.T), -1))
    width = x.shape[1] // pieces
    dealt: list[list[int]] = [[] for _ in range(pieces)]
    products = np.zeros(pieces)  # their logarithms
    for axis in np.argsort(-values, kind="stable").tolist():
        room = [m for m in range(pieces) if len(dealt[m]) < width]
        least = min(room, key=lambda m: products[m])
        dealt[least].append(axis)
        products[least] += np.log(max(float(values[axis]), 1e-10)) - np.log(1e-10)
    return np.ascontiguousarray(directions[:, [a for axes in dealt for a in axes]], np.float32)


def _start(x: NDArray[np.float32], pieces: int, count: int, seed: int) -> NDArray[np.float32]:
    """Centroids [M, K, w]: pieces of vectors drawn at random, so that near ones are drawn where many are."""
    drawn = np.random.default_rng(seed).choice(len(x), count, replace=False)
    return np.stack(_cut(x[drawn], pieces))


def _cut(x: NDArray[np.float32], pieces: int) -> list[NDArray[np.float32]]:
    """[n, M·w] → M of [n, w]."""
    return [np.ascontiguousarray(part) for part in np.split(x, pieces, axis=1)]


def _nearest(x: NDArray[np.float32], centroids: NDArray[np.float32]) -> Codes:
    """[n, w] and [K, w] → [n]: argmin |x - c|² = argmax x·c - |c|²/2, the first of equals."""
    half = 0.5 * np.square(centroids).sum(1)
    near = np.empty(len(x), np.uint8)
    for start in range(0, len(x), _BLOCK):
        near[start : start + _BLOCK] = (x[start : start + _BLOCK] @ centroids.T - half).argmax(1)
    return near


def _means(x: NDArray[np.float32], near: Codes, before: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, w], the centroid of each [n] and the centroids before [K, w] → [K, w], the means of their own. One
    that has none takes the vector farthest from its centroid, the next such the second farthest."""
    counts = np.bincount(near, minlength=len(before))
    sums = np.stack([np.bincount(near, column, len(before)) for column in x.T], axis=1)  # in float64
    made = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        far = np.argsort(-np.square(x - before[near]).sum(1), kind="stable")
        made[empty] = x[far[: len(empty)]]
    return made


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _look_up(table: NDArray[Any], codes: NDArray[Any], out: NDArray[Any]) -> None:
    for i in range(len(codes)):
        total = np.float32(0.0)
        for m in range(codes.shape[1]):
            total += table[m, codes[i, m]]
        out[i] = total
