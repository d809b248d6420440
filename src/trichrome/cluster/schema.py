"""What a shard of an encoded corpus holds: its columns, and the record at its end.

    id             string            the passage's id
    key            int64             `index.keys.hash_ids` of the id: found and compared without reading texts
    document_key   int64 or null     the same of the document that the passage was cut from
    lang           string or null    the payload's language
    payload        string            what a store keeps of the passage, as JSON (text, title, lang, metadata)
    dense          float16 [D]       a list of fixed size
    sparse_ids     list of int32     token ids, ascending
    sparse_weights list of float32   their weights, > 0
    multivector    list of float16 [d']

The outputs that the model lacks, or that were not asked for, have no columns. Every row group holds one chunk
of passages that were encoded together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from trichrome.embeddings import Embeddings, MultiVector, Sparse
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.index.keys import hash_ids
from trichrome.records import JSON, Payload

#: Of the layout of shards and of the manifest beside them.
VERSION = 1

#: Columns beside the outputs.
COLUMNS = ("id", "key", "document_key", "lang", "payload")
#: The columns of each output.
OUTPUT_COLUMNS = {
    "dense": ("dense",),
    "sparse": ("sparse_ids", "sparse_weights"),
    "multivector": ("multivector",),
}


@dataclass(frozen=True)
class Encoding:
    """How every shard of a folder is made; a shard that was made otherwise does not count as finished.

    model: the encoder's name. fingerprint: the hash of its weights and settings. dtype: the network's
    precision. outputs: those of dense, sparse, multivector that are written. dense_dim, multivector_dim:
    widths, None where absent. passage_tokens, overlap: how documents are cut, in tokens. chunk: passages
    encoded together, which decides how they are padded and so the last bits of their vectors.
    token_budget: padded tokens a forward pass, None for the device's own. skip_bad: whether bad rows of the
    corpus are left out and counted, or end the run.
    """

    model: str
    fingerprint: str
    dtype: str
    outputs: tuple[str, ...]
    dense_dim: int | None
    multivector_dim: int | None
    passage_tokens: int
    overlap: int
    chunk: int = 1024
    token_budget: int | None = None
    skip_bad: bool = False
    version: int = VERSION

    def to_json(self) -> dict[str, JSON]:
        """JSON values; from_json reads them."""
        return {**asdict(self), "outputs": list(self.outputs)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Encoding:
        """TypeError, KeyError: something else than what to_json made."""
        return cls(**{**row, "outputs": tuple(row["outputs"])})

    def differences(self, other: Encoding) -> str:
        """What is not the same, for a person: "dtype bfloat16, not float32"."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return ", ".join(f"{name} {short(a)}, not {short(b)}" for name, a, b in pairs if a != b)


