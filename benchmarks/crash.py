"""Whether a store keeps what it acknowledged: indexing killed with SIGKILL at random moments.

    python -m benchmarks.crash [--quick] [--kills N] [--serve | --postgres]

With --serve a server is killed instead of indexing: benchmarks.crash_serve says how; with --postgres the
database server into which is indexed: benchmarks.crash_postgres.

A child process works through a plan: rounds of new and changed documents through `index_documents`, then
deletions, now and then `optimize`. Its encoder is cheap and deterministic (hashed random projections of
words, all three outputs), for what is tested is the store. Before each call the child writes into a log what
it is about to do, and after the call returned that it is done, each time through to the disk. The parent
kills it, opens the store and checks every document against the log:
    lost         acknowledged and missing, older than acknowledged, or deleted and back
    half         a batch that is there in part, a payload without its vectors or with those of another version
    different    answers after everything was indexed at last, compared with a run that nobody killed
Then the next child picks the work up. The last line is JSON; benchmarks/results/crash.json holds all figures.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.common import machine, write_results
from benchmarks.crash_plan import DENSE, TOKEN, HashEncoder, document, plan
from trichrome.embeddings import SIGNALS
from trichrome.index import Place, Store, create_store, has_store, index_documents, open_store
from trichrome.index.build import payload_of
from trichrome.index.urls import is_url, shown

KINDS = ("embedded", "exact")
BATCH = 32
QUERIES = 50

#: Document id → the round that wrote it last.
Versions: TypeAlias = "dict[str, int]"


# the child


def work(folder: Path, kind: str, size: int, place: Place | None = None) -> None:
    """Work through the plan from where the log in the folder says it stands; the store is there too, unless
    it has a place of its own."""
    import_module(f"trichrome.index.{kind}")  # before the log begins: its start is no part of the work
    log = (folder / "log").open("a", encoding="utf-8")

    def write(*entry: object) -> None:
        log.write(json.dumps(entry) + "\n")
        log.flush()
        os.fsync(log.fileno())

    under_way: list[tuple[str, int]] = []

    def about_to_add(texts: list[str]) -> None:
        under_way[:] = [(text.split()[0], int(text.split()[1])) for text in texts]
        write("adding", under_way)

    def added(_: object) -> None:
        if under_way:
            write("added", under_way)
            under_way.clear()

    write("opening")
    place = place or folder / "store"
    store = open_store(place) if has_store(place) else new_store(place, kind)
    encoder = HashEncoder(before=about_to_add)
    first = sum(entry[0] == "round" for entry in read_log(folder / "log"))
    with store:
        for r, part in list(enumerate(plan(size)))[first:]:
            write("reading")
            source = (document(id, r) for id in part.documents)
            index_documents(
                store, encoder, source, batch=BATCH, read_ahead=4 * BATCH, optimize=False, progress=added
            )
            for ids in part.deletions:
                write("deleting", ids)
                store.delete(ids)
                write("deleted", ids)
            if part.optimize:
                write("optimizing")
                store.optimize()
            write("round", r)


def new_store(place: Place, kind: str) -> Store:
    shape: dict[str, Any] = {"dense_dim": DENSE, "sparse": True, "multivector_dim": TOKEN}
    of_folder = None if is_url(place) else kind
    return create_store(place, kind=of_folder, model="hash", fingerprint="0", **shape)


def read_log(path: Path) -> list[list[Any]]:
    """The whole lines of a log; a kill may have cut the last one short."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


# the parent


