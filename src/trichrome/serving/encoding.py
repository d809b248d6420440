"""Endpoints that encode: OpenAI's, text-embeddings-inference's, re-ranking, and all three outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from trichrome.embeddings import SIGNALS
from trichrome.scoring import M3_WEIGHTS, score, weighted
from trichrome.search.modes import mode_named
from trichrome.serving.answers import answer, columns, numbers, sparse_vector
from trichrome.serving.batcher import Batcher, Encoded
from trichrome.serving.errors import Refusal, documented
from trichrome.serving.schemas import (
    EmbeddingsAnswer,
    EmbeddingsRequest,
    EmbedRequest,
    EmbedSparseRequest,
    EncodeAnswer,
    EncodeRequest,
    ModelsAnswer,
    Rank,
    RerankAnswer,
    RerankDocumentsRequest,
    RerankRequest,
    SparseValue,
)


def encoding_routes(batcher: Batcher) -> APIRouter:
    """The endpoints over one batcher."""
    router, encoder = APIRouter(), batcher.encoder
    errors = documented(413)

    @router.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=errors, tags=["OpenAI"])
    async def embeddings(body: EmbeddingsRequest) -> Response:
        """Dense vectors; works with OpenAI's clients."""
        if body.dimensions not in (None, encoder.dense_dim):
            message = f"the model's vectors have {encoder.dense_dim} dimensions, not {body.dimensions}"
            raise Refusal(422, message, param="dimensions")
        texts = [(text, body.input_type) for text in _list(body.input)]
        made = await batcher.encode(texts, ("dense",), truncate=body.truncate)

        def build() -> dict[str, Any]:
            data = [
                {"object": "embedding", "index": i, "embedding": numbers(dense, body.encoding_format)}
                for i, dense in enumerate(_dense(made))
            ]
            return {"object": "list", "data": data, "model": encoder.name, "usage": _usage(made)}

        return await answer(build, made.truncated, numbers=len(made.texts) * encoder.dense_dim)

    @router.get("/v1/models", response_model=ModelsAnswer, responses=errors, tags=["OpenAI"])
    async def models() -> Response:
        """The one model."""
        item = {"id": encoder.name, "object": "model", "created": 0, "owned_by": "trichrome"}
        return await answer(lambda: {"object": "list", "data": [item]}, numbers=1)

    @router.post("/embed", response_model=list[list[float]], responses=errors, tags=["TEI"])
    async def embed(body: EmbedRequest) -> Response:
        """Dense vectors."""
        texts = [(text, body.prompt_name or "passage") for text in _list(body.inputs)]
        made = await batcher.encode(texts, ("dense",), truncate=body.truncate, param="inputs")
        return await answer(
            lambda: [numbers(dense, "float") for dense in _dense(made)],
            made.truncated,
            numbers=len(made.texts) * encoder.dense_dim,
        )

    @router.post("/embed_sparse", response_model=list[list[SparseValue]], responses=errors, tags=["TEI"])
    async def embed_sparse(body: EmbedSparseRequest) -> Response:
        """Token ids and weights."""
        texts = [(text, body.prompt_name or "passage") for text in _list(body.inputs)]
        made = await batcher.encode(texts, ("sparse",), truncate=body.truncate, param="inputs")

        def build() -> list[list[dict[str, Any]]]:
            rows = (sparse_vector(text) for text in made.texts)
            return [
                [{"index": i, "value": v} for i, v in zip(row["indices"], row["values"], strict=True)]
                for row in rows
            ]

        return await answer(build, made.truncated, numbers=made.tokens)

    @router.post(
        "/rerank", response_model=list[Rank] | RerankAnswer, responses=errors, tags=["TEI", "Cohere"]
    )
    async def rerank(body: RerankRequest | RerankDocumentsRequest) -> Response:
        """Texts by their score for a query, best first; `texts` as in text-embeddings-inference, or
        `documents` as at Cohere and Jina."""
        if isinstance(body, RerankDocumentsRequest):
            return await rerank_documents(body)
        made, ranking = await ranked(
            body.query, body.texts, body.mode, body.weights, body.truncate, not body.raw_scores, "texts"
        )
        found: list[dict[str, Any]] = [{"index": i, "score": s} for i, s in ranking]
        if body.return_text:
            found = [{**item, "text": body.texts[item["index"]]} for item in found]
        return await answer(lambda: found, made.truncated, numbers=None if body.return_text else len(found))

    @router.post("/v1/rerank", response_model=RerankAnswer, responses=errors, tags=["Cohere"])
    @router.post("/v2/rerank", response_model=RerankAnswer, responses=errors, tags=["Cohere"])
    async def rerank_documents(body: RerankDocumentsRequest) -> Response:
        """Documents by their score for a query, best first; works with Cohere's and Jina's clients."""
        texts = [d if isinstance(d, str) else d.text for d in body.documents]
        made, ranking = await ranked(body.query, texts, body.mode, body.weights, True, True, "documents")
        results: list[dict[str, Any]] = [{"index": i, "relevance_score": s} for i, s in ranking[: body.top_n]]
        if body.return_documents:
            results = [{**item, "document": {"text": texts[item["index"]]}} for item in results]
        most = encoder.config.max_tokens
        cut = [f"{made.truncated} texts were cut to {most} tokens"] if made.truncated else []
        return await answer(
            lambda: {
                "id": "rerank",
                "model": encoder.name,
                "results": results,
                "usage": _usage(made),
                "meta": {"warnings": cut},
            },
            made.truncated,
            numbers=None if body.return_documents else len(results),
        )

    async def ranked(
        query: str,
        texts: Sequence[str],
        mode: str | None,
        weights: Sequence[float] | None,
        truncate: bool,
        normalise: bool,
        param: str,
    ) -> tuple[Encoded, list[tuple[int, float]]]:
        signals, used = _weights(encoder.signals, mode, weights)
        pairs = [(query, "query"), *((text, "passage") for text in texts)]
        made = await batcher.encode(pairs, signals, truncate=truncate, param=param)
        return made, await _ranking(made, signals, used, normalise)

    @router.post("/encode", response_model=EncodeAnswer, responses=errors, tags=["trichrome"])
    async def encode(body: EncodeRequest) -> Response:
        """Dense, sparse and multi-vector outputs out of one forward pass."""
        texts = [(text, body.kind) for text in body.texts]
        made = await batcher.encode(texts, body.outputs, truncate=body.truncate, param="texts")
        asked = set(body.outputs or encoder.signals)

        def build() -> dict[str, Any]:
            dense = [numbers(v, body.encoding_format) for v in _dense(made)]
            tokens = [t.multivector for t in made.texts if t.multivector is not None]
            return {
                "model": encoder.name,
                "dense": dense if "dense" in asked else None,
                "sparse": [sparse_vector(t) for t in made.texts] if "sparse" in asked else None,
                "multivector": [numbers(v, body.encoding_format) for v in tokens]
                if "multivector" in asked
                else None,
                "dense_dim": encoder.dense_dim if "dense" in asked else None,
                "multivector_dim": encoder.config.multivector_dim if "multivector" in asked else None,
                "usage": {"tokens": made.tokens, "truncated": made.truncated},
            }

        width = (encoder.config.multivector_dim or 0) + 1 if "multivector" in asked else 1
        size = len(made.texts) * encoder.dense_dim + made.tokens * width
        return await answer(build, made.truncated, numbers=size)

    return router


