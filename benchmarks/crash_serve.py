"""Whether `trichrome serve` keeps what it acknowledged: killed with SIGKILL while it adds documents.

    python -m benchmarks.crash --serve [--quick] [--kills 50]

One server holds an index of each local kind. Clients add, change and delete documents over HTTP, several to a
request, short ones and ones that become several passages; a document changes its length from version to
version, so that passages go away too. At a random moment (now and then while the server still starts) it is
killed; then the stores are opened and everything in them is compared with what was acknowledged:
    lost         acknowledged and missing, older than acknowledged, or deleted and back
    half         a request or a document that is there in part, a payload or vectors of another version
    different    at the end, answers that are not those of a server that nobody killed
A request without an answer may have happened: whole, or not at all. The next server starts on the same
folders.
The last line is JSON; benchmarks/results/crash_serve.json holds all figures.
"""

from __future__ import annotations

import http.client
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common import machine, write_results
from benchmarks.servers import Server, serve_command, tiny_encoder
from trichrome.encoder import Encoder, save
from trichrome.formats.passages import cut_document
from trichrome.index import Store, create_store_for, open_store
from trichrome.index.build import payload_of
from trichrome.records import Document, Payload
from trichrome.serving.indexes import finish_removal

KINDS = ("embedded", "exact")
WRITERS = 2  # clients of an index; each has documents of its own
DOCUMENTS = 120  # of a writer
PASSAGE, OVERLAP = 20, 4  # tokens
LIFE = 1.2  # seconds that a server lives after it is ready, at most
EARLY = 0.1  # share of the kills that come while it starts
QUERIES = 25

#: Document id → its version, None where it was deleted or never there.
Versions: TypeAlias = "dict[str, int | None]"


def document(id: str, version: int) -> Document:
    """A document in one version, the same wherever it is made: 3 to 90 words."""
    draw = random.Random(f"{id} {version}")
    words = [
        "river",
        "moon",
        "cat",
        "dog",
        "bird",
        "light",
        "old",
        "small",
        "over",
        "under",
        "月光",
        "川",
        "цукен",
        "ßß",
    ]
    count = draw.choice([3, 5, 8, 13, 21, 34, 55, 90])
    text = " ".join(draw.choices(words, k=count))
    return Document(id, f"{version} {text}", lang=draw.choice(["en", "de"]), metadata={"version": version})


def passages(encoder: Encoder, id: str, version: int) -> dict[str, Payload]:
    """What a store holds of it: passage id → payload."""
    cut = cut_document(document(id, version), encoder.tokenizer.offsets, max_tokens=PASSAGE, overlap=OVERLAP)
    return {passage.id: payload_of(passage) for passage in cut}


@dataclass
class Verdict:
    """What was found."""

    kills: int = 0
    lost: int = 0
    half: int = 0
    different: int = 0
    acknowledged: int = 0
    refused: int = 0
    unanswered_and_there: int = 0
    unanswered_and_absent: int = 0
    checked: int = 0
    killed_while: Counter[str] = field(default_factory=Counter)
    starts: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def complain(self, what: str) -> None:
        self.complaints = [*self.complaints, what][:20]


class Writer:
    """One client: what it sent, and what it was told. No two have a document in common."""

    def __init__(self, index: str, number: int, seed: int) -> None:
        self.index, self.draw = index, random.Random(seed)
        self.ids = [f"{number}/{n}" for n in range(DOCUMENTS)]
        self.known: Versions = dict.fromkeys(self.ids)  # as acknowledged
        self.tried: Versions = {}  # by the request that is under way
        self.doing = ""
        self.next = 0
        self.acknowledged = self.refused = 0

    def work(self, address: tuple[str, int]) -> None:
        """Send requests until the server is gone."""
        while True:
            path, body = self.plan()
            try:
                link = http.client.HTTPConnection(*address, timeout=60)
                link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                status = link.getresponse().status
                link.close()
            except (OSError, http.client.HTTPException):
                return
            if status == 200:
                self.known |= self.tried
                self.acknowledged += 1
            else:
                self.refused += 1
            self.tried, self.doing = {}, ""

    def plan(self) -> tuple[str, dict[str, Any]]:
        """The next request; remembered before it is sent."""
        base, draw = f"/indexes/{self.index}", self.draw
        some = draw.sample(self.ids, draw.choice([1, 2, 4, 8, 16]))
        if draw.random() < 0.15:
            self.tried, self.doing = dict.fromkeys(some), "deleting"
            return f"{base}/documents/delete", {"ids": some}
        if draw.random() < 0.03:
            self.tried, self.doing = {}, "optimizing"
            return f"{base}/optimize", {}
        tried: Versions = {}
        for id in some:
            self.next += 1
            tried[id] = self.next
        self.tried, self.doing = tried, "adding"
        return f"{base}/documents", {"documents": [sent(id, v) for id, v in tried.items() if v is not None]}