@dataclass
class Verdict:
    """What was found in one store."""

    kills: int = 0
    lost: int = 0
    half: int = 0
    different: int = 0
    checked: int = 0
    killed_while: Counter[str] = field(default_factory=Counter)
    unacknowledged_batches_found: int = 0
    recall10: dict[str, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def complain(self, what: str) -> None:
        self.complaints = [*self.complaints, what][:20]


def acknowledged(entries: list[list[Any]]) -> Versions:
    """Which documents must be there, and in which version."""
    known: Versions = {}
    for name, *rest in entries:
        if name == "added":
            known.update(dict(rest[0]))
        elif name == "deleted":
            for id in rest[0]:
                known.pop(id, None)
    return known


def check(store: Store, entries: list[list[Any]], verdict: Verdict) -> list[Any] | None:
    """Compare a store with a log; the entry to add to it if a call that was cut short has happened whole."""
    known = acknowledged(entries)
    found = {id: int(str(payload["version"])) for id, payload in store.scan(fields=["version"])}
    differing = {id for id in known.keys() | found.keys() if known.get(id) != found.get(id)}
    name, *rest = entries[-1]
    happened: list[Any] | None = None
    if differing and name in ("adding", "deleting"):
        tried: dict[str, int | None] = dict(rest[0]) if name == "adding" else dict.fromkeys(rest[0])
        would_differ = {id for id in tried if tried[id] != known.get(id)}
        as_tried = {id for id in differing if id in tried and found.get(id) == tried[id]}
        if as_tried == would_differ:
            happened = ["added" if name == "adding" else "deleted", rest[0]]
            verdict.unacknowledged_batches_found += 1
        elif as_tried:
            verdict.half += 1
            verdict.complain(f"{name}: {len(as_tried)} of {len(would_differ)} documents are there")
        differing -= as_tried
    for id in sorted(differing):
        verdict.lost += 1
        verdict.complain(f"{id}: acknowledged in version {known.get(id)}, found in {found.get(id)}")
    check_contents(store, found, verdict)
    verdict.checked += len(found)
    return happened


def check_contents(store: Store, found: Versions, verdict: Verdict) -> None:
    """Every document has the payload and, bit for bit, the vectors of its version."""
    if store.count() != len(found):
        verdict.half += 1
        verdict.complain(f"the store counts {store.count()} documents and lists {len(found)}")
    encoder, ids = HashEncoder(), list(found)
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        documents = [document(id, found[id]) for id in some]
        rows = store.rows_of(some)
        stored, payloads = store.embeddings(rows), store.payloads(rows)
        wanted = encoder.encode([d.content for d in documents], "passage")
        for i, (got, want) in enumerate(zip(stored, wanted, strict=True)):
            assert want.multivector is not None
            same = payloads[i] == payload_of(documents[i]) and all(
                np.array_equal(a, b)  # type: ignore[arg-type]
                for a, b in (
                    (got.dense, want.dense),
                    (got.token_ids, want.token_ids),
                    (got.token_weights, want.token_weights),
                    (got.multivector, want.multivector.astype(np.float16)),
                )
            )
            if not same:
                verdict.half += 1
                verdict.complain(f"{some[i]}: payload or vectors are not those of version {found[some[i]]}")


def answers(store: Store) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]], dict[str, float]]:
    """All payloads by id; signal → scores [queries, documents by id]; the share of the exact ten best that
    search finds."""
    payloads = dict(sorted(store.scan()))
    ids = list(payloads)
    rows = store.rows_of(ids)
    queries = HashEncoder().encode([document(f"q{i}", 0).text for i in range(QUERIES)], "query")
    scores = {name: np.stack([store.scores(name, query, rows) for query in queries]) for name in SIGNALS}
    recall: dict[str, float] = {}
    for name in ("dense", "sparse"):
        hits = 0.0
        for i, query in enumerate(queries):
            at = np.searchsorted(ids, store.ids(store.search(name, query, 10).rows))
            tenth = np.sort(scores[name][i])[-10]
            hits += float((scores[name][i][at] >= tenth - 1e-5).mean())
        recall[name] = round(hits / QUERIES, 4)
    return payloads, scores, recall


def compare(store: Store, other: Store, verdict: Verdict) -> None:
    """Count payloads and answers that differ: every document's score for every query, so the ten best too."""
    payloads, scores, verdict.recall10 = answers(store)
    other_payloads, other_scores, _ = answers(other)
    for id in payloads.keys() | other_payloads.keys():
        verdict.different += payloads.get(id) != other_payloads.get(id)
    for name in SIGNALS:
        if scores[name].shape != other_scores[name].shape:
            verdict.different += QUERIES
        else:
            close = np.isclose(scores[name], other_scores[name], rtol=0, atol=1e-5).all(axis=1)  # [queries]
            verdict.different += int((~close).sum())


