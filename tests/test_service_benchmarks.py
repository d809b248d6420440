"""The benchmarks of the server: what they count is right, and what they must find they find."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from benchmarks import crash_serve, serve, serve_client, tables
from benchmarks.crash_serve import Verdict, Writer, check, new_index, passages
from benchmarks.servers import tiny_encoder
from tests.serving.live import running
from trichrome.index import Store, open_store

ENCODER = tiny_encoder()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(new_index(tmp_path / "exact", ENCODER, "exact")) as made:
        yield made


def put(store: Store, id: str, version: int) -> None:
    """As the server stores a document."""
    found = passages(ENCODER, id, version)
    stale = [name for name, p in store.scan(fields=["document"]) if p.get("document") == id]
    store.delete([name for name in stale if name not in found])
    texts = [str(payload["text"]) for payload in found.values()]
    store.add([*found], ENCODER.encode(texts), [*found.values()])


def verdict_of(store: Store, writer: Writer) -> Verdict:
    found = Verdict()
    check(store, ENCODER, [writer], found)
    return found


def test_what_was_acknowledged_and_is_there_is_right(store: Store) -> None:
    writer = Writer("exact", 0, 0)
    some = writer.ids[:6]
    for version, id in enumerate(some, 1):
        put(store, id, version)
        writer.known[id] = version
    found = verdict_of(store, writer)
    assert (found.lost, found.half, found.checked) == (0, 0, 6)
    writer.tried = {some[0]: 77, some[1]: 78}  # asked for, not answered, and not done
    assert verdict_of(store, writer).unanswered_and_absent == 1
    writer.tried = {some[0]: 77, some[1]: None}
    put(store, some[0], 77)
    store.delete([id for id, p in store.scan() if p.get("document", id) == some[1]])
    found = verdict_of(store, writer)
    assert (found.lost, found.half, found.unanswered_and_there) == (0, 0, 1)
    assert (writer.known[some[0]], writer.known[some[1]]) == (77, None)


def test_what_is_missing_old_or_half_there_is_found(store: Store) -> None:
    writer = Writer("exact", 0, 0)
    gone, old, back, whole = writer.ids[:4]
    put(store, old, 1)
    put(store, back, 2)
    put(store, whole, 3)
    writer.known |= {gone: 1, old: 2, back: None, whole: 3}
    assert verdict_of(store, writer).lost == 3
    writer.known |= {gone: None, old: 1, back: 2, whole: 3}
    writer.tried = {old: 9, whole: 9}  # of one request only a part was done
    put(store, old, 9)
    assert verdict_of(store, writer).half == 1


def test_a_document_in_two_versions_and_foreign_vectors_are_found(store: Store) -> None:
    writer = Writer("exact", 0, 0)
    id = writer.ids[0]
    long = next(v for v in range(1, 99) if len(passages(ENCODER, id, v)) > 3)
    put(store, id, long)
    writer.known[id] = long
    assert verdict_of(store, writer).half == 0
    name, payload = list(passages(ENCODER, id, long).items())[1]
    store.add([name], ENCODER.encode(["something else"]), [payload])
    assert verdict_of(store, writer).half == 1  # its vectors
    store.delete([name])
    assert verdict_of(store, writer).half == 1  # it is not whole


def test_answers_are_compared_but_for_rounding() -> None:
    assert crash_serve.alike({"a": 1.0, "b": 0.5}, {"a": 1.001, "c": 0.5})  # equal ones at the end may swap
    assert not crash_serve.alike({"a": 1.0, "b": 0.5}, {"a": 0.9, "b": 0.5})
    assert not crash_serve.alike({"a": 1.0}, {})


def test_the_bare_client_counts_requests_and_errors() -> None:
    with running(ENCODER) as live:
        done = asyncio.run(serve_client.drive(live.url, ["the moon", "a"], clients=3, seconds=60, count=20))
        assert (done["requests"], done["errors"], len(done["latencies_ms"])) == (20, 0, 20)  # type: ignore[arg-type]
        wrong = asyncio.run(serve_client.drive(live.url, ["moon " * 100], clients=2, seconds=60, count=4))
        assert (wrong["requests"], wrong["errors"]) == (0, 4)  # longer than the model reads
        assert "413" in wrong["problems"][0]  # type: ignore[index]


def row(round: int, **rates: float) -> dict[str, Any]:
    made = {
        name.replace("_", "-"): {"per_second": rate, "p50_ms": 5.0, "p99_ms": None, "errors": 1}
        for name, rate in rates.items()
    }
    return {"round": round, "texts": "queries", "clients": 16, "contenders": made}


def test_ratios_are_taken_within_rounds_against_the_better_plain_server() -> None:
    measured = [
        row(0, trichrome=40, plain_threads=10, plain_loop=5),
        row(1, trichrome=30, plain_threads=5, plain_loop=10),
        row(2, trichrome=90, plain_threads=9, plain_loop=1),
    ]
    found = serve.summary(measured)
    assert found["ratio_throughput_16"] == 4
    assert found["ratio_throughput_64"] is None
    assert (found["errors"], found["errors_plain"]) == (3, 6)
    machine = {"processor": "abacus", "cores": 2, "packages": {"torch": "2"}}
    text = tables.serve(
        {"measured": measured, "ratios": found, "rounds": 3, "seconds": 5.0, "machine": machine}
    )
    assert "| queries | 16 | 40.0 | 5 |  | 9.0 |" in text
    assert "| 16 clients | 4.00 |" in text


def test_tables_of_kills_and_of_fuzzing() -> None:
    machine = {"processor": "abacus", "cores": 2, "packages": {"torch": "2"}}
    verdict = vars(Verdict(kills=50, acknowledged=1234, checked=5, starts=[2.0, 4.0]))
    killed = tables.crash_serve({**verdict, "indexes": ["exact"], "machine": machine})
    assert "| 50 | 1,234 | 5 | 0 | 0 | 0 |" in killed
    kinds = {
        "readers": {"squad": {"cases": 7000, "failures": {}}},
        "endpoints": {"GET /": {"cases": 1, "failures": {}}},
    }
    counts = {"readers": {"cases": 7000, "failures": 0}, "endpoints": {"cases": 1, "failures": 0}}
    fuzzed = tables.fuzz({"kinds": kinds, "counts": counts, "minutes": 10, "machine": machine})
    assert "| squad | 7,000 | 0 |" in fuzzed
    assert "GET /" not in fuzzed
