"""Vectors in fewer bytes: token vectors as int8 or int4, and codes that dense search reads in their place.

Token vectors. A row of d' numbers is stored as bytes: two of a float16 scale, then
    int8   a byte a number, x ≈ scale · c, c in -127…127
    int4   half a byte a number, x ≈ scale · (c - 7.5), c in 0…15; the first of two in the lower half
Other dtypes are stored as they are.

Dense codes. A search reads them in place of the float32 vectors, and scores the best again with those:
    int8    [n, D] x ≈ scale · c, a scale a vector
    binary  [n, ⌈D/8⌉] bytes: x ≈ along · m + scale · (±1), where m is the direction of the segment's mean,
            `along` what a vector has of it, and the signs are those of the rest. The vectors of many encoders
            lie in one narrow cone around m: their plain signs are nearly the same, and a query, which lies
            there as well, would multiply what they lack along m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trichrome.embeddings import Floats
from trichrome.index.maxsim import widen_floats
from trichrome.index.pq import MOST_CENTROIDS, WIDTH, ProductQuantiser, train_quantiser

Array: TypeAlias = NDArray[Any]

_TINY = 1e-12
_SCALE_BYTES = 2
#: The smallest that float16 holds with all its digits; rows of unit vectors need larger ones.
_LEAST_SCALE = np.finfo(np.float16).tiny


@dataclass(frozen=True)
class TokenFormat:
    """How token vectors of width `dim` are stored: dtype is float32, float16, int8 or int4."""

    dtype: str
    dim: int

    @property
    def packed(self) -> bool:
        """Whether rows are bytes, not floats."""
        return self.dtype in ("int8", "int4")

    @property
    def floats(self) -> np.dtype[Any]:
        """The dtype in which rows are handed out."""
        return np.dtype("float16" if self.packed else self.dtype)

    def pack(self, vectors: Floats) -> Array:
        """[T, d'] floats → what is stored: floats, or uint8 rows."""
        if not self.packed:
            return np.asarray(vectors, self.dtype)
        x = np.asarray(vectors, np.float32)
        highest, middle = (127.0, 0.0) if self.dtype == "int8" else (7.5, 7.5)
        wanted = np.abs(x).max(1, initial=0.0, keepdims=True) / np.float32(highest)  # [T, 1]
        scale = np.maximum(wanted, _LEAST_SCALE).astype(np.float16)
        scale = np.where(
            scale < wanted, np.nextafter(scale, np.float16(np.inf)), scale
        )  # the largest fits in
        codes = np.rint(x / scale.astype(np.float32) + np.float32(middle))  # -127…127, or 0…15
        stored = np.empty((len(x), self._width), np.uint8)
        stored[:, :_SCALE_BYTES] = scale.view(np.uint8)
        if self.dtype == "int8":
            stored[:, _SCALE_BYTES:] = codes.astype(np.int8).view(np.uint8)
        else:
            halves = np.zeros((len(x), 2 * (self._width - _SCALE_BYTES)), np.uint8)
            halves[:, : self.dim] = codes
            stored[:, _SCALE_BYTES:] = halves[:, ::2] | (halves[:, 1::2] << 4)
        return stored

    def unpack(self, stored: Array) -> Floats:
        """What is stored [T, …] → floats [T, d']."""
        if not self.packed:
            return stored
        out = np.empty((len(stored), self.dim), np.float32)
        self.widen(stored, out)
        return out.astype(self.floats)

    def widen(self, stored: Array, out: NDArray[np.float32]) -> None:
        """What is stored [T, …] → out [T, d'], in float32."""
        if not self.packed:
            widen_floats(stored, out)
            return
        scales = np.ascontiguousarray(stored[:, :_SCALE_BYTES]).view(np.float16)[:, 0].astype(np.float32)
        (_widen_int8 if self.dtype == "int8" else _widen_int4)(stored, scales, out)

    @property
    def stored(self) -> tuple[np.dtype[Any], int]:
        """The dtype and the width of what is stored."""
        return (np.dtype(np.uint8), self._width) if self.packed else (np.dtype(self.dtype), self.dim)

    @property
    def _width(self) -> int:
        """Bytes of a packed row."""
        return _SCALE_BYTES + (self.dim if self.dtype == "int8" else (self.dim + 1) // 2)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _widen_int8(stored: Array, scales: Array, out: Array) -> None:
    for t in range(len(out)):
        for j in range(out.shape[1]):
            out[t, j] = scales[t] * np.float32(np.int8(stored[t, 2 + j]))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _widen_int4(stored: Array, scales: Array, out: Array) -> None:
    for t in range(len(out)):
        for j in range(out.shape[1]):
            both = stored[t, 2 + j // 2]
            code = both & 15 if j % 2 == 0 else both >> 4
            out[t, j] = scales[t] * (np.float32(code) - np.float32(7.5))


def dense_codes(vectors: Floats, kind: str) -> dict[str, Array]:
    """The arrays by which a search finds candidates among vectors [n, D]; none for float32, and for pq where
    there are fewer vectors than a byte tells apart."""
    x = np.asarray(vectors, np.float32)
    if kind == "pq" and len(x) >= MOST_CENTROIDS:
        made = train_quantiser(x)
        return {"codes": made.encode(x), "rotation": made.rotation, "centroids": made.centroids}
    if kind == "int8":
        scale = np.maximum(np.abs(x).max(1, initial=0.0), _TINY) / np.float32(127)
        return {"codes": np.rint(x / scale[:, None]).astype(np.int8), "scales": scale}
    if kind == "binary":
        mean = x.mean(0) if len(x) else np.zeros(x.shape[1], np.float32)
        direction = (mean / max(float(np.linalg.norm(mean)), _TINY)).astype(np.float32)
        along = x @ direction
        rest = x - along[:, None] * direction
        scale = np.abs(rest).mean(1).astype(np.float32)  # by which the signs come nearest to the rest
        return {
            "codes": np.packbits(rest > 0, axis=1),
            "scales": scale,
            "along": along,
            "direction": direction,
        }
    return {}


def check_codes(arrays: Mapping[str, Array], kind: str, vectors: Array) -> None:
    """ValueError unless these are `dense_codes` of vectors [n, D]: compiled code does not look."""
    n, dim = vectors.shape
    if kind == "pq":
        _check_pq(arrays, n, dim)
        return
    wanted = {
        "float32": {},
        "int8": {"codes": (np.dtype(np.int8), (n, dim)), "scales": (np.dtype(np.float32), (n,))},
        "binary": {
            "codes": (np.dtype(np.uint8), (n, (dim + 7) // 8)),
            "scales": (np.dtype(np.float32), (n,)),
            "along": (np.dtype(np.float32), (n,)),
            "direction": (np.dtype(np.float32), (dim,)),
        },
    }[kind]
    if {name: (a.dtype, a.shape) for name, a in arrays.items()} != wanted:
        raise ValueError(f"the {kind} codes of its dense vectors do not fit them")


def _check_pq(arrays: Mapping[str, Array], n: int, dim: int) -> None:
    """As `check_codes`."""
    if n < MOST_CENTROIDS and not arrays:
        return
    try:
        quantiser = ProductQuantiser(arrays["rotation"], arrays["centroids"])
        codes = arrays["codes"]
        pieces, _, width = quantiser.centroids.shape
        good = (quantiser.dim, pieces, width) == (dim, wanted := -(-dim // WIDTH), -(-dim // wanted))
        good &= (codes.dtype, codes.shape) == (np.dtype(np.uint8), (n, pieces))
        good = good and quantiser.names(codes)
    except (KeyError, ValueError):
        good = False
    if not good:
        raise ValueError("the pq codes of its dense vectors do not fit them")


def coded_scores(query: Floats, kind: str, arrays: Mapping[str, Array], out: NDArray[np.float32]) -> None:
    """Scores of a query [D] by `dense_codes` → out [n], near the inner products with the vectors."""
    q = np.asarray(query, np.float32)
    if kind == "int8":
        _score_int8(q, arrays["codes"], arrays["scales"], out)
        return
    if kind == "pq":
        ProductQuantiser(arrays["rotation"], arrays["centroids"]).scores(q, arrays["codes"], out)
        return
    along = q @ arrays["direction"]
    parts = np.zeros((arrays["codes"].shape[1], 8), np.float32)
    parts.ravel()[: len(q)] = q - along * arrays["direction"]
    # what each byte of signs adds, for all 256 of them: [⌈D/8⌉, 256]
    table = (
        parts @ (np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1).T
    )
    _score_binary(table, along, arrays["codes"], arrays["scales"], arrays["along"], out)


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _score_int8(query: Array, codes: Array, scales: Array, out: Array) -> None:
    for i in range(len(codes)):
        total = np.float32(0.0)
        for j in range(len(query)):
            total += query[j] * np.float32(codes[i, j])
        out[i] = scales[i] * total


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _score_binary(
    table: Array, query_along: float, codes: Array, scales: Array, along: Array, out: Array
) -> None:
    for i in range(len(codes)):
        total = np.float32(0.0)
        for b in range(codes.shape[1]):
            total += table[b, codes[i, b]]
        out[i] = query_along * along[i] + scales[i] * total
