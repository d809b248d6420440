"""Stores: create one, open one, and refuse what does not fit.

A store lies at a place: a folder, or a URL that `urls` gives to the module of its server. The folder holds
manifest.json, the file `lock` and the data of its kind. One process holds it open.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, Timeout

from trichrome.errors import StoreLocked, TrichromeError
from trichrome.index.manifests import (
    KINDS,
    QUANTISER,
    check_manifest,
    default_dense_search,
    manifest_json,
    parse_manifest,
)
from trichrome.index.store import Manifest, Store
from trichrome.index.urls import Place, is_url, kind_of, server_of, shown
from trichrome.records import JSON
from trichrome.storage import sync_directory, write_json

if TYPE_CHECKING:
    from trichrome.encoder import Encoder
    from trichrome.index.pq import ProductQuantiser


def create_store(
    place: Place,
    *,
    model: str,
    fingerprint: str,
    dense_dim: int | None,
    sparse: bool,
    multivector_dim: int | None,
    kind: str | None = None,
    multivector_dtype: str = "float16",
    dense_search: str | None = None,
    sparse_search: str = "exact",
    settings: Mapping[str, JSON] | None = None,
    quantiser: ProductQuantiser | None = None,
) -> Store:
    """Create an empty store and open it. See `Manifest` for the fields; dense_search None is the kind's own.

    place: a folder, absent or empty, or a URL where there is no store yet. kind: of a folder's store,
    embedded where it is not said; a URL's scheme says its own. quantiser: an exact store then keeps its codes
    in place of dense vectors. The store appears whole: a crash leaves no half of it under its name.
    """
    if is_url(place):
        chosen = kind_of(place)
        if kind not in (None, chosen):
            raise TrichromeError(f"{shown(place)}: this place is of the kind {chosen}, not {kind!r}")
    else:
        chosen = "embedded" if kind is None else kind
        if chosen not in KINDS:
            raise TrichromeError(
                f"unknown kind of store {chosen!r}; in a folder there are {', '.join(KINDS)}"
            )
    manifest = Manifest(
        chosen,
        model,
        fingerprint,
        dense_dim,
        sparse,
        multivector_dim,
        multivector_dtype,
        dict(settings or {}),
        dense_search=dense_search or ("pq" if quantiser else default_dense_search(chosen)),
        dense_dtype="pq" if quantiser else "float32",
        sparse_search=sparse_search,
    )
    check_manifest(manifest)
    if quantiser is not None and quantiser.dim != dense_dim:
        raise TrichromeError(f"the quantiser is for vectors of {quantiser.dim} numbers, not of {dense_dim}")
    if is_url(place):
        return server_of(place).create_at(place, manifest)
    _create_folder(Path(place), manifest, quantiser)
    return open_store(place)


def create_store_for(
    encoder: Encoder,
    place: Place,
    *,
    kind: str | None = None,
    multivector_dtype: str = "float16",
    dense_search: str | None = None,
    sparse_search: str = "exact",
    settings: Mapping[str, JSON] | None = None,
) -> Store:
    """`create_store` for all the outputs of an encoder."""
    return create_store(
        place,
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        dense_dim=encoder.dense_dim,
        sparse="sparse" in encoder.signals,
        multivector_dim=encoder.config.multivector_dim,
        kind=kind,
        multivector_dtype=multivector_dtype,
        dense_search=dense_search,
        sparse_search=sparse_search,
        settings=settings,
    )


def open_store(place: Place) -> Store:
    """Open a store. Raises TrichromeError for a place that holds no store of this version, or a damaged one;
    StoreLocked where another process (or another place in this one) has a folder open."""
    if is_url(place):
        return server_of(place).open_at(place)
    path = Path(place)
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


def has_store(place: Place) -> bool:
    """Whether there is a store at a place. Raises TrichromeError for a server that can't be asked."""
    if is_url(place):
        return server_of(place).exists_at(place)
    return (Path(place) / "manifest.json").is_file()


def read_manifest(place: Place) -> Manifest:
    """The manifest of a store, without opening it. Raises TrichromeError as `open_store` does."""
    if is_url(place):
        return server_of(place).manifest_at(place)
    path = Path(place)
    file = path / "manifest.json"
    if not path.is_dir():
        raise TrichromeError(f"{path}: there is no such folder; create a store with `trichrome index`")
    if not file.is_file():
        raise TrichromeError(f"{path}: not a store (it has no manifest.json)")
    manifest = parse_manifest(file.read_bytes(), str(file))
    if manifest.kind not in KINDS:
        raise TrichromeError(f"{file}: the manifest is damaged: a folder holds no {manifest.kind} store")
    return manifest


def _create_folder(path: Path, manifest: Manifest, quantiser: ProductQuantiser | None) -> None:
    """Write an empty store under `path`, whole or not at all."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "there is a store already; open it" if has_store(path) else "it is not empty"
        raise TrichromeError(f"{path}: cannot create a store here: {what}, or choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = Path(mkdtemp(dir=path.parent, prefix=_prefix(path)))
        try:
            with FileLock(temporary / "lock"):  # says that somebody is at work here
                _implementation(manifest.kind).create(temporary, manifest)
                if quantiser is not None:
                    quantiser.save(temporary / QUANTISER)
                write_json(temporary / "manifest.json", manifest_json(manifest))
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
