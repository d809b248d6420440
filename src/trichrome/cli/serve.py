"""`trichrome serve`: one model and its indexes over HTTP."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from trichrome.cli.console import err, note
from trichrome.cli.index import lasting_name
from trichrome.cli.settings import PrecisionOption, existing_store, home, index_names, open_model
from trichrome.errors import TrichromeError
from trichrome.extras import require

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Indexes, paths with a slash, or URLs; all of the model's by default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or hub id; the first index's by default.")
    ] = None,
    dtype: PrecisionOption = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key that clients must send; or set TRICHROME_API_KEY."),
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option(min=1, help="Padded tokens of a forward pass: 2048, on a GPU 65536.")
    ] = None,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of one request.")] = 2048,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one request.")] = 1 << 18,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of one request.")] = 16 << 20,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at work at once.")] = 512,
    queue_tokens: Annotated[int, typer.Option(min=1, help="Tokens that may wait for the encoder.")] = 1 << 19,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request.")] = False,
) -> None:
    """Serve embeddings, re-ranking and search. Ctrl-C or SIGTERM stops it when what it took is answered."""
    for package in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
        require(package, "serve")
    from trichrome.index import check_model, open_store, read_manifest
    from trichrome.index.urls import last_name
    from trichrome.serving import Limits, Shelf, create_app, server

    key = read_key(key_file)
    places = {last_name(name): existing_store(name) for name in names or index_names()}
    if names and len(places) < len(names):
        raise TrichromeError("two of these indexes have the same name; rename one")
    settings = read_manifest(next(iter(places.values()))).settings if places else {}
    if dtype == "auto":
        dtype = settings.get("dtype", dtype)  # type: ignore[assignment]
    encoder = open_model(model or str(settings.get("model", "small")), dtype)
    for name, place in list(places.items()):
        try:
            check_model(read_manifest(place), encoder.fingerprint, encoder.name)
        except TrichromeError as error:
            if names:
                raise
            note(f"left out: {error}")
            del places[name]
    limits = Limits(
        texts=max_texts,
        tokens=max_tokens,
        body_bytes=max_body,
        requests=max_requests,
        queue_tokens=queue_tokens,
        buffered_bytes=max(16 * max_body, 1 << 28),
    )
    budget = token_budget or encoder.backend.token_budget
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as opened:
        stores = {name: opened.enter_context(open_store(place)) for name, place in places.items()}
        shelf = Shelf(
            home(),
            {"model": lasting_name(model or str(settings.get("model", "small"))), "dtype": encoder.precision},
            [name for name, place in places.items() if place == home() / name],
        )
        app = create_app(encoder, stores, limits=limits, key=key, token_budget=budget, shelf=shelf)
        err.print(f"{encoder.name}, indexes: {', '.join(sorted(stores)) or 'none'}", markup=False)
        if key is None and host not in _LOOPBACK:
            note(f"{host} can be reached from elsewhere and there is no key: anybody may read and write")
        running = server(app, host, port, access_log)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn has its own, and raises it again at the end
        running.run()
        if not running.started:
            raise TrichromeError(f"could not serve on {host}:{port}; the lines above say why")


def read_key(file: Path | None) -> str | None:
    """The key in a file or in TRICHROME_API_KEY, None where neither is given. It never stands in a command's
    arguments, which other users of the machine can see."""
    key = file.read_text("utf-8").strip() if file is not None else os.environ.get("TRICHROME_API_KEY")
    if key is None:
        return None
    if not key or not key.isascii() or any(c.isspace() for c in key):
        raise TrichromeError("the key must be ASCII characters without spaces, and not empty")
    return key
