"""What stands before every endpoint: an id, the key, the limits on bodies and requests, metrics, and the
last resort against defects. Plain ASGI, so that a refused body is never read."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from typing import TYPE_CHECKING

from trichrome.serving.clients import watched
from trichrome.serving.errors import Refusal, error_response
from trichrome.serving.limits import Limits
from trichrome.serving.metrics import Metrics
from trichrome.serving.static import PAGE_PATHS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("trichrome.serving")

#: What a probe asks for, which has no key and must be answered when the server is full; and the page, which
#: asks for the key itself.
OPEN = frozenset(("/health", "/ready", "/metrics", *PAGE_PATHS))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Gate:
    """Wraps the application; one for each server."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, key: str | None) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._key = None if key is None else key.encode()
        self._requests = self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id, start, status = uuid.uuid4().hex, time.perf_counter(), 0
        scope["trichrome.id"] = id

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
            await send(message)

        held = 0
        self._requests += 1
        self._metrics.in_flight.set(self._requests)
        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            held = len(body)
            self._buffered += held
            async with watched(receive):
                await self._app(scope, _replay(body, receive), stamped)
        except Refusal as refusal:
            await self._refuse(scope, receive, stamped, refusal)
        except Exception:
            log.exception("request %s: %s %s failed", id, scope["method"], scope["path"])
            if status:  # half an answer is out: the connection ends here
                raise
            message = "the server failed on this request; its log has the reason under this id"
            await error_response(500, message, id=id)(scope, receive, stamped)
        finally:
            self._buffered -= held
            self._requests -= 1
            self._metrics.in_flight.set(self._requests)
            path = getattr(scope.get("route"), "path", "unknown")
            method = scope["method"] if scope["method"] in METHODS else "other"  # clients can invent them
            self._metrics.requests.labels(method, path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
        if refusal.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if refusal.status in (408, 413):
            headers["Connection"] = "close"  # the rest of the body was not read
        message, param = refusal.message, refusal.param
        answer = error_response(
            refusal.status, message, param=param, id=scope["trichrome.id"], headers=headers
        )
        await answer(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Refusal 401 without the key, 429 where too many requests are at work."""
        if scope["path"] in OPEN:
            return
        if self._key is not None:
            given = dict(scope["headers"]).get(b"authorization", b"")
            kind, _, secret = given.partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(secret.strip(), self._key):
                raise Refusal(401, "this needs the header `Authorization: Bearer KEY` with this server's key")
        if self._requests > self._limits.requests:
            raise Refusal(429, f"{self._limits.requests} requests are at work: try again", retry_after=1)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Refusal 413 where it is too large, 408 where it takes too long, 429 where all
        bodies together are too much."""
        most = self._limits.body_bytes
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > most:
            raise _too_large(most)
        if self._buffered + (int(said) if said.isdigit() else 0) > self._limits.buffered_bytes:
            raise Refusal(429, "too many large requests are at work: try again", retry_after=1)
        try:
            return await asyncio.wait_for(_read(receive, most), self._limits.body_seconds)
        except asyncio.TimeoutError:  # Python 3.10 has two of them
            raise Refusal(408, f"the body took longer than {self._limits.body_seconds} s") from None


async def _read(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(408, "the client went away before its request was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body"):
            return b"".join(parts)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than the {most} bytes that are taken: send it in parts")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, and then what the connection says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
