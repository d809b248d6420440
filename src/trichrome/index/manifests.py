"""Manifests as JSON: what every store keeps beside its data, read back and checked."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.index.store import LAYOUT_VERSION, Manifest
from trichrome.index.urls import SERVER_KINDS

#: The kinds of stores that are folders.
KINDS = ("embedded", "exact")

#: What a kind of store can read in a dense search, its default first. Servers have settings of their own.
DENSE_SEARCH = {"embedded": ("int8", "float32", "binary"), "exact": ("float32", "int8", "binary", "pq")}
#: The dtypes in which a kind of store can keep dense vectors.
DENSE_DTYPES = {"exact": ("float32", "pq")}
#: The file beside the manifest that holds the quantiser of a store of dense codes.
QUANTISER = "quantiser.safetensors"
#: How a kind of store can find documents by their sparse vectors.
SPARSE_SEARCH = {"exact": ("exact", "seismic")}
#: The dtypes in which a kind of store can keep token vectors.
TOKEN_DTYPES = {"exact": ("float16", "float32", "int8", "int4")}
_NO_CHOICE, _FLOATS = ("float32",), ("float16", "float32")


def default_dense_search(kind: str) -> str:
    """What a store of this kind reads in a dense search where nothing else was asked for."""
    return DENSE_SEARCH.get(kind, _NO_CHOICE)[0]


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values."""
    return asdict(manifest)


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """The manifest in a JSON text; `where` it stands begins the message of every TrichromeError."""
    try:
        values: Any = json.loads(text)
        version = values["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise TrichromeError(
            f"{where}: the manifest is damaged ({error!r}); index the documents again"
        ) from None
    if version != LAYOUT_VERSION:
        older = isinstance(version, int) and version < LAYOUT_VERSION
        cure = "index the documents again" if older else "upgrade trichrome"
        raise TrichromeError(
            f"{where}: the store has layout version {version}, this trichrome reads {LAYOUT_VERSION}; {cure}"
        )
    if isinstance(values.get("kind"), str):  # stores from before there was a choice
        values.setdefault("dense_search", default_dense_search(values["kind"]))
        values.setdefault("dense_dtype", "float32")
        values.setdefault("sparse_search", "exact")
    if set(values) != (names := {field.name for field in fields(Manifest)}):
        odd = sorted(set(values) ^ names)
        raise TrichromeError(f"{where}: the manifest is damaged (missing or unknown: {', '.join(odd)})")
    manifest = Manifest(**values)
    try:
        check_manifest(manifest)
    except TrichromeError as error:
        raise TrichromeError(f"{where}: the manifest is damaged: {error}") from None
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Raise TrichromeError for a manifest that no store can have."""
    kinds = (*KINDS, *SERVER_KINDS)
    if manifest.kind not in kinds:
        raise TrichromeError(f"unknown kind of store {manifest.kind!r}; there are {', '.join(kinds)}")
    choices = {
        "multivector_dtype": TOKEN_DTYPES.get(manifest.kind, _FLOATS),
        "dense_search": DENSE_SEARCH.get(manifest.kind, _NO_CHOICE),
        "dense_dtype": DENSE_DTYPES.get(manifest.kind, _NO_CHOICE),
        "sparse_search": SPARSE_SEARCH.get(manifest.kind, ("exact",)),
    }
    for name, known in choices.items():
        if getattr(manifest, name) not in known:
            raise TrichromeError(
                f"{name} of the {manifest.kind} store must be {' or '.join(known)}, "
                f"not {getattr(manifest, name)!r}"
            )
    if manifest.dense_dtype == "pq" and (manifest.dense_search != "pq" or manifest.dense_dim is None):
        raise TrichromeError("dense_dtype pq goes with dense vectors and dense_search pq")
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


def check_model(manifest: Manifest, fingerprint: str, name: str) -> None:
    """Raise ModelMismatch unless the store was built with the model of this fingerprint."""
    if manifest.fingerprint != fingerprint:
        same = "the same name but other weights or settings" if manifest.model == name else f"not {name!r}"
        raise ModelMismatch(
            f"the store was built with model {manifest.model!r} (fingerprint {manifest.fingerprint:.12}), "
            f"{same} ({fingerprint:.12}); query with that model, or index the documents again with this one"
        )
