"""Segments of the exact store: immutable files of some documents, memory-mapped, each with its indexes.

One safetensors file holds, for n documents in the order of their rows:
    rows [n]; id_starts [n+1], id_bytes; payload_starts [n+1], payload_bytes (one JSON object a document)
    hashes [n] ascending, hash_order [n]     the index of ids: document hash_order[i] has hashes[i]
    dense [n, D] float32, and dense.codes, .scales, … beside it as `codes.dense_codes` makes them; or the
        codes [n, M] uint8 of the store's quantiser
    sparse.indptr [n+1], .ids, .weights
    multivector.offsets [n+1], .vectors      floats, or bytes as `codes.TokenFormat` packs them
    postings.terms, .starts, .texts, .weights             see sparse_kernel.build_postings
    blocks.lists, .starts, …    where sparse search is seismic's, after `optimize`; see seismic_blocks.Blocks
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embeddings, MultiVector, Sparse, check_offsets
from trichrome.errors import TrichromeError
from trichrome.index.codes import Array, TokenFormat, check_codes, dense_codes
from trichrome.index.filters import field_of, satisfies
from trichrome.index.keys import hash_ids
from trichrome.index.pq import ProductQuantiser
from trichrome.index.seismic_blocks import Blocks, check_blocks
from trichrome.index.seismic_build import build_blocks
from trichrome.index.sparse_kernel import build_postings
from trichrome.index.store import Filter, Manifest
from trichrome.records import JSON, Payload
from trichrome.storage import load_arrays, save_arrays

_CACHED_MASKS = 64  # filters a segment remembers: one byte a document each
_CACHED_COLUMNS = 16  # payload fields a segment remembers


@dataclass
class Segment:
    """One open segment. Everything in it is immutable but the caches. embeddings: token vectors as stored."""

    name: str
    path: Path
    rows: NDArray[np.int64]
    embeddings: Embeddings
    arrays: dict[str, Array]
    _masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    _columns: dict[str, tuple[NDArray[np.int32], list[JSON]]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: Path) -> Segment:
        """Map a file that `write_segment` wrote; ValueError where it is cut short or damaged, OSError where
        absent."""
        arrays = {name: np.asarray(array) for name, array in load_arrays(path).items()}
        try:
            made = cls(path.stem, path, arrays["rows"], Embeddings.from_arrays(arrays), arrays)
            made._check()
        except (KeyError, ValueError, TypeError) as error:
            raise TrichromeError(f"{path}: damaged ({error})") from None
        return made

    def _check(self) -> None:
        """Raise where a number would lead outside of an array: compiled code does not look. It reads the
        offsets and the postings, not the vectors."""
        a, n = self.arrays, len(self)
        for name in ("rows", "hashes", "id_starts", "payload_starts"):
            if a[name].dtype != np.int64 or a[name].ndim != 1:
                raise ValueError(f"{name}: {a[name].dtype} of shape {a[name].shape}")
        if n and ((a["rows"][1:] <= a["rows"][:-1]).any() or a["rows"][0] < 0):
            raise ValueError("rows must ascend")
        self.embeddings.check(packed=True)
        lengths = {"hashes": len(a["hashes"]), "hash_order": len(a["hash_order"])}
        lengths |= {name: len(a[f"{name}_starts"]) - 1 for name in ("id", "payload")}
        if self.embeddings.signals:
            lengths["embeddings"] = len(self.embeddings)
        for name, length in lengths.items():
            if length != n:
                raise ValueError(f"{length} {name} of {n} documents")
        for name in ("id", "payload"):
            check_offsets(f"{name}_starts", a[f"{name}_starts"], len(a[f"{name}_bytes"]))
        _check_within("hash_order", a["hash_order"], n)
        if self.embeddings.sparse is not None:
            terms, starts, texts, weights = self.postings
            check_offsets("postings.starts", starts, len(texts))
            _check_within("postings.texts", texts, n)
            if len(starts) != len(terms) + 1 or len(weights) != len(texts):
                raise ValueError("the postings' parts differ in length")
            if weights.dtype != np.float32 or terms.dtype != np.int32:
                raise ValueError("the postings hold numbers of another type")
            if self.blocks is not None:
                check_blocks(self.blocks, n)

    def fits(self, manifest: Manifest, quantiser: ProductQuantiser | None = None) -> None:
        """TrichromeError where the vectors are not those that a store's manifest names; with a quantiser,
        its codes."""
        e = self.embeddings
        widths = (
            None if e.dense is None else (e.dense.dtype, e.dense.shape[1]),
            e.sparse is not None,
            None if e.multivector is None else (e.multivector.vectors.dtype, e.multivector.vectors.shape[1]),
        )
        tokens = None
        if manifest.multivector_dim is not None:
            tokens = TokenFormat(manifest.multivector_dtype, manifest.multivector_dim).stored
        dense: tuple[np.dtype[Any], int] | None = None
        if quantiser is not None:
            dense = (np.dtype(np.uint8), quantiser.pieces)
        elif manifest.dense_dim is not None:
            dense = (np.dtype(np.float32), manifest.dense_dim)
        if widths != (dense, manifest.sparse, tokens):
            raise TrichromeError(f"{self.path}: damaged (its vectors are not those that the manifest names)")
        if quantiser is not None and e.dense is not None:
            if not quantiser.names(e.dense):
                raise TrichromeError(f"{self.path}: damaged (its codes are not those of the quantiser)")
        elif e.dense is not None:
            try:
                check_codes(self.dense_codes, manifest.dense_search, e.dense)
            except ValueError as error:
                raise TrichromeError(f"{self.path}: damaged ({error})") from None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def sparse(self) -> tuple[Array, Array, Array]:
        """indptr [n+1], ids and weights [nnz]."""
        return self.arrays["sparse.indptr"], self.arrays["sparse.ids"], self.arrays["sparse.weights"]

    @property
    def dense_codes(self) -> dict[str, Array]:
        """What `codes.dense_codes` made of the dense vectors."""
        prefix = "dense."
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}

    @property
    def postings(self) -> tuple[Array, Array, Array, Array]:
        """terms, starts, texts and weights of the inverted index."""
        a = self.arrays
        return a["postings.terms"], a["postings.starts"], a["postings.texts"], a["postings.weights"]

    @property
    def blocks(self) -> Blocks | None:
        """The inverted index in blocks, where it was made."""
        a = self.arrays
        if "blocks.lists" not in a:
            return None
        return Blocks(a["postings.terms"], *(a[f"blocks.{name}"] for name in Blocks._fields[1:]))

    def find(self, ids: Sequence[str], hashes: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(i, local position) for each occurrence of ids[i] here, replaced or deleted ones included."""
        table, order = self.arrays["hashes"], self.arrays["hash_order"]
        start = np.searchsorted(table, hashes, side="left")
        hits = np.flatnonzero((start < len(table)) & (table[np.minimum(start, len(table) - 1)] == hashes))
        found = []
        for i in hits.tolist():
            at = int(start[i])
            while at < len(table) and table[at] == hashes[i]:  # ids may share a hash
                if self.id(int(order[at])) == ids[i]:
                    found.append((i, int(order[at])))
                at += 1
        return found

    def id_bytes(self, local: int) -> bytes:
        return self._slice("id", local)

    def payload_bytes(self, local: int) -> bytes:
        return self._slice("payload", local)

    def id(self, local: int) -> str:
        try:
            return self.id_bytes(local).decode()
        except UnicodeDecodeError as error:
            raise TrichromeError(f"{self.path}: the id of document {local} is damaged ({error})") from None

    def payload(self, local: int) -> Payload:
        try:
            payload = json.loads(self.payload_bytes(local))
        except (ValueError, RecursionError) as error:
            raise TrichromeError(
                f"{self.path}: the payload of document {local} is damaged ({error})"
            ) from None
        if not isinstance(payload, dict):
            raise TrichromeError(f"{self.path}: the payload of document {local} is damaged (no object)")
        return payload

    def _slice(self, name: str, local: int) -> bytes:
        starts = self.arrays[f"{name}_starts"]
        return self.arrays[f"{name}_bytes"][starts[local] : starts[local + 1]].tobytes()

    def mask(self, where: Filter) -> NDArray[np.bool_]:
        """[n] which documents a (checked) filter lets through; remembered, since nothing here changes."""
        key = json.dumps(where, sort_keys=True)
        if key not in self._masks:
            mask = np.ones(len(self), dtype=np.bool_)
            for name, condition in where.items():
                codes, values = self._column(name)
                passes = np.array([satisfies(value, condition) for value in values], dtype=np.bool_)
                mask &= passes[codes]
            _remember(self._masks, key, mask, _CACHED_MASKS)
        return self._masks[key]

    def _column(self, name: str) -> tuple[NDArray[np.int32], list[JSON]]:
        """A payload field as codes [n] into its distinct values, to try a condition once a value."""
        if name not in self._columns:
            codes = np.empty(len(self), dtype=np.int32)
            seen: dict[str, int] = {}
            values: list[JSON] = []
            for local in range(len(self)):
                value = field_of(self.payload(local), name)
                code = seen.setdefault(json.dumps(value), len(values))
                if code == len(values):
                    values.append(value)
                codes[local] = code
            _remember(self._columns, name, (codes, values), _CACHED_COLUMNS)
        return self._columns[name]


