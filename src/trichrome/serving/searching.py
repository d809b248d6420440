"""Endpoints over indexes: which there are, search, and their documents."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from trichrome.embeddings import Embedding
from trichrome.records import Document
from trichrome.search import Hit
from trichrome.search.modes import mode_named
from trichrome.serving.answers import answer
from trichrome.serving.batcher import Batcher
from trichrome.serving.errors import Refusal, documented
from trichrome.serving.index_schemas import (
    DeletedAnswer,
    DeleteRequest,
    DocumentAnswer,
    DocumentsAnswer,
    DocumentsRequest,
    IndexAnswer,
    IndexesAnswer,
    IndexRequest,
    SearchAnswer,
    SearchRequest,
    ValuesAnswer,
)
from trichrome.serving.indexes import Indexes, ServedIndex
from trichrome.serving.values import count_values

_EXPLAINED = 100

Name = Annotated[str, Path(description="The index.", min_length=1)]
#: No store has a name with a quotation mark in it.
Field = Annotated[str, Query(min_length=1, max_length=512, pattern=r'^[^"\\]+$')]
DocumentId = Annotated[str, Path(description="The document; may hold slashes.", min_length=1, max_length=512)]


def index_routes(indexes: Indexes, batcher: Batcher) -> APIRouter:
    """The endpoints over these indexes."""
    router, limits = APIRouter(tags=["indexes"]), batcher.limits

    @router.get("/indexes", response_model=IndexesAnswer, responses=documented())
    async def all_indexes() -> Response:
        """The indexes of this server."""
        served = [index for _, index in sorted(indexes.all.items())]
        found = [await describe(index) for index in served if not index.removed]
        return await answer(lambda: {"indexes": found})

    @router.get("/indexes/{name}", response_model=IndexAnswer, responses=documented(404))
    async def one_index(name: Name) -> Response:
        """One index."""
        found = await describe(indexes.get(name))
        return await answer(lambda: found)

    @router.put(
        "/indexes/{name}",
        response_model=IndexAnswer,
        status_code=201,
        responses={**documented(403, 409), 200: {"model": IndexAnswer, "description": "It was there."}},
    )
    async def create(name: Name, body: IndexRequest | None = None) -> Response:
        """Make an empty index. One that is there and was made alike is left as it is."""
        wanted = body or IndexRequest()
        index, made = await indexes.create(name, wanted.kind, wanted.passage_tokens, wanted.overlap)
        found = await describe(index)
        response = await answer(lambda: found)
        response.status_code = 201 if made else 200
        return response

    @router.delete("/indexes/{name}", status_code=204, responses=documented(403, 404))
    async def remove(name: Name) -> Response:
        """Remove an index with all its documents."""
        await indexes.remove(name)
        return Response(status_code=204)

    async def describe(index: ServedIndex) -> dict[str, Any]:
        manifest = index.store.manifest
        return {
            "name": index.name,
            "kind": manifest.kind,
            "model": manifest.model,
            "documents": await indexes.read(index, index.store.count),
            "signals": list(index.searcher.signals),
            "dense_dim": manifest.dense_dim,
            "multivector_dim": manifest.multivector_dim,
        }

    @router.post("/indexes/{name}/search", response_model=SearchAnswer, responses=documented(404, 413))
    async def search(name: Name, body: SearchRequest) -> Response:
        """The best passages for a query, with their three scores and, if asked for, their reasons."""
        index = indexes.get(name)
        if body.k > (most := _EXPLAINED if body.explain else limits.hits):
            raise Refusal(422, f"k is {body.k}, at most {most} hits are given", param="k")
        if body.depth is not None and body.depth > limits.depth:
            raise Refusal(422, f"depth is {body.depth}, at most {limits.depth}", param="depth")
        mode_named(body.mode, preset=body.preset, weights=body.weights)  # refuse it before the work
        made = await batcher.encode(
            [(body.query, "query")], index.searcher.signals, truncate=body.truncate, param="query"
        )
        query = made.texts[0]

        def find() -> dict[str, Any]:
            hits = index.searcher.search(
                query,
                body.mode,
                body.k,
                body.filter,
                body.weights,
                body.depth,
                body.fusion,
                preset=body.preset,
                candidates=body.candidates,
            )
            found: dict[str, Any] = {"hits": [_hit(index, body, query, hit) for hit in hits]}
            if body.explain:
                found["query"] = [asdict(token) for token in index.searcher.weigh(body.query, query)]
            return found

        found = await indexes.read(index, find)
        about = {"index": name, "mode": body.mode, "tokens": made.tokens, "truncated": bool(made.truncated)}
        return await answer(lambda: {**about, **found})

    @router.get("/indexes/{name}/values", response_model=ValuesAnswer, responses=documented(404))
    async def values(name: Name, field: Field) -> Response:
        """The values of a field (lang, or one of the metadata) and how many passages have each: what a
        filter can be set to. Text only; a large index is looked at in part."""
        index = indexes.get(name)
        found = await indexes.read(index, lambda: count_values(index.store, field))
        return await answer(lambda: {"field": field, **found})

    @router.post("/indexes/{name}/documents", response_model=DocumentsAnswer, responses=documented(404, 413))
    async def add(name: Name, body: DocumentsRequest) -> Response:
        """Add documents, or replace those whose ids are stored. Durable when answered; long documents are cut
        into passages, unchanged ones are left alone."""
        index = indexes.get(name)
        if len(body.documents) > limits.texts:
            message = f"{len(body.documents)} documents, at most {limits.texts} are taken at once"
            raise Refusal(413, message, param="documents")
        documents = [Document(d.id, d.text, d.title, d.lang, d.metadata) for d in body.documents]
        changes, tokens = await indexes.add(index, documents)
        return await answer(lambda: {**asdict(changes), "tokens": tokens})

    @router.post(
        "/indexes/{name}/documents/delete", response_model=DeletedAnswer, responses=documented(404, 413)
    )
    async def delete_several(name: Name, body: DeleteRequest) -> Response:
        """Remove documents with all their passages; those that are not stored are passed over."""
        index = indexes.get(name)
        if len(body.ids) > limits.texts:
            raise Refusal(413, f"{len(body.ids)} ids, at most {limits.texts} are taken at once", param="ids")
        deleted = await indexes.delete(index, body.ids)
        return await answer(lambda: {"deleted": deleted})

    @router.post("/indexes/{name}/optimize", response_model=IndexAnswer, responses=documented(404))
    async def optimize(name: Name) -> Response:
        """Build or compact what makes search fast, after many changes. Searches wait for its end."""
        index = indexes.get(name)
        await indexes.write(index, index.store.optimize)
        found = await describe(index)
        return await answer(lambda: found)

    @router.get(
        "/indexes/{name}/documents/{id:path}", response_model=DocumentAnswer, responses=documented(404)
    )
    async def get(name: Name, id: DocumentId) -> Response:
        """A stored document."""
        passages = await indexes.documents(indexes.get(name), id)
        if not passages:
            raise Refusal(404, f"index {name!r} has no document {id!r}", param="id")
        return await answer(lambda: {"id": id, "passages": [asdict(p) for p in passages]})

    @router.delete(
        "/indexes/{name}/documents/{id:path}", response_model=DeletedAnswer, responses=documented(404)
    )
    async def delete(name: Name, id: DocumentId) -> Response:
        """Remove a document with all its passages."""
        deleted = await indexes.delete(indexes.get(name), [id])
        if not deleted:
            raise Refusal(404, f"index {name!r} has no document {id!r}", param="id")
        return await answer(lambda: {"deleted": deleted})

    return router


def _hit(index: ServedIndex, body: SearchRequest, query: Embedding, hit: Hit) -> dict[str, Any]:
    taken = ("text", "title", "lang")
    found: dict[str, Any] = {
        "id": hit.id,
        "text": hit.text,
        "title": hit.title,
        "lang": hit.lang,
        "metadata": {name: value for name, value in hit.payload.items() if name not in taken},
        "score": hit.score,
        "dense": hit.dense,
        "sparse": hit.sparse,
        "multivector": hit.multivector,
    }
    if body.explain:
        why = index.searcher.explain(body.query, hit, query, runners_up=body.runners_up)
        reasons = asdict(why)
        found["explanation"] = {"content": hit.content, **reasons}
    return found
