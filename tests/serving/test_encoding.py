"""What the encoding endpoints answer is what the encoder makes, in each client's shape."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import openai
import pytest

from tests.serving.live import Live
from tests.tiny import TEXTS
from trichrome.encoder import Encoder
from trichrome.scoring import score, weighted

LONG = "the river " * 60


def close(got: Any, wanted: Any) -> bool:
    return np.allclose(np.asarray(got, np.float32), wanted, atol=1e-5)


@pytest.mark.parametrize("format", ["float", "base64"])
def test_openai_client(live: Live, encoder: Encoder, format: Any) -> None:
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0)
    made = client.embeddings.create(model="text-embedding-3-small", input=TEXTS[:4], encoding_format=format)
    vectors: list[Any] = [item.embedding for item in made.data]
    if format == "base64":
        vectors = [np.frombuffer(base64.b64decode(v), "<f4") for v in vectors]
    assert close(vectors, encoder.encode(TEXTS[:4]).dense)
    assert [item.index for item in made.data] == [0, 1, 2, 3]
    assert made.model == "tiny"
    assert made.usage.total_tokens == sum(len(t.ids) for t in encoder.tokenizer.encode(TEXTS[:4], "passage"))


def test_openai_client_without_a_format_one_text_a_query(live: Live, encoder: Encoder) -> None:
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0)
    made = client.embeddings.create(model="tiny", input=TEXTS[0], extra_body={"input_type": "query"})
    assert close(made.data[0].embedding, encoder.encode(TEXTS[:1], "query").dense[0])
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_openai_client_reads_our_errors(live: Live) -> None:
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0)
    with pytest.raises(openai.UnprocessableEntityError, match="32 dimensions, not 7") as caught:
        client.embeddings.create(model="tiny", input="a", dimensions=7)
    assert caught.value.param == "dimensions"
    with pytest.raises(openai.UnprocessableEntityError):
        client.embeddings.create(model="tiny", input=[[1, 2, 3]])
    with pytest.raises(openai.APIStatusError, match="tokens, the model reads 64") as caught:
        client.embeddings.create(model="tiny", input=["a", LONG])
    assert caught.value.status_code == 413


def test_text_embeddings_inference_shapes(live: Live, encoder: Encoder) -> None:
    wanted = encoder.encode(TEXTS)
    assert close(live.ok("/embed", {"inputs": TEXTS, "truncate": True}), wanted.dense)
    assert close(live.ok("/embed", {"inputs": TEXTS[0]}), wanted.dense[:1])
    as_query = live.ok("/embed", {"inputs": TEXTS[0], "prompt_name": "query"})
    assert close(as_query, encoder.encode(TEXTS[:1], "query").dense)
    rows = live.ok("/embed_sparse", {"inputs": TEXTS, "truncate": True})
    assert wanted.sparse is not None
    for i, row in enumerate(rows):
        ids, weights = wanted.sparse.row(i)
        assert [value["index"] for value in row] == ids.tolist()
        assert close([value["value"] for value in row], weights)


def test_what_is_cut_is_told(live: Live) -> None:
    response = live.post("/embed", {"inputs": ["a", LONG], "truncate": True})
    assert response.headers["X-Truncated-Texts"] == "1"
    assert "X-Truncated-Texts" not in live.post("/embed", {"inputs": "a"}).headers
    ranked = live.ok("/v1/rerank", {"query": "a", "documents": ["a", LONG]})
    assert ranked["meta"]["warnings"] == ["1 texts were cut to 64 tokens"]
    assert live.ok("/encode", {"texts": [LONG], "truncate": True})["usage"]["truncated"] == 1


def test_encode_gives_all_three_or_those_asked_for(live: Live, encoder: Encoder) -> None:
    wanted = encoder.encode(TEXTS[:5], "query")
    made = live.ok("/encode", {"texts": TEXTS[:5], "kind": "query"})
    assert wanted.multivector is not None
    assert close(made["dense"], wanted.dense)
    for i in range(5):
        assert close(made["multivector"][i], wanted.multivector.row(i))
    # integer ids, as Qdrant's SparseVector(indices=…, values=…) and pgvector's sparsevec take them
    for i, row in enumerate(wanted.sparse_dicts()):
        vector = made["sparse"][i]
        assert vector["indices"] == sorted(row)
        assert all(type(index) is int for index in vector["indices"])
        assert close(vector["values"], list(row.values()))
    only = live.ok("/encode", {"texts": ["a"], "outputs": ["sparse"]})
    assert (only["dense"], only["multivector"]) == (None, None)
    assert only["sparse"]
    packed = live.ok(
        "/encode",
        {"texts": TEXTS[:2], "kind": "query", "encoding_format": "base64", "outputs": ["multivector"]},
    )
    for i, text in enumerate(packed["multivector"]):
        rows = np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, packed["multivector_dim"])
        assert close(rows, wanted.multivector.row(i))


def test_rerank_in_both_shapes(live: Live, encoder: Encoder) -> None:
    query, texts = "the moon over the river", [*TEXTS[:4], "light"]
    q, p = encoder.encode([query], "query"), encoder.encode(texts)
    each = {s: score(s, q, p)[0] for s in encoder.signals}
    for extra, wanted in (
        ({}, weighted(each, normalise=True)),
        ({"mode": "sparse"}, each["sparse"]),
        (
            {"mode": "dense+sparse", "weights": [2, 1, 0], "raw_scores": True},
            2 * each["dense"] + each["sparse"],
        ),
    ):
        ranks = live.ok("/rerank", {"query": query, "texts": texts, "return_text": True, **extra})
        assert [rank["text"] for rank in ranks] == [texts[rank["index"]] for rank in ranks]
        assert close([rank["score"] for rank in ranks], np.sort(wanted)[::-1])
        assert close([rank["score"] for rank in ranks], wanted[[rank["index"] for rank in ranks]])
    best = int(np.argmax(weighted(each)))
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        body = {"query": query, "documents": [*texts[:4], {"text": texts[4]}], "top_n": 2, "model": "any"}
        found = live.ok(path, {**body, "return_documents": True})["results"]
        assert len(found) == 2
        assert found[0]["index"] == best
        assert found[0]["document"]["text"] == texts[best]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/embed", {"inputs": []}, 422, "inputs"),
        ("/embed", {"inputs": "a", "normalise": True}, 422, "normalise"),
        ("/embed", {"inputs": "a", "normalize": False}, 422, "normalize"),
        ("/encode", {"texts": ["a"], "outputs": ["lexical"]}, 422, "outputs"),
        ("/encode", {"texts": ["a\ud800"]}, 422, "surrogate"),
        ("/rerank", {"query": "a", "texts": ["b"], "weights": [0, 0, 0]}, 422, "weight"),
        ("/rerank", {"query": "a", "texts": ["b"], "mode": "bm25"}, 422, "mode"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, 422, "dimensions"),
        ("/nowhere", {}, 404, "/nowhere"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    live: Live, path: str, body: Any, status: int, says: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = live.post(path, data=json.dumps(body), headers=headers)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert says in error["message"]
    assert error["code"] == status
    assert error["id"] == response.headers["X-Request-Id"]
