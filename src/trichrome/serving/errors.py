"""How a request is refused: one body for every error, in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from trichrome.errors import TrichromeError

#: The word that programs tell errors apart by.
TYPES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "invalid",
    429: "overloaded",
    500: "internal",
    503: "unavailable",
}


class ErrorDetail(BaseModel):
    """message: what was wrong and what to do. type: a word for programs. code: the HTTP status.
    param: the field it is about. id: of the request; the log has it too."""

    model_config = ConfigDict(extra="forbid")
    message: str
    type: str
    code: int
    param: str | None = None
    id: str | None = None


class ErrorBody(BaseModel):
    """Every answer that is not 2xx."""

    model_config = ConfigDict(extra="forbid")
    error: ErrorDetail


class Refusal(Exception):
    """A request that is answered with an error. retry_after: seconds, where trying again makes sense."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.retry_after = status, message, param, retry_after


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer for one error."""
    kind = TYPES.get(status, "bad_request" if status < 500 else "internal")
    detail = {"message": message, "type": kind, "code": status, "param": param, "id": id}
    body = orjson.dumps({"error": detail})
    return Response(body, status, dict(headers or {}), media_type="application/json")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint, for its OpenAPI description; those of every endpoint are always there."""
    about: dict[int | str, dict[str, Any]] = {}
    for status in sorted({400, 401, 408, 422, 429, 500, 503, *statuses}):
        about[status] = {"model": ErrorBody, "description": TYPES[status].replace("_", " ").capitalize()}
    about[429]["headers"] = {
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
    }
    return about


def add_handlers(app: FastAPI) -> None:
    """Turn what endpoints raise into answers. What nobody expected goes to the gate, which logs it."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return error_response(
            error.status, error.message, param=error.param, id=_id(request), headers=headers
        )

    @app.exception_handler(TrichromeError)
    async def unusable(request: Request, error: TrichromeError) -> Response:
        return error_response(422, str(error), id=_id(request))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        message, param = _first(error.errors())
        return error_response(422, message, param=param, id=_id(request))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}: {error.detail}" if error.status_code != 400 else (
            "the body is not JSON that can be read"
        )  # fmt: skip
        return error_response(error.status_code, what, id=_id(request), headers=error.headers)


def _id(request: Request) -> str | None:
    found: str | None = request.scope.get("trichrome.id")
    return found


def _first(errors: Sequence[Any]) -> tuple[str, str | None]:
    """The first problem that pydantic names, and where; how many more there are."""
    if not errors:
        return "the request is not valid", None
    place = ".".join(str(part) for part in errors[0]["loc"] if part != "body") or None
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place or 'body'}: {errors[0]['msg']}{more}", place
