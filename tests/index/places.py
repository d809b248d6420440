"""Where the store tests put stores: a folder, or a collection or table of its own on a server.

The kinds on servers run where a server is: `qdrant` in the client's local mode, always; `qdrant server` where
QDRANT_URL names one (http://localhost:6333, say), else the tests are skipped and say so.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trichrome.index import Place

FOLDER_KINDS = ("exact", "embedded")
KINDS = (*FOLDER_KINDS, "qdrant", "qdrant server")


@contextmanager
def new_place(kind: str, folder: Path) -> Iterator[Place]:
    """A place for a store of a kind; nothing is there yet, and nothing is left behind outside the folder."""
    match kind:
        case "qdrant":
            yield f"qdrant+file://{folder}/qdrant/store"
        case "qdrant server":
            with qdrant_place() as place:
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
