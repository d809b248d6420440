"""The indexes of a server: each a store, its lock, and how its documents are cut into passages."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from trichrome.embeddings import Embedding
from trichrome.errors import TrichromeError
from trichrome.formats.passages import cut_document
from trichrome.index import Store, document_of
from trichrome.index.build import HASH_FIELD, payload_of
from trichrome.records import Document, Payload
from trichrome.search import Searcher
from trichrome.serving.answers import columns
from trichrome.serving.batcher import Batcher
from trichrome.serving.errors import Refusal
from trichrome.serving.locks import ReadWriteLock
from trichrome.serving.protocol import ServedEncoder
from trichrome.serving.shelf import Shelf

T = TypeVar("T")
log = logging.getLogger("trichrome.serving")

_PROBED = 64  # passages of one document that are looked for at once

#: The id of a note that a store holds while passages of an old version are still to be removed. It is stored
#: together with the new version's passages, in one call, so that a crash in between is seen and made good.
REMOVING = "_trichrome_removing"


@dataclass
class Changes:
    """What adding documents did, counted in passages; cut: documents that became several."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    cut: int = 0


@dataclass
class ServedIndex:
    """One index by its name."""

    name: str
    store: Store
    searcher: Searcher
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    removed: bool = False

    def passage_size(self, encoder: ServedEncoder) -> tuple[int, int]:
        """Tokens of a passage and how many the next repeats: as it was indexed, or as much as is read."""
        longest = longest_passage(encoder)
        size, overlap = (self.store.manifest.settings.get(name) for name in ("passage_tokens", "overlap"))
        tokens = min(size, longest) if isinstance(size, int) else longest
        return tokens, min(overlap, tokens // 2) if isinstance(overlap, int) else min(32, tokens // 2)


def longest_passage(encoder: ServedEncoder) -> int:
    """Tokens of a passage that is read whole, with its prompt and special tokens."""
    prompt = len(encoder.tokenizer.plain([encoder.config.prompts["passage"]])[0])
    return max(encoder.config.max_tokens - prompt - 4, 1)


class Indexes:
    """All indexes, used from an event loop; the stores are touched in threads only."""

    def __init__(
        self,
        encoder: ServedEncoder,
        stores: Mapping[str, Store],
        batcher: Batcher,
        shelf: Shelf | None = None,
        threads: int = 4,
    ) -> None:
        """shelf: where indexes are made and removed, if they are. ModelMismatch where a store was built with
        another model."""
        self._encoder, self._batcher, self._shelf = encoder, batcher, shelf
        self._making = asyncio.Lock()
        self._threads = ThreadPoolExecutor(threads, "store")
        self.all = {
            name: ServedIndex(name, store, Searcher(encoder, store)) for name, store in stores.items()
        }
        for name, store in stores.items():
            if removed := finish_removal(store):
                log.warning(
                    "index %s: removed %d passages that a crash had left of old versions", name, removed
                )

    def get(self, name: str) -> ServedIndex:
        """Refusal 404 where there is none of this name."""
        if name not in self.all:
            there = ", ".join(sorted(self.all)) or "none"
            raise Refusal(404, f"there is no index {name!r}; there are: {there}", param="name")
        return self.all[name]

    async def warm(self, query: Embedding) -> None:
        """Search each index once, so that what is compiled or mapped at the first search is there."""
        for index in self.all.values():
            for mode in set(index.searcher.signals) & {"dense", "sparse"}:
                await self.read(index, partial(index.searcher.search, query, mode, 1))

    async def read(self, index: ServedIndex, call: Callable[[], T]) -> T:
        """Run something that reads the store, in a thread, beside other readers."""

        def locked() -> T:
            with index.lock.reading():
                _refuse_removed(index)
                return call()

        return await self._in_thread(locked)

    async def write(self, index: ServedIndex, call: Callable[[], T]) -> T:
        """Run something that changes the store, in a thread, alone. It is durable when this returns.

        What the store itself can't do (a full disk) is 503: the request was right."""

        def locked() -> T:
            with index.lock.writing():
                _refuse_removed(index)
                try:
                    return call()
                except TrichromeError as error:
                    log.error("index %s: %s", index.name, error)
                    message = f"index {index.name!r} could not store it; the log says why"
                    raise Refusal(503, message, retry_after=30) from error

        return await asyncio.shield(self._in_thread(locked))  # a change that began is not left behind

    def _in_thread(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def create(
        self, name: str, kind: str, passage_tokens: int | None, overlap: int | None
    ) -> tuple[ServedIndex, bool]:
        """An empty index, and True; or the one of this name that was made alike, and False.

        Refusal 403 where this server makes none, 409 where there is another of this name, 422 for passages
        that the model can't read whole; see `Shelf.create`.
        """
        longest = longest_passage(self._encoder)
        if passage_tokens is not None and passage_tokens > longest:
            message = f"passages of {passage_tokens} tokens: the model reads at most {longest}"
            raise Refusal(422, message, param="passage_tokens")
        if overlap is not None and overlap > (passage_tokens or longest) // 2:
            raise Refusal(422, "the overlap is at most half of a passage", param="overlap")
        async with self._making:
            shelf = self._shelf_or_refuse()
            if name in self.all:
                manifest = self.all[name].store.manifest
                there = [manifest.kind, *map(manifest.settings.get, ("passage_tokens", "overlap"))]
                if there != [kind, passage_tokens, overlap]:
                    message = f"there is an index {name!r} that was made otherwise: remove it first"
                    raise Refusal(409, message, param="name")
                return self.all[name], False

            def make() -> ServedIndex:
                store = shelf.create(name, self._encoder, kind, passage_tokens, overlap)
                self.all[name] = ServedIndex(name, store, Searcher(self._encoder, store))
                return self.all[name]

            return await asyncio.shield(self._in_thread(make)), True

    async def remove(self, name: str) -> None:
        """Remove an index with all its documents, when what began on it is done.

        Refusal 404 where there is none, 403 where it doesn't lie where this server makes indexes.
        """
        async with self._making:
            index, shelf = self.get(name), self._shelf_or_refuse()
            if name not in shelf.names:
                message = f"index {name!r} lies elsewhere: remove it there"
                raise Refusal(403, message, param="name")

            def remove() -> None:
                try:
                    shelf.remove(name, index.store)
                except OSError as error:
                    raise TrichromeError(f"could not be removed ({error.strerror or error})") from error
                index.removed = True
                del self.all[name]

            await self.write(index, remove)

    def _shelf_or_refuse(self) -> Shelf:
        if self._shelf is None:
            raise Refusal(403, "this server makes and removes no indexes")
        return self._shelf

    async def add(self, index: ServedIndex, documents: Sequence[Document]) -> tuple[Changes, int]:
        """Add or replace documents, cut into passages as the index's others are; the changes, and the tokens
        that were encoded. Passages that are stored already, unchanged, are not encoded again.

        One store call holds all of a request: after a crash all of them are there or none. Passages that a
        document had before and has no longer are removed right after that; a note that is stored with the
        new ones lets the next start of a server do so where a crash came in between.
        """
        ids = [document.id for document in documents]
        if REMOVING in ids:
            raise Refusal(422, f"the id {REMOVING!r} is taken", param="documents")
        if len(set(ids)) < len(ids):
            twice = next(id for id in ids if ids.count(id) > 1)
            raise Refusal(422, f"document {twice!r} is given twice", param="documents")
        passages, payloads = await self._in_thread(lambda: self._passages(index, documents))
        names = [passage.id for passage in passages]
        made: dict[int, Embedding] = {}  # by the passage's place
        tokens = 0

        def changed(known: Mapping[str, object]) -> list[int]:
            """The passages that are not stored as they are here, and not encoded yet."""
            differ = (i for i, payload in enumerate(payloads) if known.get(names[i]) != payload[HASH_FIELD])
            return [i for i in differ if i not in made]

        def change() -> Changes | list[int]:
            """Store it all; or say what must be encoded besides, where another request came in between."""
            known = _hashes(index.store, names)
            if lacking := changed(known):
                return lacking
            stale = _stale(index.store, passages)
            _store(index.store, {names[i]: (made[i], payloads[i]) for i in sorted(made)}, stale)
            updated = sum(names[i] in known for i in made)
            cut = {p.metadata["document"] for p in passages if p.id != p.metadata["document"]}
            return Changes(len(made) - updated, updated, len(passages) - len(made), len(stale), len(cut))

        wanted = changed(await self.read(index, lambda: _hashes(index.store, names)))
        while True:
            encoded = await self._batcher.encode(
                [(passages[i].content, "passage") for i in wanted],
                index.searcher.signals,
                truncate=True,  # a title may be longer than half of a passage
                param="documents",
            )
            made |= dict(zip(wanted, encoded.texts, strict=True))
            tokens += encoded.tokens
            done = await self.write(index, change)
            if isinstance(done, Changes):
                return done, tokens
            wanted = done

    def _passages(
        self, index: ServedIndex, documents: Sequence[Document]
    ) -> tuple[list[Document], list[Payload]]:
        tokens, overlap = index.passage_size(self._encoder)
        passages = []
        for document in documents:
            if not document.content.strip():
                message = f"document {document.id!r} has neither title nor text to encode"
                raise Refusal(422, message, param="documents")
            passages += cut_document(
                document, self._encoder.tokenizer.offsets, max_tokens=tokens, overlap=overlap
            )
        ids = [passage.id for passage in passages]
        if len(set(ids)) < len(ids):
            raise Refusal(422, "a document has the id of another's passage (ID#NUMBER)", param="documents")
        return passages, [payload_of(passage) for passage in passages]

    async def documents(self, index: ServedIndex, id: str) -> list[Document]:
        """The stored passages of a document, in order; or the one that has this id itself."""

        def read() -> list[Document]:
            rows = index.store.rows_of(_stored(index.store, id) or [id])
            return [document_of(*found) for found in index.store.documents(rows[rows >= 0])]

        return await self.read(index, read)

    async def delete(self, index: ServedIndex, ids: Sequence[str]) -> int:
        """Remove documents with all their passages; how many passages."""

        def change() -> int:
            stored = [found for id in dict.fromkeys(ids) for found in _stored(index.store, id)]
            return index.store.delete(list(dict.fromkeys(stored))) if stored else 0

        return await self.write(index, change)

    async def close(self) -> None:
        """Finish what began, close the stores."""
        await asyncio.to_thread(self._threads.shutdown)
        for index in self.all.values():
            await asyncio.to_thread(index.store.close)


def _store(store: Store, new: Mapping[str, tuple[Embedding, Payload]], stale: Sequence[str]) -> None:
    """Add passages and remove stale ones, so that no crash leaves one done without the other for good."""
    added = dict(new)
    if new and stale:
        some = next(iter(new.values()))[0]
        added[REMOVING] = some, {"document": REMOVING, "ids": [*stale]}
    if added:
        store.add([*added], columns([made for made, _ in added.values()]), [p for _, p in added.values()])
    if stale:
        store.delete([*stale, REMOVING])


def finish_removal(store: Store) -> int:
    """Remove what a crash kept a server from removing, the note of it included; how many passages."""
    row = store.rows_of([REMOVING])
    if row[0] < 0:
        return 0
    ids = store.payloads(row)[0].get("ids")
    stale = [id for id in ids if isinstance(id, str)] if isinstance(ids, list) else []
    return store.delete([*stale, REMOVING]) - 1


def _refuse_removed(index: ServedIndex) -> None:
    if index.removed:
        raise Refusal(404, f"index {index.name!r} was removed meanwhile", param="name")


def _hashes(store: Store, ids: Sequence[str]) -> dict[str, object]:
    """{id: hash} of those that are stored."""
    rows = store.rows_of(ids)
    known = [id for id, row in zip(ids, rows.tolist(), strict=True) if row >= 0]
    payloads = store.payloads(rows[rows >= 0], [HASH_FIELD])
    return {id: payload.get(HASH_FIELD) for id, payload in zip(known, payloads, strict=True)}


def _stored(store: Store, id: str) -> list[str]:
    """The ids under which a document is stored: its own, or id#0, id#1 … as far as they go."""
    found = _of_document(store, [id], id)
    start = 0
    while True:
        there = _of_document(store, [f"{id}#{k}" for k in range(start, start + _PROBED)], id)
        found += there
        start += _PROBED
        if len(there) < _PROBED:
            return found


def _of_document(store: Store, names: Sequence[str], id: str) -> list[str]:
    """Those of these ids that are stored and belong to the document (other ids may look alike)."""
    rows = store.rows_of(names)
    known = [name for name, row in zip(names, rows.tolist(), strict=True) if row >= 0]
    payloads = store.payloads(rows[rows >= 0], ["document"])
    return [n for n, payload in zip(known, payloads, strict=True) if payload.get("document", n) == id]


def _stale(store: Store, passages: Sequence[Document]) -> list[str]:
    """Ids of passages that these documents had when they were cut otherwise.

    Passages are numbered without a gap, so it is enough to look whether the next number is there."""
    kept = {passage.id for passage in passages}
    numbers = Counter(str(passage.metadata["document"]) for passage in passages)
    whole = [id for id in numbers if id in kept]
    asked = [f"{id}#0" for id in whole]
    asked += [name for id, n in numbers.items() if id not in kept for name in (id, f"{id}#{n}")]
    owners = whole + [id for id in numbers if id not in kept for _ in range(2)]
    there = store.rows_of(asked) >= 0
    changed = {owner for owner, found in zip(owners, there.tolist(), strict=True) if found}
    return [id for owner in sorted(changed) for id in _stored(store, owner) if id not in kept]