def sent(id: str, version: int) -> dict[str, Any]:
    """A document as it goes over the wire."""
    made = document(id, version)
    return {"id": made.id, "text": made.text, "lang": made.lang, "metadata": made.metadata}


# the check


def check(store: Store, encoder: Encoder, writers: Sequence[Writer], verdict: Verdict) -> None:
    """Compare a store with what its writers know; then they know what became of their last requests."""
    found: dict[str, dict[str, Payload]] = {}
    for id, payload in store.scan():
        found.setdefault(str(payload.get("document", id)), {})[id] = payload
    verdict.checked += len(found)
    for writer in writers:
        states = {id: version_of(encoder, id, found.pop(id, {})) for id in writer.ids}
        happened = {id for id, version in writer.tried.items() if states[id] == version != writer.known[id]}
        would_change = {id for id, version in writer.tried.items() if version != writer.known[id]}
        if happened and happened != would_change:
            verdict.half += 1
            verdict.complain(f"{writer.doing}: {len(happened)} of {len(would_change)} documents are there")
        if would_change:
            verdict.unanswered_and_there += bool(happened)
            verdict.unanswered_and_absent += not happened
        for id, state in states.items():
            if state == -1:
                verdict.half += 1
                verdict.complain(f"{store.manifest.kind} {id}: there in part, or in two versions")
            elif id not in happened and state != writer.known[id]:
                verdict.lost += 1
                verdict.complain(f"{id}: acknowledged in version {writer.known[id]}, found in {state}")
        writer.known = dict(states)
        writer.tried, writer.doing = {}, ""
    for id in found:
        verdict.half += 1
        verdict.complain(f"{store.manifest.kind}: {id!r} was never sent")
    check_vectors(store, encoder, verdict)


def version_of(encoder: Encoder, id: str, found: Mapping[str, Payload]) -> int | None:
    """The version that is stored whole; None where nothing is, -1 where it is neither."""
    if not found:
        return None
    versions = {payload.get("version") for payload in found.values()}
    version = versions.pop()
    whole = not versions and isinstance(version, int) and found == passages(encoder, id, version)
    return version if whole and isinstance(version, int) else -1


def check_vectors(store: Store, encoder: Encoder, verdict: Verdict) -> None:
    """All outputs of all documents are those of their texts (other batches round a little differently)."""
    stored = list(store.scan(fields=["text"]))
    if store.count() != len(stored):
        verdict.half += 1
        verdict.complain(f"the store counts {store.count()} documents and lists {len(stored)}")
    for start in range(0, len(stored), 500):
        part = stored[start : start + 500]
        made = encoder.encode([str(payload["text"]) for _, payload in part], "passage")
        kept = store.embeddings(store.rows_of([id for id, _ in part]))
        for (id, _), got, want in zip(part, kept, made, strict=True):
            pairs = (
                (got.dense, want.dense),
                (got.token_ids, want.token_ids),
                (got.token_weights, want.token_weights),
                (got.multivector, want.multivector),
            )
            if not all(
                a is not None and b is not None and a.shape == b.shape and np.allclose(a, b, atol=4e-3)
                for a, b in pairs
            ):
                verdict.half += 1
                verdict.complain(f"{store.manifest.kind} {id}: the vectors are not those of its text")


# killing


