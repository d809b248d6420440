"""The binary forms in which PostgreSQL and pgvector send and take rows, made and read by NumPy.

All numbers are big-endian. vector and halfvec: i16 width, i16 zero, the values. sparsevec: i32 dimensions,
i32 n, i32 zero, n ascending i32 indices from 0, n f32 values. An array: i32 dimensions (0 or 1), i32 whether
there are nulls, the element's type as u32, then i32 n, i32 first index, and n times i32 bytes, the element.
(Sources: PostgreSQL's COPY reference and pgvector's send functions.)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embeddings, Floats, Ints, MultiVector, Sparse
from trichrome.errors import TrichromeError
from trichrome.records import JSON, Payload

#: The dimensions of every sparsevec: the most that pgvector takes, for a manifest names no vocabulary.
SPARSE_DIMENSIONS = 1_000_000_000
#: Non-zeros that pgvector stores in one sparsevec.
MAX_TOKENS = 16_000
#: The largest number that a halfvec holds.
MAX_HALF = 65_504.0


class Raw(bytes):
    """A statement's parameter in the server's own binary form; its type is what the statement casts it to."""


_BIG = {"float16": ">f2", "float32": ">f4"}
_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"


def copy_stream(rows: Iterable[Sequence[bytes]]) -> Iterator[bytes]:
    """The pieces of a binary COPY of these rows of column values."""
    yield _BEGIN
    for row in rows:
        parts = [struct.pack(">h", len(row))]
        for value in row:
            parts += (struct.pack(">i", len(value)), value)
        yield b"".join(parts)
    yield _END


def vector(values: Floats, dtype: str = "float32") -> bytes:
    """[D] as a vector, or (float16) a halfvec."""
    return struct.pack(">hh", len(values), 0) + np.asarray(values).astype(_BIG[dtype]).tobytes()


def sparse_vector(ids: Ints, weights: Floats) -> bytes:
    """Token ids [n], ascending, and their weights as a sparsevec; zero weights are left out."""
    ids, weights = np.asarray(ids), np.asarray(weights)
    kept = weights != 0
    head = struct.pack(">iii", SPARSE_DIMENSIONS, int(kept.sum()), 0)
    body: bytes = ids[kept].astype(">i4").tobytes() + weights[kept].astype(">f4").tobytes()
    return head + body


def vector_columns(
    ids: Sequence[str], embeddings: Embeddings, dtype: str, token_type: int
) -> Iterator[list[bytes]]:
    """Of each text the values of its columns dense, sparse and tokens, as far as there are such outputs.

    dtype: of the tokens. token_type: the number that the server gave to their type. TrichromeError names the
    first document with a value that the columns can't hold.
    """
    _check_limits(ids, embeddings, dtype)
    tokens = embeddings.multivector
    elements = None if tokens is None else _elements(np.asarray(tokens.vectors), dtype)
    for i in range(len(embeddings)):
        row = []
        if embeddings.dense is not None:
            row.append(vector(embeddings.dense[i]))
        if embeddings.sparse is not None:
            row.append(sparse_vector(*embeddings.sparse.row(i)))
        if tokens is not None and elements is not None:
            some = elements[int(tokens.offsets[i]) : int(tokens.offsets[i + 1])]
            row.append(_array(some, token_type))
        yield row


def read_dense(values: Sequence[bytes], width: int) -> NDArray[np.float32]:
    """[n, D] out of n vectors."""
    whole = np.frombuffer(b"".join(values), np.dtype([("head", ">i2", 2), ("values", ">f4", width)]))
    return whole["values"].astype(np.float32)


def read_sparse(values: Sequence[bytes]) -> Sparse:
    """The rows of n sparsevecs."""
    counts = np.array([(len(value) - 12) // 8 for value in values], np.int64)
    starts = np.zeros(len(values) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    ends = [12 + 4 * int(n) for n in counts]
    ids = b"".join(value[12:end] for value, end in zip(values, ends, strict=True))
    weights = b"".join(value[end:] for value, end in zip(values, ends, strict=True))
    return Sparse(
        starts, np.frombuffer(ids, ">i4").astype(np.int32), np.frombuffer(weights, ">f4").astype(np.float32)
    )


def read_tokens(values: Sequence[bytes], width: int, dtype: str) -> list[NDArray[Any]]:
    """Of each array of vectors its [T, d'] in the machine's own order of bytes."""
    element = _element(width, dtype)
    return [
        np.frombuffer(value, element, offset=20 if len(value) > 12 else 12)["values"].astype(dtype)
        for value in values
    ]


def read_multivector(values: Sequence[bytes], width: int, dtype: str) -> MultiVector:
    """The token vectors of n texts."""
    return MultiVector.from_rows(read_tokens(values, width, dtype), width)


def payload_json(id: str, payload: Payload) -> bytes:
    """A checked payload as jsonb: the byte 1, then JSON.

    jsonb keeps a number's digits and forgets its exponent, so that 1e+22 would come back as a whole number;
    it is written out with its ".0". TrichromeError for the character U+0000, which jsonb does not have.
    """
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    if "\\u0000" in text:
        _refuse_nul(id, payload)
    return b"\x01" + (_written_out(payload) if "e+" in text else text).encode()


def _written_out(value: JSON) -> str:
    """JSON whose floats have no exponent that would make them whole numbers."""
    if isinstance(value, dict):
        inner = (
            f"{json.dumps(key, ensure_ascii=False)}:{_written_out(value)}" for key, value in value.items()
        )
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written_out(element) for element in value) + "]"
    if isinstance(value, float) and "e+" in repr(value):
        return f"{Decimal(repr(value)):f}.0"
    return json.dumps(value, ensure_ascii=False)


def _refuse_nul(id: str, value: JSON) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_nul(id, key)
            _refuse_nul(id, inner)
    elif isinstance(value, list):
        for element in value:
            _refuse_nul(id, element)
    elif isinstance(value, str):
        refuse_nul(id, "its payload", value)


def refuse_nul(id: str, what: str, text: str) -> None:
    """TrichromeError where a text has the character U+0000."""
    if "\0" in text:
        raise TrichromeError(
            f"document {id!r}: {what} has the character U+0000, which PostgreSQL can't store; remove it"
        )


def _element(width: int, dtype: str) -> np.dtype[Any]:
    """One vector within an array."""
    return np.dtype([("bytes", ">i4"), ("width", ">i2"), ("zero", ">i2"), ("values", _BIG[dtype], width)])


def _elements(vectors: NDArray[Any], dtype: str) -> NDArray[Any]:
    """[T, d'] → [T] vectors within an array."""
    made = np.zeros(len(vectors), _element(vectors.shape[1], dtype))
    made["bytes"] = made.dtype.itemsize - 4
    made["width"] = vectors.shape[1]
    made["values"] = vectors
    return made


def _array(elements: NDArray[Any], element_type: int) -> bytes:
    head = struct.pack(">iiI", 1 if len(elements) else 0, 0, element_type)
    return head + struct.pack(">ii", len(elements), 1) + elements.tobytes() if len(elements) else head


def _check_limits(ids: Sequence[str], embeddings: Embeddings, dtype: str) -> None:
    """TrichromeError for what PostgreSQL's types can't hold; nothing is cut or rounded to infinity."""
    if embeddings.dense is not None and np.size(embeddings.dense):
        largest = np.abs(embeddings.dense).max(axis=1)
        if largest.max() > MAX_HALF:
            i = int(largest.argmax())
            raise TrichromeError(
                f"document {ids[i]!r}: its dense vector has the value {largest[i]:g}, half precision ends at "
                f"{MAX_HALF:g}; normalise the vectors"
            )
    if embeddings.multivector is not None and dtype == "float16":
        values = np.asarray(embeddings.multivector.vectors)
        if values.dtype != np.float16 and values.size and np.abs(values).max() > MAX_HALF:
            raise TrichromeError(
                f"a token vector has the value {np.abs(values).max():g}, half precision ends at "
                f"{MAX_HALF:g}; normalise the vectors, or create the store with multivector_dtype float32"
            )
    if embeddings.sparse is not None:
        counts = np.diff(embeddings.sparse.indptr)
        if len(counts) and counts.max() > MAX_TOKENS:
            i = int(counts.argmax())
            raise TrichromeError(
                f"document {ids[i]!r}: its sparse vector has {counts[i]:,} tokens, pgvector stores at most "
                f"{MAX_TOKENS:,}; cut the document into passages"
            )
        token_ids = np.asarray(embeddings.sparse.ids)
        if len(token_ids) and token_ids.max() >= SPARSE_DIMENSIONS:
            raise TrichromeError(
                f"token id {token_ids.max()} is too large: pgvector's sparse vectors end at "
                f"{SPARSE_DIMENSIONS:,} dimensions"
            )
