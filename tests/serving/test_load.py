"""More than a server takes, clients that misbehave, and what an acknowledgement is worth."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving.live import Gated, Live, make_store, running
from trichrome.encoder import Encoder
from trichrome.index import open_store
from trichrome.serving import Limits
from trichrome.serving.indexes import REMOVING, finish_removal


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds; the test's own time limit ends it where it never does."""
    while not holds():
        pass


def metric(live: Live, name: str) -> float:
    lines = live.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_beyond_the_limits_every_client_is_answered_and_the_server_recovers() -> None:
    encoder = Gated()
    with running(encoder, limits=Limits(requests=6)) as live, ThreadPoolExecutor(24) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        answers = [pool.submit(requests.post, f"{live.url}/embed", json={"inputs": "a"}) for _ in range(24)]
        until(lambda: sum(future.done() for future in answers) == 18)  # at once, while the rest is at work
        encoder.gate.set()
        made = [future.result() for future in answers]
        assert sorted(answer.status_code for answer in made) == [200] * 6 + [429] * 18
        for answer in made:
            if answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.json()["error"]["type"] == "overloaded"
        assert live.post("/embed", {"inputs": "a"}).status_code == 200
        assert metric(live, "trichrome_queue_tokens") == 0
        assert metric(live, "trichrome_requests_in_flight") == 1  # that of the metrics


def test_bodies_together_are_limited() -> None:
    encoder = Gated()
    limits = Limits(body_bytes=1000, buffered_bytes=1500)
    with running(encoder, limits=limits) as live, ThreadPoolExecutor(1) as pool:
        encoder.begun.clear()
        encoder.gate.clear()
        large = {"inputs": "a", "truncate": True, "prompt_name": "query"}
        body = b" " * 900 + requests.Request("POST", live.url, json=large).prepare().body  # type: ignore[operator]
        headers = {"Content-Type": "application/json"}
        first = pool.submit(requests.post, f"{live.url}/embed", data=body, headers=headers)
        assert encoder.begun.wait(60)
        assert live.post("/embed", data=body, headers=headers).status_code == 429
        encoder.gate.set()
        assert first.result().status_code == 200
        assert live.post("/embed", data=body, headers=headers).status_code == 200


