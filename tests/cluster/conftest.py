"""One local Ray for the session, and a tiny model on disk for its processes to open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the extra `cluster` is not installed")

from tests.tiny import tiny_encoder
from trichrome.cluster import Cluster
from trichrome.encoder import Encoder, load, save


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """Connected to Ray, which the code under test then uses: two processors of this machine, or what
    RAY_ADDRESS names."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    with Cluster(os.environ.get("RAY_ADDRESS"), actors=2).connected():
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny network."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(tiny_encoder(), folder)
    return folder


@pytest.fixture(scope="session")
def encoder(model: Path) -> Encoder:
    return load(str(model), dtype="float32")
