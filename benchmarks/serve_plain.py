"""The server that people write for themselves: FastAPI, and sentence-transformers' `encode` in each request.

    python -m benchmarks.serve_plain FOLDER [--style threads|loop]

What benchmarks.serve compares `trichrome serve` with. threads: the endpoint is a plain function, which
FastAPI runs in its pool of threads, as its documentation advises for what blocks. loop: it is `async def`, as
often seen, and requests are encoded strictly one after another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    inputs: str


def main(folder: Path, style: Annotated[Literal["threads", "loop"], typer.Option()] = "threads") -> None:
    """Serve POST /embed on a free port of loopback."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.encode("warm up")
    app = FastAPI()

    if style == "threads":

        @app.post("/embed")
        def embed(body: Body) -> list[list[float]]:
            return [model.encode(body.inputs).tolist()]

    else:

        @app.post("/embed")
        async def embed_here(body: Body) -> list[list[float]]:
            return [model.encode(body.inputs).tolist()]

    uvicorn.run(app, host="127.0.0.1", port=0, access_log=False)


if __name__ == "__main__":
    typer.run(main)
