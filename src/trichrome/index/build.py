"""Indexing: a stream of documents into a store, in acknowledged batches, picking up where it stopped.

The payload of a document is {"text", "title", "lang", **metadata} (title and lang where it has them) and,
under `HASH_FIELD`, the hash of all that. A document whose hash is stored already is skipped, which makes a
second run over the same corpus cheap and a killed run continue.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from trichrome.embeddings import Embeddings
from trichrome.errors import TrichromeError
from trichrome.index.checks import check_payload
from trichrome.index.keys import hash_ids
from trichrome.index.store import Store
from trichrome.records import Document, Payload

#: Payload names that indexing sets; metadata may not use them.
TEXT_FIELDS = ("text", "title", "lang")
HASH_FIELD = "_hash"

_LOOKED_UP = 1024  # documents whose stored hashes are looked up together, at most
_FAILURES_KEPT = 1000  # of which the report gives the reason; all are counted


class PassageEncoder(Protocol):
    """What indexing needs of an encoder."""

    def encode(self, texts: Sequence[str], kind: str) -> Embeddings:
        """All outputs of N texts, in their order; kind is "passage" here."""


@dataclass
class IndexReport:
    """What indexing did so far.

    added, updated, skipped (unchanged), failed, deleted: numbers of documents. failures: id and reason of
    the first thousand that failed. seconds: since the start; encoded: texts encoded in that time.
    """

    added: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    deleted: int = 0
    encoded: int = 0
    seconds: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """Documents that are in the store now thanks to this run or an earlier one."""
        return self.added + self.updated + self.skipped

    @property
    def texts_per_second(self) -> float:
        return self.encoded / self.seconds if self.seconds else 0.0


def index_documents(
    store: Store,
    encoder: PassageEncoder,
    documents: Iterable[Document],
    *,
    batch: int = 256,
    read_ahead: int = 2048,
    prune: bool = False,
    optimize: bool = True,
    progress: Callable[[IndexReport], None] | None = None,
) -> IndexReport:
    """Encode and store documents that are new or changed; the report counts what was done.

    documents: read as a stream. batch: documents encoded and acknowledged at once. read_ahead: changed
    documents read before they are encoded, the longest first, so that a batch holds texts of like length.
    prune: delete stored documents that the source no longer holds. optimize: make search fast at the end.
    progress: called with the running report after every batch.

    A document that can't be stored (no text at all, an id given before, metadata that is not JSON or uses
    a reserved name) is counted as failed and named in the report; the others go on. TrichromeError from the
    store (a full disk, say) ends the run; what was acknowledged stays, and the next run continues there.
    """
    if batch < 1 or read_ahead < 1:
        raise TrichromeError(f"batch and read_ahead must be positive, got {batch} and {read_ahead}")
    report, began = IndexReport(), time.perf_counter()
    seen: set[int] = set()  # hashes of the ids: a corpus of 10 million takes about 600 MB of them

    def tell() -> None:
        report.seconds = time.perf_counter() - began
        if progress is not None:
            progress(report)

    changed = _changed(store, documents, seen, report, min(read_ahead, _LOOKED_UP))
    while window := list(islice(changed, read_ahead)):
        window.sort(key=lambda item: len(item[0].content), reverse=True)
        for start in range(0, len(window), batch):
            part = window[start : start + batch]
            texts = [document.content for document, _, _ in part]
            embeddings = encoder.encode(texts, kind="passage")
            store.add(
                [document.id for document, _, _ in part], embeddings, [payload for _, payload, _ in part]
            )
            report.encoded += len(part)
            replaced = sum(known for _, _, known in part)
            report.updated += replaced
            report.added += len(part) - replaced
            tell()
    if prune:
        report.deleted = _prune(store, seen, batch)
    if optimize:
        store.optimize()
    tell()
    return report


def payload_of(document: Document) -> Payload:
    """What is stored of a document. Raises TrichromeError if its metadata can't be."""
    taken = [name for name in document.metadata if name in TEXT_FIELDS or name == HASH_FIELD]
    if taken:
        raise TrichromeError(
            f"document {document.id!r}: metadata may not use the name {taken[0]!r}; rename that field"
        )
    payload: Payload = {"text": document.text}
    if document.title:
        payload["title"] = document.title
    if document.lang is not None:
        payload["lang"] = document.lang
    payload |= document.metadata
    check_payload(document.id, payload)
    return {**payload, HASH_FIELD: _hash(payload)}


def document_of(id: str, payload: Payload) -> Document:
    """The document that was stored with this payload."""
    metadata = {k: v for k, v in payload.items() if k not in TEXT_FIELDS and k != HASH_FIELD}
    lang = payload.get("lang")
    return Document(
        id,
        str(payload.get("text", "")),
        str(payload.get("title", "")),
        None if lang is None else str(lang),
        metadata,
    )


def _hash(payload: Payload) -> str:
    canonical = json.dumps(payload, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _changed(
    store: Store, documents: Iterable[Document], seen: set[int], report: IndexReport, group_size: int
) -> Iterator[tuple[Document, Payload, bool]]:
    """(document, payload, whether its id is stored) of those that are new or changed; counts the others."""
    source = iter(documents)
    while group := list(islice(source, group_size)):
        usable: list[tuple[Document, Payload]] = []
        for document in group:
            reason = None
            try:
                payload = payload_of(document)
                key = int(hash_ids([document.id])[0])
                if not document.content.strip():
                    reason = "neither title nor text to encode"
                elif key in seen:
                    reason = "the id was given before; the first document with it counts"
                seen.add(key)  # a document that fails now is still in the source: prune leaves it
            except (TrichromeError, UnicodeEncodeError) as error:
                reason = str(error)
            if reason is None:
                usable.append((document, payload))
                continue
            report.failed += 1
            if len(report.failures) < _FAILURES_KEPT:
                report.failures.append((document.id, reason))
        stored = stored_hashes(store, [document.id for document, _ in usable])
        for document, payload in usable:
            if stored.get(document.id) == payload[HASH_FIELD]:
                report.skipped += 1
            else:
                yield document, payload, document.id in stored


def stored_hashes(store: Store, ids: Sequence[str]) -> dict[str, object]:
    """{id: hash} of those that are stored (hash None where another program stored them)."""
    rows = store.rows_of(ids)
    known = [id for id, row in zip(ids, rows.tolist(), strict=True) if row >= 0]
    payloads = store.payloads(rows[rows >= 0], [HASH_FIELD])
    return {id: payload.get(HASH_FIELD) for id, payload in zip(known, payloads, strict=True)}


def _prune(store: Store, seen: set[int], batch: int) -> int:
    """Delete stored documents whose id was not seen; how many."""
    stored = [id for id, _ in store.scan(fields=[])]  # first all of them: deleting would disturb the scan
    gone = [id for id, key in zip(stored, hash_ids(stored).tolist(), strict=True) if key not in seen]
    return sum(store.delete(gone[start : start + batch]) for start in range(0, len(gone), batch))
