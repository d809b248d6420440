"""Running the application under uvicorn."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

#: Seconds that a stopping server gives to the requests it took.
GRACE = 300
#: Seconds that an idle connection is kept.
KEEP_ALIVE = 75


def server(app: FastAPI, host: str, port: int, access_log: bool = False) -> uvicorn.Server:
    """A server whose `run` returns after SIGTERM or SIGINT, when what was accepted is answered."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=access_log,
        log_level="info",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
        ws="none",
    )
    return uvicorn.Server(config)
