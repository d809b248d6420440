"""Keys, limits, defects and the end of a server."""

from __future__ import annotations

import logging
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.live import Gated, Live, make_store, running
from trichrome.encoder import Encoder
from trichrome.errors import ModelMismatch
from trichrome.index import open_store
from trichrome.serving import Limits, create_app


def test_a_key_guards_everything_but_probes(encoder: Encoder, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", encoder, "exact")
    with running(encoder, {"docs": store}, key="s3cret") as live:
        assert live.post("/embed", {"inputs": "a"}).status_code == 200
        live.session.headers.pop("Authorization")
        for path in ("/health", "/ready", "/metrics"):
            assert live.get(path).status_code == 200
        for path in ("/indexes", "/indexes/docs", "/v1/models", "/openapi.json", "/nowhere"):
            refused = live.get(path)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        for wrong in ("Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret", "Bearer"):
            refused = live.post("/embed", {"inputs": "a"}, headers={"Authorization": wrong})
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "unauthorized"
        assert live.get("/indexes", headers={"Authorization": "bearer s3cret"}).status_code == 200


def test_bodies_texts_and_tokens_are_limited(encoder: Encoder) -> None:
    with running(encoder, limits=Limits(texts=3, tokens=40, body_bytes=2000)) as live:
        assert live.post("/embed", {"inputs": ["a"] * 3}).status_code == 200
        many = live.post("/embed", {"inputs": ["a"] * 4})
        assert (many.status_code, "at most 3" in many.text) == (413, True)
        tokens = live.post("/embed", {"inputs": ["the river " * 10] * 2})
        assert (tokens.status_code, "at most 40" in tokens.text) == (413, True)
        large = live.post("/embed", {"inputs": "a" * 2000})
        assert (large.status_code, "2000 bytes" in large.text) == (413, True)
        chunks = iter([b'{"inputs": "', *[b"a" * 500] * 5, b'"}'])  # no length is announced
        assert live.post("/embed", data=chunks).status_code == 413
        assert live.post("/embed", {"inputs": "a"}).status_code == 200


def test_json_that_cannot_be_read_is_one_clear_error(live: Live) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"inputs": NaN}', b""):
        response = live.post("/embed", data=body, headers=headers)
        assert response.status_code in (400, 422), (body[:20], response.text)
        assert response.json()["error"]["id"] == response.headers["X-Request-Id"]


def test_a_full_queue_says_when_to_come_back() -> None:
    encoder = Gated()
    limits = Limits(queue_tokens=30)
    with running(encoder, limits=limits, token_budget=32) as live, ThreadPoolExecutor(4) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        first = pool.submit(live.post, "/embed", {"inputs": "the old cat"})
        assert encoder.begun.wait(60)
        second = pool.submit(live.post, "/embed", {"inputs": ["the moon over the river"] * 3})
        while "trichrome_queue_tokens 0.0" in live.get("/metrics").text:
            pass
        refused = live.post("/embed", {"inputs": ["the moon over the river"] * 3})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["type"] == "overloaded"
        encoder.gate.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)


def test_too_many_requests_are_refused_but_probes_are_answered() -> None:
    encoder = Gated()
    with running(encoder, limits=Limits(requests=1)) as live, ThreadPoolExecutor(1) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        first = pool.submit(live.post, "/embed", {"inputs": "the old cat"})
        assert encoder.begun.wait(60)
        assert live.get("/indexes").status_code == 429
        assert live.get("/health").json() == {"status": "ok"}  # the loop is not blocked by the encoder
        encoder.gate.set()
        assert first.result().status_code == 200


def test_requests_share_passes_and_a_failing_text_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Gated()
    moon = encoder.token_ids(["moon"])[0][-1]
    with running(encoder) as live, ThreadPoolExecutor(6) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        first = pool.submit(live.post, "/embed", {"inputs": "a"})
        assert encoder.begun.wait(60)
        texts = ["the cat", "the dog", "the bird", "the moon"]
        rest, expected = [], 0
        for text, kind in zip(texts, ["query", "passage"] * 2, strict=True):  # each in its turn
            rest.append(pool.submit(live.post, "/embed", {"inputs": text, "prompt_name": kind}))
            expected += len(encoder.tokenizer.encode([text], "passage")[0].ids)
            while f"trichrome_queue_tokens {float(expected)}" not in live.get("/metrics").text:
                pass
        encoder.passes.clear()
        encoder.failing = moon
        with caplog.at_level(logging.ERROR, "trichrome.serving"):
            encoder.gate.set()
            answers = [future.result() for future in rest]
    assert first.result().status_code == 200
    assert encoder.passes == [1, 2, 1]  # the first; then four at once, of which the half without the moon
    assert [answer.status_code for answer in answers] == [200, 200, 200, 500]
    error = answers[3].json()["error"]
    assert not re.search("secret|Traceback|moon|\\.py", answers[3].text)
    assert error["id"] in caplog.text
    assert "secret detail of the engine" in caplog.text


def test_what_only_a_client_that_left_wanted_is_not_encoded() -> None:
    encoder = Gated()
    with running(encoder) as live, ThreadPoolExecutor(1) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        first = pool.submit(live.post, "/embed", {"inputs": "the old cat"})
        assert encoder.begun.wait(60)
        encoder.passes.clear()
        host, port = live.url.removeprefix("http://").split(":")
        body = b'{"inputs": ["the moon over the river", "a small green bird"]}'
        head = f"POST /embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while "trichrome_queue_tokens 0.0" in live.get("/metrics").text:
                pass
        while "trichrome_queue_tokens 0.0" not in live.get("/metrics").text:
            pass
        encoder.gate.set()
        assert first.result().status_code == 200
        assert live.post("/embed", {"inputs": "the river"}).status_code == 200
    assert encoder.passes == [1, 1]


def test_a_stopping_server_answers_what_it_took(tmp_path: Path) -> None:
    encoder = Gated()
    store = make_store(tmp_path / "store", encoder, "embedded")
    with running(encoder, {"docs": store}) as live, ThreadPoolExecutor(2) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        body = {"documents": [{"id": f"late-{i}", "text": f"the moon {i}"} for i in range(40)]}
        late = pool.submit(live.post, "/indexes/docs/documents", body)
        assert encoder.begun.wait(60)
        live.uvicorn.should_exit = True
        address = live.url.removeprefix("http://").split(":")
        refused = False
        while not refused:  # it takes nobody any more
            try:
                socket.create_connection((address[0], int(address[1])), timeout=5).close()
            except OSError:
                refused = True
        encoder.gate.set()
        assert late.result().json()["added"] == 40
    with open_store(tmp_path / "store") as again:
        assert again.count({"document": "late-39"}) == 1


def test_metrics_count_by_endpoint(live: Live) -> None:
    live.post("/embed", {"inputs": ["a", "b"]})
    live.get("/indexes/nothing")
    live.get("/no/such/path")
    text = live.get("/metrics").text
    assert re.search(r'trichrome_requests_total{method="POST",path="/embed",status="200"} \d', text)
    assert re.search(r'path="/indexes/{name}",status="404"', text)
    assert 'path="/no/such/path"' not in text
    assert re.search(r"trichrome_tokens_total [1-9]", text)


def test_an_index_of_another_model_is_not_served(encoder: Encoder, tmp_path: Path) -> None:
    with make_store(tmp_path / "store", encoder, "exact") as store, pytest.raises(ModelMismatch):
        create_app(encoder.with_pooling("mean"), {"docs": store})