def _check_within(name: str, numbers: Array, n: int) -> None:
    """ValueError unless all are whole numbers from 0 to n - 1."""
    if numbers.dtype != np.int32 or numbers.ndim != 1:
        raise ValueError(f"{name}: {numbers.dtype} of shape {numbers.shape}")
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= n):
        raise ValueError(f"{name} names documents that are not there")


def _remember(cache: dict[str, Any], key: str, value: Any, limit: int) -> None:
    while len(cache) >= limit:
        cache.pop(next(iter(cache)), None)  # the oldest; another thread may have been faster
    cache[key] = value


def write_segment(
    path: Path,
    rows: NDArray[np.int64],
    ids: Sequence[bytes],
    payloads: Sequence[bytes],
    embeddings: Embeddings,
    dense_search: str,
    blocks: bool = False,
) -> None:
    """Write n documents as one file, whole or not at all.

    rows ascend; ids and payloads are UTF-8; token vectors are packed already, dense vectors may be codes.
    dense_search: which codes of dense float vectors are written beside them. blocks: cut the postings.
    """
    hashes = hash_ids(id.decode() for id in ids)
    order = np.argsort(hashes, kind="stable")
    arrays: dict[str, Array] = {
        "rows": rows,
        "hashes": hashes[order],
        "hash_order": order.astype(np.int32),
        "id_starts": _starts([len(id) for id in ids]),
        "id_bytes": np.frombuffer(b"".join(ids), dtype=np.uint8),
        "payload_starts": _starts([len(payload) for payload in payloads]),
        "payload_bytes": np.frombuffer(b"".join(payloads), dtype=np.uint8),
    }
    if embeddings.dense is not None:
        arrays["dense"] = np.asarray(embeddings.dense)
        if arrays["dense"].dtype != np.uint8:
            arrays["dense"] = np.asarray(embeddings.dense, dtype=np.float32)
            coded = dense_codes(arrays["dense"], dense_search)
            arrays |= {f"dense.{name}": array for name, array in coded.items()}
    if embeddings.sparse is not None:
        sparse = Sparse(
            np.asarray(embeddings.sparse.indptr, np.int64),
            np.asarray(embeddings.sparse.ids, np.int32),
            np.asarray(embeddings.sparse.weights, np.float32),
        )
        arrays |= {"sparse.indptr": sparse.indptr, "sparse.ids": sparse.ids, "sparse.weights": sparse.weights}
        postings = build_postings(sparse)
        arrays |= {f"postings.{name}": array for name, array in postings.items()}
        if blocks:
            made = build_blocks(sparse, postings)._asdict()
            arrays |= {f"blocks.{name}": made[name] for name in Blocks._fields[1:]}
    if embeddings.multivector is not None:
        arrays["multivector.offsets"] = np.asarray(embeddings.multivector.offsets, np.int64)
        arrays["multivector.vectors"] = np.asarray(embeddings.multivector.vectors)
    save_arrays(path, arrays)


