"""Embeddings: what one forward pass yields for N texts, as columns.

    dense        [N, D]                         one unit vector a text
    sparse       indptr [N+1], ids, weights     token ids (ascending in each row) and their weights
    multivector  offsets [N+1], vectors [ΣT, d'] one unit vector a token

Any of the three may be absent. Arrays are NumPy; loaded from disk they are memory-mapped, so a batch
larger than memory can be sliced and iterated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from trichrome.errors import TrichromeError
from trichrome.storage import load_arrays, save_arrays

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]

#: The three signals, in the order in which weights are given everywhere.
SIGNALS = ("dense", "sparse", "multivector")


@dataclass(frozen=True, slots=True)
class Sparse:
    """Sparse vectors of N texts in CSR form.

    indptr: [N+1] int64. ids: [nnz] int32 token ids, ascending within a row. weights: [nnz] float32, > 0.
    """

    indptr: Ints
    ids: Ints
    weights: Floats

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.weights):
            raise ValueError(f"sparse: {len(self.ids)} token ids but {len(self.weights)} weights")
        if len(self.indptr) == 0 or int(self.indptr[-1]) != len(self.ids):
            raise ValueError(f"sparse: indptr must end at {len(self.ids)}, the number of weights")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, i: int) -> tuple[Ints, Floats]:
        """Token ids and weights of text i."""
        start, end = int(self.indptr[i]), int(self.indptr[i + 1])
        return self.ids[start:end], self.weights[start:end]

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[Ints, Floats]]) -> Sparse:
        """From (ids ascending, weights) of each text."""
        lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)
        return cls(
            _starts(lengths),
            np.concatenate([np.asarray(ids, np.int32) for ids, _ in rows] or [np.empty(0, np.int32)]),
            np.concatenate([np.asarray(w, np.float32) for _, w in rows] or [np.empty(0, np.float32)]),
        )


@dataclass(frozen=True, slots=True)
class MultiVector:
    """Token vectors of N texts, one after another.

    offsets: [N+1] int64. vectors: [ΣT, d'] float32 or float16, unit length; text i owns
    vectors[offsets[i]:offsets[i+1]].
    """

    offsets: Ints
    vectors: Floats

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise ValueError(f"multivector: vectors must be [ΣT, d'], got shape {self.vectors.shape}")
        if len(self.offsets) == 0 or int(self.offsets[-1]) != len(self.vectors):
            raise ValueError(f"multivector: offsets must end at {len(self.vectors)}, the number of vectors")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> Floats:
        """[T_i, d'] of text i."""
        return self.vectors[int(self.offsets[i]) : int(self.offsets[i + 1])]

    @classmethod
    def from_rows(cls, rows: Sequence[Floats], dim: int | None = None) -> MultiVector:
        """From [T_i, d'] of each text; dim is needed where there is no row to take it from."""
        if dim is None:
            if not rows:
                raise ValueError("multivector: dim is needed for an empty batch")
            dim = rows[0].shape[1]
        lengths = np.array([len(r) for r in rows], dtype=np.int64)
        dtype = rows[0].dtype if rows else np.dtype(np.float32)
        return cls(
            _starts(lengths), np.concatenate([*rows, np.empty((0, dim), dtype)]).astype(dtype, copy=False)
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text's three outputs: dense [D]; token_ids [n] and token_weights [n]; multivector [T, d']."""

    dense: Floats | None = None
    token_ids: Ints | None = None
    token_weights: Floats | None = None
    multivector: Floats | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A batch of N texts' outputs; see the module's docstring for the shapes."""

    dense: Floats | None = None
    sparse: Sparse | None = None
    multivector: MultiVector | None = None

    def __post_init__(self) -> None:
        if self.dense is not None and self.dense.ndim != 2:
            raise ValueError(f"dense must be [N, D], got shape {self.dense.shape}")
        lengths = {name: len(getattr(self, name)) for name in self.signals}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the outputs hold different numbers of texts: {lengths}")

    @property
    def signals(self) -> tuple[str, ...]:
        """Which of dense, sparse, multivector are present."""
        return tuple(name for name in SIGNALS if getattr(self, name) is not None)

    def __len__(self) -> int:
        return len(getattr(self, self.signals[0])) if self.signals else 0

    @overload
    def __getitem__(self, key: int) -> Embedding: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | Ints) -> Embeddings: ...
    def __getitem__(self, key: int | slice | Sequence[int] | Ints) -> Embedding | Embeddings:
        """One text as an Embedding, or a slice or list of texts as Embeddings (in the order asked for)."""
        if isinstance(key, (int, np.integer)):
            return self._row(int(key))
        rows = np.arange(len(self))[key] if isinstance(key, slice) else np.asarray(key)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64, copy=False)
        sparse = multivector = None
        if self.sparse is not None:
            starts, where = _gather(self.sparse.indptr, rows)
            sparse = Sparse(starts, self.sparse.ids[where], self.sparse.weights[where])
        if self.multivector is not None:
            starts, where = _gather(self.multivector.offsets, rows)
            multivector = MultiVector(starts, self.multivector.vectors[where])
        return Embeddings(None if self.dense is None else self.dense[rows], sparse, multivector)

    def _row(self, i: int) -> Embedding:
        if not -len(self) <= i < len(self):
            raise IndexError(f"text {i} of a batch of {len(self)}")
        i %= len(self)
        ids, weights = self.sparse.row(i) if self.sparse is not None else (None, None)
        return Embedding(
            dense=None if self.dense is None else self.dense[i],
            token_ids=ids,
            token_weights=weights,
            multivector=None if self.multivector is None else self.multivector.row(i),
        )

    def __iter__(self) -> Iterator[Embedding]:
        return (self._row(i) for i in range(len(self)))

    def select(self, *signals: str) -> Embeddings:
        """The same texts with only the named outputs."""
        unknown = set(signals) - set(SIGNALS)
        if unknown:
            raise ValueError(f"unknown outputs {sorted(unknown)}; there are {', '.join(SIGNALS)}")
        return Embeddings(**{name: getattr(self, name) for name in signals})

    @classmethod
    def concatenate(cls, batches: Sequence[Embeddings]) -> Embeddings:
        """The texts of all batches, in order. All must hold the same outputs in the same widths."""
        if not batches:
            return cls()
        if len({b.signals for b in batches}) > 1:
            raise ValueError(
                f"cannot concatenate batches with different outputs: {[b.signals for b in batches]}"
            )
        first = batches[0]
        dense = sparse = multivector = None
        if first.dense is not None:
            dense = np.concatenate([b.dense for b in batches if b.dense is not None])
        if first.sparse is not None:
            parts = [b.sparse for b in batches if b.sparse is not None]
            sparse = Sparse(
                _starts(np.concatenate([np.diff(p.indptr) for p in parts])),
                np.concatenate([p.ids for p in parts]),
                np.concatenate([p.weights for p in parts]),
            )
        if first.multivector is not None:
            many = [b.multivector for b in batches if b.multivector is not None]
            multivector = MultiVector(
                _starts(np.concatenate([np.diff(p.offsets) for p in many])),
                np.concatenate([p.vectors for p in many]),
            )
        return cls(dense, sparse, multivector)

    # sparse weights for other programs

    def sparse_dicts(self) -> list[dict[int, float]]:
        """{token id: weight} of each text: the form that vector databases take."""
        if self.sparse is None:
            raise ValueError("these embeddings hold no sparse output")
        rows = (self.sparse.row(i) for i in range(len(self)))
        return [dict(zip(ids.tolist(), weights.tolist(), strict=True)) for ids, weights in rows]

    def sparse_tokens(self, token: Callable[[int], str]) -> list[dict[str, float]]:
        """{token: weight} of each text; `token` names a token id (Encoder.token does)."""
        return [{token(i): w for i, w in row.items()} for row in self.sparse_dicts()]

    # disk

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; it is complete or absent, never half-written."""
        Embeddings.save_joined([self], path)

    @staticmethod
    def save_joined(batches: Sequence[Embeddings], path: str | Path) -> None:
        """Write the texts of all batches, in order, as one file, without holding them in memory together."""
        if len({b.signals for b in batches}) > 1:
            raise ValueError(f"cannot join batches with different outputs: {[b.signals for b in batches]}")
        arrays: dict[str, list[NDArray[Any]]] = {}
        if dense := [b.dense for b in batches if b.dense is not None]:
            arrays["dense"] = dense
        if sparse := [b.sparse for b in batches if b.sparse is not None]:
            arrays["sparse.indptr"] = [_starts(np.concatenate([np.diff(s.indptr) for s in sparse]))]
            arrays["sparse.ids"] = [s.ids for s in sparse]
            arrays["sparse.weights"] = [s.weights for s in sparse]
        if vectors := [b.multivector for b in batches if b.multivector is not None]:
            arrays["multivector.offsets"] = [_starts(np.concatenate([np.diff(v.offsets) for v in vectors]))]
            arrays["multivector.vectors"] = [v.vectors for v in vectors]
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Open a file that `save` wrote; the arrays are memory-mapped, read-only.

        TrichromeError: a file of another kind, or damaged.
        """
        arrays = load_arrays(path)
        try:
            made = cls.from_arrays(arrays)
            made.check()
        except (KeyError, ValueError) as error:
            raise TrichromeError(f"{path}: not embeddings, or damaged ({error})") from None
        return made

    def check(self, packed: bool = False) -> None:
        """ValueError where the columns don't fit each other: what a damaged file could hold. Reads the
        offsets, not what they point to. packed: dense and token vectors may be bytes, as stores keep them."""
        numbers = np.number if packed else np.floating
        if self.dense is not None and not np.issubdtype(self.dense.dtype, numbers):
            raise ValueError(f"dense: numbers of type {self.dense.dtype}")
        if self.sparse is not None:
            check_offsets("sparse.indptr", self.sparse.indptr, len(self.sparse.ids))
            _check_column("sparse.ids", self.sparse.ids, 1, np.integer)
            _check_column("sparse.weights", self.sparse.weights, 1, np.floating)
        if self.multivector is not None:
            check_offsets("multivector.offsets", self.multivector.offsets, len(self.multivector.vectors))
            _check_column("multivector.vectors", self.multivector.vectors, 2, numbers)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Embeddings:
        """From the named arrays of a saved file."""
        return cls(
            dense=arrays.get("dense"),
            sparse=Sparse(arrays["sparse.indptr"], arrays["sparse.ids"], arrays["sparse.weights"])
            if "sparse.indptr" in arrays
            else None,
            multivector=MultiVector(arrays["multivector.offsets"], arrays["multivector.vectors"])
            if "multivector.offsets" in arrays
            else None,
        )


def check_offsets(name: str, starts: Ints, total: int) -> None:
    """ValueError unless these are [N+1] offsets that ascend from 0 to `total`."""
    _check_column(name, starts, 1, np.integer)
    if not len(starts) or starts[0] != 0 or starts[-1] != total or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"{name} must ascend from 0 to {total}")


def _check_column(name: str, values: Floats | Ints, ndim: int, kind: type) -> None:
    if values.ndim != ndim or not np.issubdtype(values.dtype, kind):
        raise ValueError(f"{name}: {values.dtype} of shape {values.shape}")


def _starts(lengths: Ints) -> NDArray[np.int64]:
    """[N] lengths → [N+1] offsets."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _gather(offsets: Ints, rows: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets of the chosen ragged rows, and the positions of their elements in the flat array."""
    lengths = np.asarray(offsets)[rows + 1] - np.asarray(offsets)[rows]
    starts = _starts(lengths)
    where = np.arange(starts[-1]) + np.repeat(np.asarray(offsets)[rows] - starts[:-1], lengths)
    return starts, where