def _list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _dense(made: Encoded) -> list[Any]:
    return [text.dense for text in made.texts if text.dense is not None]


def _usage(made: Encoded) -> dict[str, int]:
    return {"prompt_tokens": made.tokens, "total_tokens": made.tokens}


def _weights(
    there: Sequence[str], mode: str | None, weights: Sequence[float] | None
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The signals that count and the weights of all three. A mode needs its signals; without one those
    count that the model has."""
    if mode is not None:
        chosen = mode_named(mode, weights=weights)
        return chosen.signals, chosen.weights
    used = tuple(M3_WEIGHTS if weights is None else weights)
    signals = tuple(s for s, w in zip(SIGNALS, used, strict=True) if w and s in there)
    if not signals:
        raise Refusal(422, "weights: at least one output that the model has must count", param="weights")
    return signals, used


async def _ranking(
    made: Encoded, signals: Sequence[str], weights: Sequence[float], normalise: bool
) -> list[tuple[int, float]]:
    """(place, score) of the passages, the best first, equal ones in the order given."""

    def work() -> list[tuple[int, float]]:
        queries, passages = columns(made.texts[:1]), columns(made.texts[1:])
        each = {signal: score(signal, queries, passages)[0] for signal in signals}
        total = weighted(each, weights, normalise).tolist()
        return sorted(enumerate(total), key=lambda item: (-item[1], item[0]))

    return await asyncio.to_thread(work)
