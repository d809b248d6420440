"""Fixtures of the store tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.index.places import FOLDER_KINDS, new_place
from trichrome.index import Place

_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A new folder in memory where the system has one, since stores wait for the disk at every change."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < 2 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as made:
        yield Path(made)


@pytest.fixture(params=FOLDER_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every test that takes this runs for both stores in folders; some files have all kinds instead."""
    return str(request.param)


@pytest.fixture
def place(kind: str, folder: Path) -> Iterator[Place]:
    """Where a store of the kind may be created."""
    with new_place(kind, folder) as made:
        yield made
