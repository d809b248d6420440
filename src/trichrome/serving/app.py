"""The application: one encoder, its indexes, and the endpoints over them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import Depends, FastAPI, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel

import trichrome
from trichrome.index import Store
from trichrome.serving.batcher import Batcher
from trichrome.serving.encoding import encoding_routes
from trichrome.serving.errors import add_handlers, documented, error_response
from trichrome.serving.gate import Gate
from trichrome.serving.indexes import Indexes
from trichrome.serving.limits import Limits
from trichrome.serving.metrics import CONTENT_TYPE, Metrics
from trichrome.serving.protocol import ServedEncoder
from trichrome.serving.searching import index_routes
from trichrome.serving.shelf import Shelf
from trichrome.serving.static import page_routes

log = logging.getLogger("trichrome.serving")

#: Padded tokens of a forward pass on a CPU: more only makes queries wait.
CPU_TOKENS = 2048


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]


class Ready(BaseModel):
    """The model is warm and the indexes are open."""

    status: Literal["ready"]
    model: str
    indexes: list[str]


def create_app(
    encoder: ServedEncoder,
    stores: Mapping[str, Store],
    *,
    limits: Limits | None = None,
    key: str | None = None,
    token_budget: int = CPU_TOKENS,
    shelf: Shelf | None = None,
) -> FastAPI:
    """An ASGI application; the stores are closed when it shuts down.

    stores: indexes by name. key: what clients must send as `Authorization: Bearer KEY`, to everything but
    /health, /ready, /metrics and the page's own files. token_budget: padded tokens of a forward pass.
    shelf: where clients may make and remove indexes; they may not where it is None.
    ModelMismatch where a store was built with another model.
    """
    limits, metrics = limits or Limits(), Metrics()
    batcher = Batcher(encoder, limits, metrics, token_budget=token_budget)
    indexes = Indexes(encoder, stores, batcher, shelf)
    warm = False

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal warm
        batcher.start()
        made = await batcher.encode([("warm", "query"), ("up", "passage")], truncate=True)
        await indexes.warm(made.texts[0])
        warm = True
        try:
            yield
        finally:  # every request was answered by now
            warm = False
            await batcher.close()
            await indexes.close()
            log.info("closed %d indexes", len(indexes.all))

    app = FastAPI(
        title="trichrome",
        version=trichrome.__version__,
        description="Dense, sparse and multi-vector retrieval. Errors have one shape, `ErrorBody`.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    add_handlers(app)
    app.add_middleware(Gate, limits=limits, metrics=metrics, key=key)
    # the gate checks it; this only says so in the description
    guarded = [Depends(HTTPBearer(auto_error=False))] if key is not None else []
    app.include_router(encoding_routes(batcher), dependencies=guarded)
    app.include_router(index_routes(indexes, batcher), dependencies=guarded)
    app.include_router(page_routes())

    @app.get("/health", response_model=Health, responses=documented(), tags=["probes"])
    async def health() -> Health:
        """Whether the process answers."""
        return Health(status="ok")

    @app.get("/ready", response_model=Ready, responses=documented(), tags=["probes"])
    async def ready() -> Ready | Response:
        """Whether it can be given work."""
        if not warm or not batcher.running:
            return error_response(503, "not ready: starting, stopping, or broken")
        return Ready(status="ready", model=encoder.name, indexes=sorted(indexes.all))

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE.split(";")[0]: {"schema": {"type": "string"}}}}},
        tags=["probes"],
    )
    async def prometheus() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app