@contextmanager
def at_work(writers: Sequence[Writer], url: str) -> Iterator[None]:
    """All writers send; at the end the server must be gone, which ends them."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 0))
    threads = [threading.Thread(target=writer.work, args=(address,)) for writer in writers]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def torture(work: Path, kills: int, seed: int) -> Verdict:
    """Kill servers until it was enough, each time checking the stores."""
    draw, verdict, encoder = random.Random(seed), Verdict(), tiny_encoder()
    save(encoder, work / "model")
    folders = {kind: new_index(work / "killed" / kind, encoder, kind) for kind in KINDS}
    writers = {kind: [Writer(kind, n, seed + n) for n in range(WRITERS)] for kind in KINDS}
    everybody = [writer for several in writers.values() for writer in several]
    command = serve_command(work / "model", list(folders.values()), dtype="float32")
    while verdict.kills < kills:
        began = time.perf_counter()
        server = Server(command, work / "server.log")
        if draw.random() < EARLY:
            time.sleep(draw.uniform(0, max(verdict.starts, default=1.0)))
            server.kill()
            verdict.killed_while["starting"] += 1
        else:
            url = server.wait()
            verdict.starts.append(round(time.perf_counter() - began, 2))
            with at_work(everybody, url):
                time.sleep(draw.uniform(0, LIFE))
                server.kill()
            doing = {writer.doing for writer in everybody if writer.doing}
            verdict.killed_while[" and ".join(sorted(doing)) or "idle"] += 1
        verdict.kills += 1
        for kind, folder in folders.items():
            with open_store(folder) as store:
                finish_removal(store)  # as the next server does
                check(store, encoder, writers[kind], verdict)
        verdict.acknowledged = sum(writer.acknowledged for writer in everybody)
        verdict.refused = sum(writer.refused for writer in everybody)
        print(
            f"{verdict.kills} kills: {verdict.acknowledged} acknowledged, {verdict.refused} refused, "
            f"{verdict.lost} lost, {verdict.half} half",
            flush=True,
        )
    verdict.different = differing(work, command, encoder, writers)
    return verdict


def new_index(folder: Path, encoder: Encoder, kind: str) -> Path:
    """An empty index whose documents are cut into short passages."""
    settings = {"passage_tokens": PASSAGE, "overlap": OVERLAP}
    create_store_for(encoder, folder, kind=kind, settings=settings).close()
    return folder


def differing(
    work: Path, command: Sequence[str], encoder: Encoder, writers: Mapping[str, Sequence[Writer]]
) -> int:
    """How many answers differ from those over the same documents, sent once to a server that nobody kills."""
    answers = asked(Server(command, work / "server.log"))
    whole = [new_index(work / "whole" / kind, encoder, kind) for kind in KINDS]
    unkilled = Server(serve_command(work / "model", whole, dtype="float32"), work / "unkilled.log")
    wanted = asked(unkilled, {kind: merged(several) for kind, several in writers.items()})
    return sum(not alike(answers[key], wanted[key]) for key in wanted)


def merged(writers: Sequence[Writer]) -> list[dict[str, Any]]:
    """The documents that must be there, as they are sent."""
    return [sent(id, v) for writer in writers for id, v in writer.known.items() if v is not None]


def asked(
    server: Server, documents: Mapping[str, Sequence[dict[str, Any]]] | None = None
) -> dict[tuple[str, int], dict[str, float]]:
    """(index, number of the query) → {passage id: score} of the ten best; the server is stopped then."""
    answers = {}
    try:
        url = server.wait()
        for kind, some in (documents or {}).items():
            for start in range(0, len(some), 50):
                post(url, f"/indexes/{kind}/documents", {"documents": some[start : start + 50]})
        for kind in KINDS:
            for i in range(QUERIES):
                query = " ".join(document(f"query {i}", 0).text.split()[1:9])
                found = post(url, f"/indexes/{kind}/search", {"query": query, "k": 10})
                answers[kind, i] = {hit["id"]: float(hit["score"]) for hit in found["hits"]}
        if server.stop():
            raise SystemExit(f"error: the server did not stop in order:\n{server.text()}")
    finally:
        server.kill()
    return answers


def post(url: str, path: str, body: Mapping[str, Any]) -> Any:
    """An answer that must be 200."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 0), timeout=60)
    link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = link.getresponse()
    text = answer.read()
    link.close()
    if answer.status != 200:
        raise SystemExit(f"error: {path} answered {answer.status}: {text[:500]!r}")
    return json.loads(text)


def alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two answers are the same but for rounding, which may swap equal ones at the end of the list."""
    near = len(one) == len(other) and np.allclose(sorted(one.values()), sorted(other.values()), atol=5e-3)
    return near and all(abs(one[id] - other[id]) < 5e-3 for id in one.keys() & other.keys())


def run(kills: int, seed: int, quick: bool) -> dict[str, int]:
    """Kill, check, write the results; kills, lost (what is half there included) and different."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        verdict = torture(Path(temporary), kills, seed)
    totals = {"kills": verdict.kills, "lost": verdict.lost + verdict.half, "different": verdict.different}
    record = {
        "machine": machine(),
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "indexes": list(KINDS),
        **vars(verdict),
    }
    print(f"wrote {write_results('crash_serve.quick' if quick else 'crash_serve', record)}")
    return totals