def merge_segments(
    path: Path,
    segments: Sequence[Segment],
    live: Sequence[NDArray[np.bool_]],
    dense_search: str,
    blocks: bool = False,
) -> int:
    """Write the live documents of adjacent segments as one; how many there are. None are: no file.

    The rows stay. Memory: about the size of the file written.
    """
    kept = [np.flatnonzero(mask) for mask in live]
    pairs = [(s, local) for s, locals in zip(segments, kept, strict=True) for local in locals.tolist()]
    if not pairs:
        return 0
    write_segment(
        path,
        np.concatenate([s.rows[locals] for s, locals in zip(segments, kept, strict=True)]),
        [s.id_bytes(local) for s, local in pairs],
        [s.payload_bytes(local) for s, local in pairs],
        Embeddings.concatenate(
            [
                s.embeddings if len(locals) == len(s) else s.embeddings[locals]
                for s, locals in zip(segments, kept, strict=True)
                if len(locals)
            ]
        ),
        dense_search,
        blocks,
    )
    return len(pairs)


def token_vectors(segment: Segment, locals: NDArray[np.int64]) -> list[Array]:
    """The [T, …] views of some documents' token vectors, as they are stored."""
    multivector = segment.embeddings.multivector
    if not isinstance(multivector, MultiVector):
        raise ValueError(f"{segment.path}: holds no multivector output")
    starts, ends = multivector.offsets[locals].tolist(), multivector.offsets[locals + 1].tolist()
    return [multivector.vectors[start:end] for start, end in zip(starts, ends, strict=True)]


def _starts(lengths: Sequence[int]) -> NDArray[np.int64]:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
