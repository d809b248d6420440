"""Requests to Qdrant: repeated where they failed for a passing reason, and errors in one line.

Everything that goes through `ask` may be done twice: reading changes nothing, a repeated upsert writes the
same points and a repeated deletion finds them gone. (With several writers of the same document, one whose
request is repeated may win over a later one.) Creating a collection is not repeated.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.index.qdrant_address import Address

T = TypeVar("T")

_rest: Any = require("qdrant_client.http.exceptions", "cluster")
_client: Any = require("qdrant_client.common.client_exceptions", "cluster")
_grpc: Any = require("grpc", "cluster")
_httpx: Any = require("httpx", "cluster")

#: What the client raises for a server, and in local mode.
_ERRORS = (_rest.ApiException, _client.QdrantException, _grpc.RpcError, _httpx.HTTPError,
           ValueError, RuntimeError, OSError, sqlite3.Error)  # fmt: skip
#: A server that is busy, restarting, or electing: answers that may be others a moment later.
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)
_PASSING_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
#: Seconds before the first repetition; doubled each time up to the longest.
_FIRST, _LONGEST = 0.25, 10.0


def ask(address: Address, failed: str, call: Callable[[], T], retries: int | None = None) -> T:
    """The answer to a call; TrichromeError, beginning with what `failed`, when there is none.

    retries: as the address says if None. The pauses double, each shortened by chance up to half, so that
    clients do not come back together; a server that names a time gets it.
    """
    left = address.retries if retries is None else retries
    pause = _FIRST
    while True:
        try:
            return call()
        except _ERRORS as error:
            if left <= 0 or not _is_passing(error):
                raise TrichromeError(f"{address.shown}: {failed} ({reason(error)})") from error
            named = getattr(error, "retry_after_s", None)
            wait = min(pause, _LONGEST) * random.uniform(0.5, 1.0)
        time.sleep(min(float(named), 60.0) if named is not None else wait)
        left, pause = left - 1, 2 * pause


def _is_passing(error: Exception) -> bool:
    if isinstance(error, _rest.UnexpectedResponse):
        return error.status_code in _PASSING_STATUS
    if isinstance(error, _rest.ResponseHandlingException):
        return isinstance(error.source, _httpx.TransportError)
    if isinstance(error, _grpc.RpcError):
        return _grpc_code(error) in _PASSING_CODES
    return isinstance(error, (_httpx.TransportError, _client.ResourceExhaustedResponse))


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, _rest.UnexpectedResponse):
        return f"{error.status_code}: {_told(error)}{_advice(error.status_code)}"
    if isinstance(error, _rest.ResponseHandlingException):
        return reason(error.source) if isinstance(error.source, Exception) else str(error.source)
    if isinstance(error, _grpc.RpcError):
        return f"{_grpc_code(error)}: {error.details() if hasattr(error, 'details') else error}"
    return " ".join(str(error).split()) or type(error).__name__


def _told(error: Any) -> str:
    """The server's own words."""
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, LookupError, TypeError):
        return str(error.reason_phrase)


def _advice(status: int) -> str:
    return {
        401: "; set QDRANT_API_KEY",
        403: "; the key in QDRANT_API_KEY may not do this",
        413: "; raise service.max_request_size_mb of the server",
    }.get(status, "")


def _grpc_code(error: Any) -> str:
    return str(error.code().name) if hasattr(error, "code") else ""
