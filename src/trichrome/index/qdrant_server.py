"""Stores on a Qdrant server or cluster: create a collection, open one, and refuse what does not fit.

The manifest stands in the collection's metadata, which Qdrant keeps from version 1.16 on. `qdrant_address`
says what a URL may hold, `qdrant_store` what the store does.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Any

from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.index.manifests import manifest_json, parse_manifest
from trichrome.index.points import HNSW_EF_CONSTRUCT, HNSW_M, INDEXED_FIELDS, field_path
from trichrome.index.qdrant_address import Address, connect, parse
from trichrome.index.qdrant_calls import ask
from trichrome.index.qdrant_store import QdrantStore
from trichrome.index.store import Manifest

models: Any = require("qdrant_client.models", "cluster")

#: Where the collection's metadata keeps the manifest, as a JSON text.
MANIFEST_KEY = "trichrome"


def create_at(url: str, manifest: Manifest) -> QdrantStore:
    """Create the collection of a URL and open it; see `urls.Server`."""
    address = parse(url)
    client = connect(address, create=True)
    try:
        if _exists(address, client):
            raise TrichromeError(
                f"{address.shown}: cannot create a store here: there is a collection already; open it, or "
                "choose another name"
            )
        ask(
            address, "could not create the collection", partial(_create, address, client, manifest), retries=0
        )
        try:
            _finish(address, client)
        except BaseException:
            with suppress(TrichromeError):
                ask(address, "", partial(client.delete_collection, address.collection))
            raise
        return QdrantStore(address, client, _manifest(address, _info(address, client)))
    except BaseException:
        client.close()
        raise


def open_at(url: str) -> QdrantStore:
    """Open the collection of a URL; see `urls.Server`."""
    address = parse(url)
    client = connect(address)
    try:
        if not _exists(address, client):
            raise TrichromeError(
                f"{address.shown}: there is no such collection; create one with `trichrome index`"
            )
        info = _info(address, client)
        manifest = _manifest(address, info)
        _check_settings(address, info)
    except BaseException:
        client.close()
        raise
    return QdrantStore(address, client, manifest)


def manifest_at(url: str) -> Manifest:
    """The manifest of the collection of a URL; see `urls.Server`."""
    with open_at(url) as store:
        return store.manifest


def exists_at(url: str) -> bool:
    """Whether there is a collection at a URL; see `urls.Server`."""
    address = parse(url)
    if address.folder is not None and not (address.folder / "meta.json").is_file():
        return False
    client = connect(address)
    try:
        return _exists(address, client)
    finally:
        client.close()


def _exists(address: Address, client: Any) -> bool:
    return bool(ask(address, "could not be reached", partial(client.collection_exists, address.collection)))


def _info(address: Address, client: Any) -> Any:
    failed = "could not ask for the state of the collection"
    return ask(address, failed, partial(client.get_collection, address.collection))


def _create(address: Address, client: Any, manifest: Manifest) -> None:
    vectors = {}
    int8 = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    )
    if manifest.dense_dim is not None:
        vectors["dense"] = models.VectorParams(
            size=manifest.dense_dim,
            distance=models.Distance.DOT,
            hnsw_config=models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT),
            quantization_config=int8 if address.quantization else None,
            on_disk=address.quantization is not None,  # then the copies stay in memory
        )
    if manifest.multivector_dim is not None:
        datatypes = {"float16": models.Datatype.FLOAT16, "float32": models.Datatype.FLOAT32}
        vectors["multivector"] = models.VectorParams(
            size=manifest.multivector_dim,
            distance=models.Distance.DOT,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            datatype=datatypes[manifest.multivector_dtype],
            hnsw_config=models.HnswConfigDiff(m=0),  # they only score candidates
            on_disk=True,
        )
    client.create_collection(
        address.collection,
        vectors_config=vectors,
        sparse_vectors_config={"sparse": models.SparseVectorParams()} if manifest.sparse else None,
        shard_number=address.shards,
        replication_factor=address.replicas,
        write_consistency_factor=address.write_consistency,
        metadata={MANIFEST_KEY: json.dumps(manifest_json(manifest), ensure_ascii=False)},
    )


def _finish(address: Address, client: Any) -> None:
    """What a new collection needs besides."""
    if (_info(address, client).config.metadata or {}).get(MANIFEST_KEY) is None:
        raise TrichromeError(
            f"{address.shown}: the server does not keep a collection's metadata; Qdrant 1.16 or newer does"
        )
    for name in INDEXED_FIELDS if address.folder is None else ():  # local mode has no such indexes
        keyword = models.PayloadSchemaType.KEYWORD
        create = partial(
            client.create_payload_index, address.collection, field_path(name), keyword, wait=True
        )
        ask(address, f"could not index the field {name!r}", create)


def _manifest(address: Address, info: Any) -> Manifest:
    """The manifest in a collection's metadata, which must fit the collection."""
    text = (info.config.metadata or {}).get(MANIFEST_KEY)
    if not isinstance(text, str):
        raise TrichromeError(
            f"{address.shown}: this collection was not made by trichrome; choose another name"
        )
    manifest = parse_manifest(text, address.shown)
    dense, sparse = info.config.params.vectors or {}, info.config.params.sparse_vectors or {}
    there = {name: getattr(dense.get(name), "size", None) for name in ("dense", "multivector")}
    wanted = {"dense": manifest.dense_dim, "multivector": manifest.multivector_dim}
    if there != wanted or manifest.sparse != ("sparse" in sparse):
        raise TrichromeError(f"{address.shown}: the collection's vectors are not those of its manifest")
    return manifest


def _check_settings(address: Address, info: Any) -> None:
    """Refuse a URL that asks for another shape than the collection has."""
    params = info.config.params
    quantized = getattr((params.vectors or {}).get("dense"), "quantization_config", None) is not None
    there = {
        "shards": params.shard_number,
        "replicas": params.replication_factor,
        "write_consistency": params.write_consistency_factor,
        "quantization": "int8" if quantized else None,
    }
    for name, value in there.items():
        wanted = getattr(address, name)
        if wanted is not None and wanted != value:
            raise TrichromeError(
                f"{address.shown}: the collection has {name} {value or 'none'}, not {wanted}; leave {name} "
                "out of the URL, or create another collection"
            )
