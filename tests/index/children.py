"""What the store tests do in other processes."""

from __future__ import annotations

from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import trichrome.index.embedded
import trichrome.index.exact  # noqa: F401 - imported before the processes fork
from tests.index.samples import make_store, random_embeddings
from trichrome.errors import TrichromeError
from trichrome.index import CopyReport, Place, copy_store, open_store

BATCH = 20
#: Batches that a child adds, over and over; batch i begins with document BATCH * i.
POOL = random_embeddings(50 * BATCH, seed=7)


def try_to_open(path: str) -> tuple[str, str]:
    """The error's class and message, or "" and the number of documents."""
    try:
        with open_store(path) as store:
            return "", str(store.count())
    except TrichromeError as error:
        return type(error).__name__, str(error)


def batch_of(i: int, seed: int) -> tuple[list[str], slice, list[dict[str, object]]]:
    """Ids, place in POOL and payloads of batch i; the seed tells writers of the same ids apart."""
    start = (i * 7 + seed) % 50 * BATCH
    ids = [f"d{n}" for n in range(BATCH * i, BATCH * (i + 1))]
    return ids, slice(start, start + BATCH), [{"at": start + n, "text": "é" * 200} for n in range(BATCH)]


def add_until_killed(path: str, seed: int, batches: int, acknowledged: Connection) -> None:
    """Add batches 0, 1, … round and round, sending (batch, round) after each; sometimes optimize."""
    with open_store(path) as store:
        for n in count():
            i, turn = n % batches, seed + n // batches
            ids, part, payloads = batch_of(i, turn)
            store.add(ids, POOL[part], payloads)
            acknowledged.send((i, turn))
            if n % 9 == 8:
                store.optimize()


def add_until_full(path: str, acknowledged: Connection) -> None:
    """Add batches until the store refuses; sends each batch's number and at last the error's message."""
    with open_store(path) as store:
        for i in range(100_000):
            ids, part, payloads = batch_of(i, 0)
            try:
                store.add(ids, POOL[part], payloads)
            except TrichromeError as error:
                acknowledged.send(str(error))
                assert store.count() == BATCH * i  # the store goes on
                acknowledged.send(store.delete(ids))
                return
            acknowledged.send(i)


def create_on_full_disk(path: str, kind: str, outcome: Connection) -> None:
    """Try to create a store; sends the error's message, or that there was none."""
    try:
        make_store(Path(path), kind).close()
    except TrichromeError as error:
        outcome.send(str(error))
    else:
        outcome.send("created")


def copy_until_killed(source: Place, target: Place, acknowledged: Connection) -> None:
    """Copy in small batches, sending the number of documents done after each; then wait to be killed."""

    def told(report: CopyReport) -> None:
        acknowledged.send(report.done)
        if report.done >= report.total / 2:
            Event().wait()

    with open_store(source) as ours, open_store(target) as theirs:
        copy_store(ours, theirs, batch=10, progress=told)
