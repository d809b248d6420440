"""One live server with an index of each kind, for the tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from tests.serving.live import Live, make_store, running
from tests.tiny import tiny_encoder
from trichrome.encoder import Encoder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def live(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("stores")
    stores = {kind: make_store(folder / kind, encoder, kind) for kind in ("exact", "embedded")}
    with running(encoder, stores) as made:
        yield made
