"""Answers as JSON: short ones at once, long ones in a thread, for they would hold the event loop up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import Response

from trichrome.embeddings import Embedding, Embeddings, Floats, MultiVector, Sparse

#: Numbers of an answer that are written out sooner than a thread is reached (some 0.1 ms).
_FEW = 4096


async def answer(build: Callable[[], Any], truncated: int = 0, *, numbers: int | None = None) -> Response:
    """What `build` returns, as JSON; NumPy arrays are written as lists.

    truncated: how many texts were cut, told in a header where a client's format has no place for it.
    numbers: about how many the answer holds; where that is not said, it may be long.
    """
    if numbers is not None and numbers <= _FEW:
        body = _written(build)
    else:
        body = await asyncio.to_thread(_written, build)
    headers = {"X-Truncated-Texts": str(truncated)} if truncated else {}
    return Response(body, 200, headers, media_type="application/json")


def _written(build: Callable[[], Any]) -> bytes:
    return orjson.dumps(build(), option=orjson.OPT_SERIALIZE_NUMPY)


def numbers(values: Floats, format: str) -> Any:
    """An array for JSON: itself, or base64 of little-endian float32."""
    plain = np.ascontiguousarray(values, np.float32)
    if format == "float":
        return plain
    return base64.b64encode(plain.astype("<f4", copy=False).tobytes()).decode()


def sparse_vector(made: Embedding) -> dict[str, Any]:
    """{"indices", "values"}: as vector databases take it."""
    assert made.token_ids is not None
    assert made.token_weights is not None
    return {"indices": made.token_ids, "values": made.token_weights}


def columns(texts: Sequence[Embedding]) -> Embeddings:
    """Single texts' outputs, at least one, as columns."""
    first = texts[0]
    return Embeddings(
        None if first.dense is None else np.stack([t.dense for t in texts if t.dense is not None]),
        None
        if first.token_ids is None
        else Sparse.from_rows(
            [
                (t.token_ids, t.token_weights)
                for t in texts
                if t.token_ids is not None and t.token_weights is not None
            ]
        ),
        None
        if first.multivector is None
        else MultiVector.from_rows([t.multivector for t in texts if t.multivector is not None]),
    )
