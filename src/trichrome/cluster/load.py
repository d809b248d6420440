"""An encoded corpus into a store, without encoding anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from trichrome.cluster.folder import EncodedCorpus
from trichrome.cluster.schema import Passages
from trichrome.cluster.shards import read_shard
from trichrome.embeddings import Embeddings
from trichrome.errors import TrichromeError
from trichrome.index import Place, Store, check_model, create_store
from trichrome.index.build import HASH_FIELD, IndexReport, stored_hashes
from trichrome.records import JSON

#: Passages stored and acknowledged at once.
BATCH = 512


def create_store_of(
    corpus: EncodedCorpus,
    place: Place,
    *,
    kind: str | None = None,
    settings: Mapping[str, JSON] | None = None,
) -> Store:
    """`index.create_store` for all the outputs of an encoded corpus."""
    encoding = corpus.encoding
    return create_store(
        place,
        model=encoding.model,
        fingerprint=encoding.fingerprint,
        dense_dim=encoding.dense_dim,
        sparse="sparse" in encoding.outputs,
        multivector_dim=encoding.multivector_dim,
        kind=kind,
        settings=index_settings(corpus) if settings is None else settings,
    )


def index_settings(corpus: EncodedCorpus) -> dict[str, JSON]:
    """What an index keeps of how its passages were made, as `trichrome index` would have written it."""
    encoding = corpus.encoding
    return {
        "model": corpus.manifest.model,
        "dtype": encoding.dtype,
        "passage_tokens": encoding.passage_tokens,
        "overlap": encoding.overlap,
    }


def load_encoded(
    store: Store,
    corpus: EncodedCorpus,
    *,
    batch: int = BATCH,
    optimize: bool = True,
    progress: Callable[[IndexReport], None] | None = None,
) -> IndexReport:
    """Store all passages that are new or changed; those that are stored already are skipped, so that a run
    that was stopped goes on where it was.

    batch: passages acknowledged at once. optimize: make search fast at the end. progress: called with the
    running report after every batch. The report's `encoded` counts what was stored, as nothing is encoded.
    TrichromeError: a store of another model or of other outputs, a damaged shard, an id that is given twice.
    """
    _check(store, corpus)
    corpus.check_ids()
    report, began = IndexReport(), time.perf_counter()

    def tell() -> None:
        report.seconds = time.perf_counter() - began
        if progress is not None:
            progress(report)

    for path in corpus.paths:
        for chunk in read_shard(path, corpus.encoding.outputs, columns=("id", "payload")):
            for start in range(0, len(chunk.ids), batch):
                _store(store, _slice(chunk, start, start + batch), report)
                tell()
    if optimize:
        store.optimize()
    tell()
    return report


def _store(store: Store, passages: Passages, report: IndexReport) -> None:
    known = stored_hashes(store, passages.ids)
    new = [
        i
        for i, (id, payload) in enumerate(zip(passages.ids, passages.payloads, strict=True))
        if id not in known or known[id] != payload.get(HASH_FIELD)
    ]
    report.skipped += len(passages.ids) - len(new)
    if not new:
        return
    ids = [passages.ids[i] for i in new]
    store.add(ids, _wide(passages.embeddings[new]), [passages.payloads[i] for i in new])
    replaced = sum(id in known for id in ids)
    report.updated += replaced
    report.added += len(new) - replaced
    report.encoded += len(new)


def _slice(passages: Passages, start: int, end: int) -> Passages:
    part: Sequence[str] = passages.ids[start:end]
    return Passages(part, passages.payloads[start:end], passages.embeddings[start:end])


def _wide(embeddings: Embeddings) -> Embeddings:
    """Dense vectors as an encoder gives them; the others are stored as they are."""
    if embeddings.dense is None:
        return embeddings
    return replace(embeddings, dense=np.asarray(embeddings.dense, np.float32))


def _check(store: Store, corpus: EncodedCorpus) -> None:
    encoding, manifest = corpus.encoding, store.manifest
    check_model(manifest, encoding.fingerprint, encoding.model)
    there = (manifest.dense_dim, manifest.sparse, manifest.multivector_dim)
    brought = (encoding.dense_dim, "sparse" in encoding.outputs, encoding.multivector_dim)
    if there != brought:
        raise TrichromeError(
            f"{corpus.out}: encoded with {', '.join(encoding.outputs)}, but the store holds other outputs "
            f"(dense, sparse, multivector are {there} there and {brought} here); load it into a new index"
        )
