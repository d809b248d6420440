"""What was acknowledged survives: a process killed in the middle of its work, a full disk."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from tests.index.children import BATCH, POOL, add_until_full, add_until_killed, batch_of, create_on_full_disk
from tests.index.samples import assert_same, make_store, processes
from trichrome.index import Store, open_store

BATCHES = 12


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
def test_kill_9_loses_nothing_acknowledged(kind: str, folder: Path) -> None:
    draw = random.Random(1)
    make_store(folder / "store", kind).close()
    turns: dict[int, int] = {}  # batch → the turn in which it was written last, as acknowledged
    for kill in range(3):
        got, started = run_and_kill(
            folder / "store", 1000 * kill, BATCHES + draw.randrange(BATCHES), draw.uniform(0, 0.02)
        )
        turns.update(got)
        with open_store(folder / "store") as store:
            for i in range(BATCHES):
                found = turn_in_store(store, i, {turns.get(i), *started})
                if i in turns:
                    assert found == turns[i] or found in started, f"batch {i} of turn {turns[i]} is lost"
                if found is not None:
                    turns[i] = found
    assert len(turns) == BATCHES


def run_and_kill(path: Path, seed: int, acks: int, delay: float) -> tuple[dict[int, int], list[int]]:
    """What a child acknowledged that was killed `delay` seconds after so many acknowledgements, and the
    turns that it may have been in when it died."""
    ours, theirs = processes().Pipe(duplex=False)
    child = processes().Process(target=add_until_killed, args=(str(path), seed, BATCHES, theirs))
    child.start()
    theirs.close()
    heard = [ours.recv() for _ in range(acks)]
    time.sleep(delay)
    child.kill()
    child.join()
    heard += received(ours)
    assert child.exitcode == -9
    last, turn = heard[-1]
    return dict(heard), [turn if last + 1 < BATCHES else turn + 1]


def received(pipe: Connection) -> Iterator[object]:
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


def turn_in_store(store: Store, i: int, turns: set[int | None]) -> int | None:
    """The turn whose batch i the store holds, whole; None where it holds nothing of it."""
    ids, _, _ = batch_of(i, 0)
    rows = store.rows_of(ids)
    if (rows < 0).all():
        return None
    assert (rows >= 0).all(), f"batch {i} is there in part"
    payloads, embeddings = store.payloads(rows), store.embeddings(rows)
    for turn in turns - {None}:
        assert turn is not None
        _, part, wanted = batch_of(i, turn)
        if payloads == wanted:
            assert_same(embeddings, POOL[part])
            return turn
    raise AssertionError(f"batch {i} is of no turn that was under way: {payloads[0]}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_an_error_and_loses_nothing(kind: str, small_disk: Path) -> None:
    make_store(small_disk / "store", kind).close()
    filler = small_disk / "filler"
    spare = {"exact": 1 << 20, "embedded": 100 << 20}[kind]
    with filler.open("wb") as file:
        file.write(b"x" * max(0, shutil.disk_usage(small_disk).free - spare))
    ours, theirs = processes().Pipe(duplex=False)
    child = processes().Process(target=add_until_full, args=(str(small_disk / "store"), theirs))
    child.start()  # a process of its own: if the engine met the full disk it would die
    theirs.close()
    *acknowledged, message, deleted = received(ours)
    child.join()
    assert child.exitcode == 0
    assert deleted == 0
    assert acknowledged == list(range(len(acknowledged)))
    assert len(acknowledged) > 3
    assert "\n" not in str(message)
    assert f"the {BATCH * len(acknowledged)} documents stored before are; make room" in str(message)

    with open_store(small_disk / "store") as store:
        assert store.count() == BATCH * len(acknowledged)
        for i in acknowledged:
            assert turn_in_store(store, int(str(i)), {0}) == 0
        assert len(store.search("dense", POOL[0], 5).rows) == 5
        filler.unlink()
        ids, part, payloads = batch_of(len(acknowledged), 0)
        store.add(ids, POOL[part], payloads)
        assert turn_in_store(store, len(acknowledged), {0}) == 0
    with open_store(small_disk / "store") as store:
        assert store.count() == BATCH * (len(acknowledged) + 1)


def test_a_full_disk_at_optimize_loses_nothing(kind: str, small_disk: Path) -> None:
    with make_store(small_disk / "store", kind) as store:
        for i in range(6):
            ids, part, payloads = batch_of(i, 0)
            store.add(ids, POOL[part], payloads)
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 4096))
        with pytest.raises(ValueError, match="make room and run it again"):
            store.optimize()
        rows = store.rows_of([id for i in range(6) for id in batch_of(i, 0)[0]])
        assert (rows >= 0).all()
        filler.unlink()
        store.optimize()
        assert store.rows_of(store.ids(rows)).tolist() == rows.tolist()
        assert np.isfinite(store.scores("dense", POOL[0], rows)).all()


def test_a_full_disk_at_creation_is_an_error(kind: str, small_disk: Path) -> None:
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(b"x" * shutil.disk_usage(small_disk).free)
    ours, theirs = processes().Pipe(duplex=False)
    child = processes().Process(target=create_on_full_disk, args=(str(small_disk / "store"), kind, theirs))
    child.start()  # a process of its own: if the engine met the full disk it would die
    theirs.close()
    messages = [str(message) for message in received(ours)]
    child.join()
    assert child.exitcode == 0
    assert len(messages) == 1
    assert str(small_disk) in messages[0]
    assert "nothing was created" in messages[0]
    assert list(small_disk.iterdir()) == [filler]


def test_what_a_crash_left_of_a_commit_is_cleared_away(folder: Path) -> None:
    with make_store(folder / "store", "exact") as store:
        ids, part, payloads = batch_of(0, 0)
        store.add(ids, POOL[part], payloads)
    inside = folder / "store"
    whole = {path: path.stat().st_size for path in inside.rglob("*") if path.is_file()}
    (inside / "segments" / "00000099.safetensors").write_bytes(b"half")
    (inside / "segments" / ".00000098.safetensors.tmp").write_bytes(b"half")
    (inside / "dead-00000097.safetensors").write_bytes(b"half")
    (inside / ".commit.json.tmp").write_bytes(b"half")
    with open_store(inside) as store:
        assert turn_in_store(store, 0, {0}) == 0
    assert {path: path.stat().st_size for path in inside.rglob("*") if path.is_file()} == whole