def test_a_body_that_never_ends_is_given_up() -> None:
    with running(Gated(), limits=Limits(body_seconds=1)) as live:
        host, port = live.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as slow:
            slow.sendall(b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
            answer = slow.makefile("rb").read()  # up to the end: the server closes the connection
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert metric(live, "trichrome_requests_in_flight") == 1


def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    encoder = Gated()
    with running(encoder) as live:
        encoder.begun.clear()
        encoder.gate.clear()
        host, port = live.url.removeprefix("http://").split(":")
        body = b'{"inputs": "a"}'
        head = "POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as rude:
            rude.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert encoder.begun.wait(60)
        encoder.gate.set()
        until(lambda: metric(live, "trichrome_requests_in_flight") == 1)
        assert live.post("/embed", {"inputs": "a"}).status_code == 200


@pytest.mark.parametrize("kind", ["exact", "embedded"])
def test_numbers_of_documents_and_ids_are_limited(encoder: Encoder, tmp_path: Path, kind: str) -> None:
    store = make_store(tmp_path / "store", encoder, kind)
    with running(encoder, {"docs": store}, limits=Limits(texts=2)) as live:
        many = [{"id": str(i), "text": "a"} for i in range(3)]
        answers = [
            live.post("/indexes/docs/documents", {"documents": many}),
            live.post("/indexes/docs/documents/delete", {"ids": ["a", "b", "c"]}),
            live.post("/rerank", {"query": "a", "texts": ["b", "c"]}),
            live.post("/indexes/docs/documents", {"documents": [{"id": "x", "text": "moon " * 200}]}),
        ]
        for answer in answers:
            assert answer.status_code == 413, answer.text
            assert "at most 2 are taken at once" in answer.json()["error"]["message"]
        assert live.ok("/indexes/docs/documents", {"documents": many[:2]})["added"] == 2


@pytest.mark.parametrize("kind", ["exact", "embedded"])
def test_all_that_was_acknowledged_is_there_after_a_stop_under_load(
    encoder: Encoder, tmp_path: Path, kind: str
) -> None:
    acknowledged: list[str] = []
    store = make_store(tmp_path / "store", encoder, kind)
    with running(encoder, {"docs": store}) as live, ThreadPoolExecutor(4) as pool:
        enough = threading.Event()

        def write(n: int) -> list[int]:
            """Statuses until the server takes no more; a cut connection would raise something else."""
            statuses = []
            for i in range(1_000_000):
                body = {"documents": [{"id": f"{n}-{i}-{j}", "text": f"moon {i}"} for j in range(3)]}
                try:
                    answer = requests.post(f"{live.url}/indexes/docs/documents", json=body, timeout=60)
                except requests.ConnectionError:
                    return statuses
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    acknowledged.extend(document["id"] for document in body["documents"])
                if len(acknowledged) > 60:
                    enough.set()
            return statuses

        writers = [pool.submit(write, n) for n in range(4)]
        assert enough.wait(60)
        live.uvicorn.should_exit = True
        statuses = {status for writer in writers for status in writer.result()}
    assert statuses <= {200, 503}
    with open_store(tmp_path / "store") as again:
        assert (again.rows_of(acknowledged) >= 0).all()


@pytest.mark.parametrize("kind", ["exact", "embedded"])
def test_two_versions_of_a_document_at_once_are_never_mixed(tmp_path: Path, kind: str) -> None:
    encoder = Gated()
    store = make_store(tmp_path / "store", encoder, kind)
    beginning, end = "the old cat sings over the river. " * 4, "a small green bird, under the moon. " * 4
    with running(encoder, {"docs": store}) as live, ThreadPoolExecutor(3) as pool:

        def post(text: str) -> Any:
            return live.ok("/indexes/docs/documents", {"documents": [{"id": "x", "text": text}]})

        def stored() -> list[str]:
            return [p["text"] for p in live.get("/indexes/docs/documents/x").json()["passages"]]

        versions = [beginning + end.replace("moon", "light"), beginning.replace("cat", "dog") + end]
        wanted = []
        for text in versions:
            post(text)
            wanted.append(stored())
        post(beginning + end)  # each version changes one half of this one
        before = stored()
        assert all(set(before) & set(passages) for passages in wanted)
        encoder.begun.clear()
        encoder.gate.clear()
        first = pool.submit(live.ok, "/embed", {"inputs": "a"})  # what comes after it has to wait
        assert encoder.begun.wait(60)
        both, waiting = [], 0.0
        for text in versions:
            both.append(pool.submit(post, text))
            until(lambda reached=waiting: metric(live, "trichrome_queue_tokens") > reached)  # type: ignore[misc]
            waiting = metric(live, "trichrome_queue_tokens")  # compared with what is stored, and waits
        encoder.gate.set()
        first.result()
        for future in both:
            future.result()
        assert stored() in wanted


@pytest.mark.parametrize("kind", ["exact", "embedded"])
def test_a_removal_that_a_crash_cut_short_is_finished(encoder: Encoder, tmp_path: Path, kind: str) -> None:
    store = make_store(tmp_path / "store", encoder, kind)
    kept, stale = "moon", "bird"
    note = encoder.encode(["moon"], "passage")
    store.add([REMOVING], note, [{"document": REMOVING, "ids": [stale, "never there"]}])  # and then the crash
    with running(encoder, {"docs": store}) as live:
        assert live.get(f"/indexes/docs/documents/{stale}").status_code == 404
        assert live.get(f"/indexes/docs/documents/{kept}").status_code == 200
        assert live.get("/indexes/docs").json()["documents"] == 3
        refused = live.post("/indexes/docs/documents", {"documents": [{"id": REMOVING, "text": "a"}]})
        assert refused.status_code == 422
    with open_store(tmp_path / "store") as again:
        assert finish_removal(again) == 0
