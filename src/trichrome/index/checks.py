"""What a batch must look like before a store writes any of it; both stores call `check_batch` first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import SIGNALS, Embedding, Embeddings, Sparse
from trichrome.errors import TrichromeError
from trichrome.index.store import Manifest
from trichrome.records import Payload


def check_batch(
    manifest: Manifest, ids: Sequence[str], embeddings: Embeddings, payloads: Sequence[Payload]
) -> None:
    """Raise TrichromeError if the batch can't be stored.

    Wrong are: different numbers of ids, embeddings and payloads; an id that is empty, not a string or given
    twice; an output that the manifest does not name or misses, of another width, or with a value that is not
    finite; sparse token ids that do not ascend or weights that are not positive; a payload that is not JSON.
    """
    if not len(ids) == len(payloads) == (len(embeddings) if ids else 0):
        raise TrichromeError(
            f"a batch needs one embedding and one payload for each id, got {len(ids)} ids, "
            f"{len(embeddings)} embeddings and {len(payloads)} payloads"
        )
    _check_ids(ids)
    if ids:
        _check_embeddings(manifest, ids, embeddings)
    for id, payload in zip(ids, payloads, strict=True):
        check_payload(id, payload)


def check_query(
    place: object, manifest: Manifest, signal: str, query: Embedding, search: bool = False
) -> None:
    """Raise TrichromeError if the store at this place can't score (or search by) this query under this
    signal."""
    if signal not in SIGNALS:
        raise TrichromeError(f"unknown signal {signal!r}; there are {', '.join(SIGNALS)}")
    if search and signal == "multivector":
        raise TrichromeError("multivector scores rerank candidates; search by dense or sparse first")
    width = {"dense": manifest.dense_dim, "sparse": manifest.sparse, "multivector": manifest.multivector_dim}
    if not width[signal]:
        raise TrichromeError(
            f"{place}: the store holds no {signal} output; index again with a model that gives one"
        )
    values = {"dense": query.dense, "sparse": query.token_ids, "multivector": query.multivector}[signal]
    if values is None:
        raise TrichromeError(f"the query holds no {signal} output; encode it with that output")
    if signal != "sparse" and values.shape[-1] != width[signal]:
        raise TrichromeError(
            f"{place}: the query's {signal} width is {values.shape[-1]}, the store's {width[signal]}"
        )


def query_tokens(query: Embedding) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The query's token ids, ascending, and their weights."""
    if query.token_ids is None or query.token_weights is None:
        raise TrichromeError("the query holds no sparse output; encode it with that output")
    return np.asarray(query.token_ids, np.int32), np.asarray(query.token_weights, np.float32)


def check_payload(id: str, payload: Payload) -> None:
    """Raise TrichromeError, naming document and field, if a payload is not an object of storable JSON."""
    if not isinstance(payload, dict):
        raise TrichromeError(f"document {id!r}: a payload must be a dict, got {type(payload).__name__}")
    _check_json(id, "payload", payload)


def _check_ids(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for position, id in enumerate(ids):
        if not isinstance(id, str) or not id:
            raise TrichromeError(f"id {position} of the batch must be a string that is not empty, got {id!r}")
        _check_text(repr(id), "id", id)
        if id in seen:
            raise TrichromeError(f"id {id!r} is given twice in one batch; ids must be unique")
        seen.add(id)


def _check_embeddings(manifest: Manifest, ids: Sequence[str], embeddings: Embeddings) -> None:
    wanted = {"dense": manifest.dense_dim, "sparse": manifest.sparse, "multivector": manifest.multivector_dim}
    expected = tuple(name for name in SIGNALS if wanted[name])
    if embeddings.signals != expected:
        raise TrichromeError(
            f"this store holds {', '.join(expected)}; the batch brings {', '.join(embeddings.signals)}"
        )
    columns = {
        "dense": embeddings.dense,
        "multivector": embeddings.multivector.vectors if embeddings.multivector is not None else None,
    }
    for name, values in columns.items():
        if values is None:
            continue
        if values.shape[1] != wanted[name]:
            raise TrichromeError(
                f"the batch's {name} vectors are {values.shape[1]} wide, the store's {wanted[name]}"
            )
        if not np.isfinite(values).all():
            raise TrichromeError(f"the batch's {name} vectors hold a value that is not finite")
    if embeddings.sparse is not None:
        _check_sparse(ids, embeddings.sparse)


def _check_sparse(ids: Sequence[str], sparse: Sparse) -> None:
    token_ids, weights = np.asarray(sparse.ids), np.asarray(sparse.weights)
    owner = np.repeat(np.arange(len(sparse)), np.diff(sparse.indptr))  # [nnz] the text of each weight
    bad = ~(np.isfinite(weights) & (weights > 0)) | (token_ids < 0)
    if bad.any():
        where = int(np.flatnonzero(bad)[0])
        raise TrichromeError(
            f"document {ids[owner[where]]!r}: sparse weights must be positive and token ids not negative, "
            f"got weight {weights[where]} of token {token_ids[where]}"
        )
    descends = (token_ids[1:] <= token_ids[:-1]) & (owner[1:] == owner[:-1])
    if descends.any():
        where = int(np.flatnonzero(descends)[0])
        raise TrichromeError(
            f"document {ids[owner[where]]!r}: sparse token ids must ascend, got {token_ids[where]} "
            f"before {token_ids[where + 1]}"
        )


def _check_json(id: str, path: str, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TrichromeError(f"document {id!r}: {path} has a key that is not a string: {key!r}")
            _check_text(f"document {id!r}", path, key)
            _check_json(id, f"{path}.{key}", inner)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_json(id, f"{path}[{position}]", inner)
    elif isinstance(value, str):
        _check_text(f"document {id!r}", path, value)
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise TrichromeError(f"document {id!r}: {path} = {value} does not fit in 64 bits; use a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TrichromeError(f"document {id!r}: {path} = {value} is not a JSON number; use null")
    else:
        raise TrichromeError(f"document {id!r}: {path} is a {type(value).__name__}, which JSON does not have")


def _check_text(whose: str, path: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TrichromeError(f"{whose}: {path} is not valid Unicode at character {error.start}") from None
