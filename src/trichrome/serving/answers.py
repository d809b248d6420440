"""Answers that are made and written out in a thread: thousands of numbers would hold the event loop up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import Response

from trichrome.embeddings import Embedding, Embeddings, Floats, MultiVector, Sparse


async def answer(build: Callable[[], Any], truncated: int = 0) -> Response:
    """What `build` returns, as JSON; NumPy arrays are written as lists.

    truncated: how many texts were cut, told in a header where a client's format has no place for it.
    """
    body = await asyncio.to_thread(lambda: orjson.dumps(build(), option=orjson.OPT_SERIALIZE_NUMPY))
    headers = {"X-Truncated-Texts": str(truncated)} if truncated else {}
    return Response(body, 200, headers, media_type="application/json")


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
