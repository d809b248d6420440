"""Whether the client of the request at work is still there: nobody reads the answer to one that left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from trichrome.serving.errors import Refusal

if TYPE_CHECKING:
    from starlette.types import Receive

_gone: ContextVar[asyncio.Event | None] = ContextVar("gone", default=None)


@asynccontextmanager
async def watched(receive: Receive) -> AsyncIterator[None]:
    """While a request is at work, whose body has been read, notice that its client leaves."""
    event = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        event.set()

    token, task = _gone.set(event), asyncio.create_task(watch())
    try:
        yield
    finally:
        _gone.reset(token)
        task.cancel()


async def unless_gone(result: asyncio.Future[Any]) -> None:
    """Wait for what only this request's client wants. Refusal 408 where the client leaves before."""
    event = _gone.get()
    if event is None:  # not asked for by a request
        await result
        return
    left = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((result, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
    if not result.done():
        raise Refusal(408, "the client went away before its answer was there")
    result.result()
