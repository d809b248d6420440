"""The page at `/`: its files, read once, with headers that let it load and run nothing else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Request, Response

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: Nothing from elsewhere, no script or style within the page's text, no string that becomes markup.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # queries stand in the page's address
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for each time, sent when changed
}


def _path_of(file: Path) -> str:
    return "/" if file.name == "index.html" else f"/page/{file.name}"


_FILES = {_path_of(file): file for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES}

#: What the page consists of; none of it is secret.
PAGE_PATHS = tuple(_FILES)


def page_routes() -> APIRouter:
    """The page and its files, each with an ETag."""
    router = APIRouter(include_in_schema=False)
    for path, file in _FILES.items():
        _add(router, path, file)
    return router


def _add(router: APIRouter, path: str, file: Path) -> None:
    body = file.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    headers = {**_HEADERS, "ETag": tag}

    @router.api_route(path, methods=["GET", "HEAD"])
    async def get(request: Request) -> Response:
        if tag in re.split(r"\s*,\s*", request.headers.get("if-none-match", "")):
            return Response(None, 304, headers)
        return Response(body, 200, headers, media_type=_TYPES[file.suffix])
