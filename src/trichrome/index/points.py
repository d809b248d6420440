"""How a document lies in a point of Qdrant, in the engine inside this process and on a server alike.

The point's key is the hash of the document's id (see `keys`), its payload {"id": …, "p": the user's payload}.
The named vectors are the signals; a document without a token has no multivector.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding

#: Where a point's payload keeps the document's id and the user's payload.
ID_FIELD, PAYLOAD_FIELD = "id", "p"
#: Payload fields with an index of their own; filters on others read the payloads.
INDEXED_FIELDS = ("lang",)
#: From here on several integers are the same float, and engines compare numbers as floats.
EXACT_INTEGERS = 2**53

#: HNSW over dense vectors: recall@10 ≥ 0.99 against exact search over 50,000 vectors of width 384, with them
#: and a search that keeps so many candidates, or twice k for a long list, whose tail it would lose else.
HNSW_M, HNSW_EF_CONSTRUCT, SEARCH_EF = 32, 256, 128
#: Over int8 copies of the vectors, so many times k are scored again with the stored vectors.
OVERSAMPLING = 2.0

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def field_path(key: str, whole: bool = False) -> str:
    """The engine's path of a dotted key; whole: the key is one top-level name, dots and all."""
    names = [key] if whole else key.split(".")
    return ".".join([PAYLOAD_FIELD, *(name if _PLAIN.fullmatch(name) else f'"{name}"' for name in names)])


def selection(fields: Iterable[str] | None) -> bool | list[str]:
    """What of a point's payload to ask for: all of it, or the id and these top-level keys."""
    return True if fields is None else [ID_FIELD, *(field_path(name, whole=True) for name in fields)]


def token_count(query: Embedding) -> int:
    """The tokens of a query's multivector output, over which engines sum and stores take the mean."""
    return 0 if query.multivector is None else len(query.multivector)


def ascending(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], slice | NDArray[np.intp]]:
    """Different rows in ascending order, and where each of the given ones is among them."""
    if (rows[1:] > rows[:-1]).all():  # as search gives them
        return rows, slice(None)
    return np.unique(rows, return_inverse=True)