@contextmanager
def child(folder: Path, kind: str, size: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.crash", "--child", str(folder), "--kind", kind]
    process = subprocess.Popen([*command, "--documents", str(size)], cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_whole(folder: Path, kind: str, size: int) -> float:
    """Let a child finish; seconds of its work, without the start of Python."""
    with child(folder, kind, size) as process:
        started = wait_for_start(process, folder)
        if process.wait():
            raise SystemExit(f"error: indexing into the {kind} store failed with status {process.returncode}")
        return time.perf_counter() - started


def wait_for_start(process: subprocess.Popen[bytes], folder: Path) -> float:
    """Wait until the child writes into its log."""
    log = folder / "log"
    size = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_size == size):
        time.sleep(0.002)
    return time.perf_counter()


def torture(work_folder: Path, kind: str, kills: int, size: int, draw: random.Random) -> Verdict:
    """Kill children until there were enough kills, each time checking the store."""
    verdict = Verdict()
    unkilled = work_folder / f"{kind}-unkilled"
    unkilled.mkdir()
    seconds = run_whole(unkilled, kind, size)
    print(f"{kind}: a run takes {seconds:.1f} s", flush=True)
    number = 0
    while verdict.kills < kills:
        folder = work_folder / f"{kind}-{number}"
        folder.mkdir()
        number += 1
        finished = False
        while not finished and verdict.kills < kills:
            with child(folder, kind, size) as process:
                wait_for_start(process, folder)
                try:  # so short that a run takes several kills
                    finished = process.wait(draw.uniform(0, seconds / 4)) == 0
                    if not finished:
                        raise SystemExit(f"error: the child failed with status {process.returncode}")
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    verdict.kills += 1
            entries = read_log(folder / "log")
            if not finished:
                verdict.killed_while[entries[-1][0]] += 1
            examine(folder, entries, verdict)
        if not finished:
            run_whole(folder, kind, size)
            examine(folder, read_log(folder / "log"), verdict)
        with open_store(folder / "store") as store, open_store(unkilled / "store") as other:
            compare(store, other, verdict)
    return verdict


def examine(folder: Path, entries: list[list[Any]], verdict: Verdict, place: Place | None = None) -> None:
    """Open and check the store of a folder (or at a place of its own); the log is brought in line with a call
    that happened unheard."""
    place = place or folder / "store"
    if not has_store(place):  # killed before the store was there
        if acknowledged(entries):
            raise SystemExit(f"error: {shown(place)} vanished")
        return
    with open_store(place) as store:
        happened = check(store, entries, verdict)
    log = folder / "log"
    whole = log.read_bytes()
    log.write_bytes(whole[: whole.rfind(b"\n") + 1])
    if happened:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(happened) + "\n")


def main(
    quick: Annotated[bool, typer.Option(help="600 documents, 6 kills.")] = False,
    kills: Annotated[int | None, typer.Option(help="40; with --serve 50; with --postgres 20.")] = None,
    documents: int = 4000,
    seed: int = 0,
    serve: Annotated[bool, typer.Option("--serve", help="Kill a server (benchmarks.crash_serve).")] = False,
    postgres: Annotated[
        bool, typer.Option("--postgres", help="Kill a database server (benchmarks.crash_postgres).")
    ] = False,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    kind: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Kill indexing at random moments and count what is missing afterwards."""
    if child:
        work(Path(child), kind, documents)
        return
    if serve:
        from benchmarks import crash_serve  # needs the extra `serve`

        print(json.dumps(crash_serve.run(kills or (6 if quick else 50), seed, quick)))
        return
    if postgres:
        from benchmarks import crash_postgres  # needs the extra `dev`

        print(json.dumps(crash_postgres.run(kills or (4 if quick else 20), seed, quick)))
        return
    kills = kills or (6 if quick else 40)
    if quick:
        documents = min(documents, 600)
    draw, began, verdicts = random.Random(seed), time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as temporary:
        for i, name in enumerate(KINDS):
            share = kills // 2 if i else kills - kills // 2
            verdicts[name] = torture(Path(temporary), name, share, documents, draw)
            print(f"{name}: {verdicts[name]}", flush=True)
    totals = {key: sum(getattr(v, key) for v in verdicts.values()) for key in ("kills", "lost", "different")}
    totals["lost"] += sum(v.half for v in verdicts.values())
    record = {
        "machine": machine(),
        "documents": documents,
        "changes": sum(len(part.documents) + sum(map(len, part.deletions)) for part in plan(documents)),
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "stores": {name: vars(verdict) for name, verdict in verdicts.items()},
        **totals,
    }
    print(f"wrote {write_results('crash.quick' if quick else 'crash', record)}")
    print(json.dumps(totals))


if __name__ == "__main__":
    typer.run(main)