def short(value: object) -> str:
    """A setting in a message; a fingerprint by its first letters."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


@dataclass
class Counts:
    """What became of the documents of a shard.

    documents: read. cut: of them became several passages. truncated: passages that were longer than the
    model reads. failed: passages that a store would refuse; failures: id and reason of the first thousand.
    left_out: reason → how many rows of the source were left out for it.
    """

    documents: int = 0
    cut: int = 0
    truncated: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardInfo:
    """The record at a shard's end. rows: passages in it. checksum: sha256 of their content. source: sha256
    of the file that they were read from. langs: language ("" for none) → passages."""

    rows: int
    checksum: str
    source: str
    encoding: Encoding
    counts: Counts
    langs: dict[str, int]

    def to_json(self) -> str:
        """One line; from_json reads it."""
        return json.dumps({**asdict(self), "encoding": self.encoding.to_json()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardInfo:
        """ValueError, TypeError, KeyError: something else than what to_json made."""
        row = json.loads(text)
        counts = Counts(**{**row["counts"], "failures": [tuple(f) for f in row["counts"]["failures"]]})
        return cls(**{**row, "encoding": Encoding.from_json(row["encoding"]), "counts": counts})


@dataclass(frozen=True)
class Passages:
    """N passages of a shard. Of columns that were not read: no ids, no payloads, outputs that are absent."""

    ids: Sequence[str]
    payloads: Sequence[Payload]
    embeddings: Embeddings


def schema(encoding: Encoding) -> Any:
    """The Arrow schema of a shard."""
    pa = require("pyarrow", "cluster")

    def vector(width: int | None) -> Any:
        return pa.list_(pa.field("item", pa.float16(), nullable=False), width)

    def many(item: Any) -> Any:
        return pa.list_(pa.field("item", item, nullable=False))

    columns = {
        "id": pa.string(),
        "key": pa.int64(),
        "document_key": pa.int64(),
        "lang": pa.string(),
        "payload": pa.large_string(),
    }
    if "dense" in encoding.outputs:
        columns["dense"] = vector(encoding.dense_dim)
    if "sparse" in encoding.outputs:
        columns |= {"sparse_ids": many(pa.int32()), "sparse_weights": many(pa.float32())}
    if "multivector" in encoding.outputs:
        columns["multivector"] = many(vector(encoding.multivector_dim))
    return pa.schema(
        [pa.field(name, type, nullable=name in ("document_key", "lang")) for name, type in columns.items()]
    )


def to_table(passages: Passages, encoding: Encoding) -> Any:
    """The Arrow table of some passages. TrichromeError: the embeddings are not what the encoding says."""
    pa = require("pyarrow", "cluster")
    made = passages.embeddings
    if made.signals != encoding.outputs:
        raise TrichromeError(f"the shard holds {encoding.outputs}, the encoder gave {made.signals}")
    types = schema(encoding)
    parents = [payload.get("document") for payload in passages.payloads]
    columns: dict[str, Any] = {
        "id": list(passages.ids),
        "key": hash_ids(passages.ids),
        "document_key": [int(hash_ids([p])[0]) if isinstance(p, str) else None for p in parents],
        "lang": [payload.get("lang") for payload in passages.payloads],
        "payload": [dump_payload(payload) for payload in passages.payloads],
    }
    arrays = {name: pa.array(values, types.field(name).type) for name, values in columns.items()}
    if made.dense is not None:
        arrays["dense"] = _vectors(made.dense, types.field("dense").type)
    if made.sparse is not None:
        for name, values in (("ids", made.sparse.ids), ("weights", made.sparse.weights)):
            type = types.field(f"sparse_{name}").type
            arrays[f"sparse_{name}"] = _lists(made.sparse.indptr, pa.array(values, type.value_type), type)
    if made.multivector is not None:
        type = types.field("multivector").type
        vectors = _vectors(made.multivector.vectors, type.value_type)
        arrays["multivector"] = _lists(made.multivector.offsets, vectors, type)
    return pa.Table.from_arrays([arrays[name] for name in types.names], schema=types)


def dump_payload(payload: Payload) -> str:
    """A payload as one line of JSON."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _vectors(values: Any, type: Any) -> Any:
    """[n, D] → n lists of fixed size."""
    pa = require("pyarrow", "cluster")
    flat = np.ascontiguousarray(values, dtype=np.float16).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), type=type)


def _lists(starts: Any, values: Any, type: Any) -> Any:
    pa = require("pyarrow", "cluster")
    return pa.ListArray.from_arrays(pa.array(np.asarray(starts, np.int32)), values, type=type)


def from_table(table: Any) -> Passages:
    """The passages of a record batch or table with any of the columns, as they are stored."""
    names = table.schema.names

    def column(name: str) -> Any:
        found = table.column(name)
        return found.combine_chunks() if hasattr(found, "combine_chunks") else found

    dense = sparse = multivector = None
    if "dense" in names:
        dense = _rows(column("dense"), table.schema.field("dense").type.list_size)
    if "sparse_ids" in names:
        ids, weights = column("sparse_ids"), column("sparse_weights")
        sparse = Sparse(_starts(ids), ids.flatten().to_numpy(), weights.flatten().to_numpy())
    if "multivector" in names:
        lists = column("multivector")
        width = table.schema.field("multivector").type.value_type.list_size
        multivector = MultiVector(_starts(lists), _rows(lists.flatten(), width))
    return Passages(
        column("id").to_pylist() if "id" in names else [],
        [json.loads(text) for text in column("payload").to_pylist()] if "payload" in names else [],
        Embeddings(dense, sparse, multivector),
    )


def _rows(lists: Any, width: int) -> Any:
    return lists.flatten().to_numpy().reshape(-1, width)


def _starts(lists: Any) -> Any:
    """[n+1] int64 from zero, also of a slice."""
    lengths = require("pyarrow.compute", "cluster").list_value_length(lists).to_numpy()
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


class Checksum:
    """sha256 of passages, whatever the file format makes of them."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, passages: Passages) -> None:
        """Some more passages, as `from_table` gives them."""
        made = passages.embeddings
        lines = [*passages.ids, *(dump_payload(payload) for payload in passages.payloads)]
        self._digest.update(json.dumps(lines, ensure_ascii=False).encode())
        arrays: list[tuple[Any, Any]] = []
        if made.dense is not None:
            arrays.append((made.dense, np.float16))
        if made.sparse is not None:
            lengths = np.diff(made.sparse.indptr)
            arrays += [(lengths, np.int64), (made.sparse.ids, np.int32), (made.sparse.weights, np.float32)]
        if made.multivector is not None:
            arrays += [(np.diff(made.multivector.offsets), np.int64), (made.multivector.vectors, np.float16)]
        for values, dtype in arrays:
            self._digest.update(np.ascontiguousarray(values, dtype=dtype).data)

    def hex(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()
