"""Stores on disk: create one, open one, and refuse what does not fit.

A store is a folder with manifest.json, the file `lock` and the data of its kind. One process holds it open.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, Timeout

from trichrome.errors import ModelMismatch, StoreLocked, TrichromeError
from trichrome.index.store import LAYOUT_VERSION, Manifest, Store
from trichrome.records import JSON
from trichrome.storage import sync_directory, write_json

if TYPE_CHECKING:
    from trichrome.encoder import Encoder

KINDS = ("embedded", "exact")


def create_store(
    path: str | Path,
    *,
    model: str,
    fingerprint: str,
    dense_dim: int | None,
    sparse: bool,
    multivector_dim: int | None,
    kind: str = "embedded",
    multivector_dtype: str = "float16",
    settings: Mapping[str, JSON] | None = None,
) -> Store:
    """Create an empty store and open it. See `Manifest` for the fields.

    The folder must be absent or empty. It appears whole: a crash leaves no half of it under its name.
    """
    path = Path(path)
    manifest = Manifest(
        kind, model, fingerprint, dense_dim, sparse, multivector_dim, multivector_dtype, dict(settings or {})
    )
    _check_manifest(manifest)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "there is a store already; open it" if (path / "manifest.json").exists() else "it is not empty"
        raise TrichromeError(f"{path}: cannot create a store here: {what}, or choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = Path(mkdtemp(dir=path.parent, prefix=_prefix(path)))
        try:
            with FileLock(temporary / "lock"):  # says that somebody is at work here
                _implementation(kind).create(temporary, manifest)
                write_json(temporary / "manifest.json", asdict(manifest))
            temporary.chmod(0o755)
            if path.exists():
                path.rmdir()  # empty, as checked; some systems do not rename onto it
            temporary.rename(path)
            sync_directory(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise TrichromeError(
            f"{path}: could not create the store ({error.strerror or error}); nothing was created"
        ) from error
    return open_store(path)


def create_store_for(
    encoder: Encoder,
    path: str | Path,
    *,
    kind: str = "embedded",
    multivector_dtype: str = "float16",
    settings: Mapping[str, JSON] | None = None,
) -> Store:
    """`create_store` for all the outputs of an encoder."""
    return create_store(
        path,
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        dense_dim=encoder.dense_dim,
        sparse="sparse" in encoder.signals,
        multivector_dim=encoder.config.multivector_dim,
        kind=kind,
        multivector_dtype=multivector_dtype,
        settings=settings,
    )


def open_store(path: str | Path) -> Store:
    """Open a store. Raises TrichromeError for a folder that is no store of this version, or damaged;
    StoreLocked where another process (or another place in this one) has it open."""
    path = Path(path)
    manifest = read_manifest(path)
    lock = FileLock(path / "lock", thread_local=False)  # any thread may close what another opened
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLocked(f"{path}: the store is open elsewhere; close it there, or wait") from None
    try:
        store: Store = _implementation(manifest.kind)(path, manifest, lock)
    except BaseException:
        lock.release()
        raise
    return store


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a store, without opening it. Raises TrichromeError as `open_store` does."""
    path = Path(path)
    file = path / "manifest.json"
    if not path.is_dir():
        raise TrichromeError(f"{path}: there is no such folder; create a store with `trichrome index`")
    if not file.is_file():
        raise TrichromeError(f"{path}: not a store (it has no manifest.json)")
    try:
        values: Any = json.loads(file.read_bytes())
        version = values["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise TrichromeError(
            f"{file}: the manifest is damaged ({error!r}); index the documents again"
        ) from None
    if version != LAYOUT_VERSION:
        older = isinstance(version, int) and version < LAYOUT_VERSION
        cure = "index the documents again" if older else "upgrade trichrome"
        raise TrichromeError(
            f"{file}: the store has layout version {version}, this trichrome reads {LAYOUT_VERSION}; {cure}"
        )
    if set(values) != (names := {field.name for field in fields(Manifest)}):
        odd = sorted(set(values) ^ names)
        raise TrichromeError(f"{file}: the manifest is damaged (missing or unknown: {', '.join(odd)})")
    manifest = Manifest(**values)
    try:
        _check_manifest(manifest)
    except TrichromeError as error:
        raise TrichromeError(f"{file}: the manifest is damaged: {error}") from None
    return manifest


def check_model(manifest: Manifest, fingerprint: str, name: str) -> None:
    """Raise ModelMismatch unless the store was built with the model of this fingerprint."""
    if manifest.fingerprint != fingerprint:
        same = "the same name but other weights or settings" if manifest.model == name else f"not {name!r}"
        raise ModelMismatch(
            f"the store was built with model {manifest.model!r} (fingerprint {manifest.fingerprint:.12}), "
            f"{same} ({fingerprint:.12}); query with that model, or index the documents again with this one"
        )


def _check_manifest(manifest: Manifest) -> None:
    if manifest.kind not in KINDS:
        raise TrichromeError(f"unknown kind of store {manifest.kind!r}; there are {', '.join(KINDS)}")
    if manifest.multivector_dtype not in ("float16", "float32"):
        raise TrichromeError(
            f"multivector_dtype must be float16 or float32, not {manifest.multivector_dtype!r}"
        )
    for name in ("dense_dim", "multivector_dim"):
        width = getattr(manifest, name)
        if width is not None and (not isinstance(width, int) or isinstance(width, bool) or width < 1):
            raise TrichromeError(f"{name} must be a positive number or null, not {width!r}")
    for name in ("model", "fingerprint"):
        if not isinstance(getattr(manifest, name), str):
            raise TrichromeError(f"{name} must be a string, not {getattr(manifest, name)!r}")
    if not isinstance(manifest.sparse, bool) or not isinstance(manifest.settings, dict):
        raise TrichromeError("sparse must be true or false, and settings an object")
    if manifest.dense_dim is None and not manifest.sparse:
        raise TrichromeError("a store needs dense or sparse vectors to find documents by")


def _implementation(kind: str) -> Any:
    """The class of a kind; imported here, for each brings a compiler or an engine that takes a while."""
    if kind == "exact":
        from trichrome.index.exact import ExactStore

        return ExactStore
    from trichrome.index.embedded import EmbeddedStore

    return EmbeddedStore


def _prefix(path: Path) -> str:
    return f".{path.name}.creating-"


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed create_store left beside `path`; one still at work holds its lock."""
    for folder in path.parent.glob(f"{_prefix(path)}*"):
        lock: BaseFileLock = FileLock(folder / "lock")
        with suppress(Timeout, OSError), lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
