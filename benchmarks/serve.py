"""How many requests a server answers, and how soon: `trichrome serve` against the server people write.

    python -m benchmarks.serve [--quick] [--seconds 5] [--rounds 3]

1, 4, 16 and 64 clients on loopback, in a process of their own, ask for the dense vector of one text a
request: search queries, and at 16 clients also passages of mixed length. Each level is bounded in time and in
requests. The contenders open the same weights (`small`, saved in the layout that both read):
    trichrome          `trichrome serve` as it starts by default (bfloat16 where the processor computes in it)
    trichrome-float32  the same, in the precision that the others use
    plain-threads      FastAPI and sentence-transformers' `encode`, in FastAPI's pool of threads
    plain-loop         the same in `async def`: one request after another
All run at once and take turns, so that a round measures them side by side; an idle server costs nothing.
Before that their answers to some texts are compared. Ratios are taken within rounds, against the better of
the plain servers at that level, and their median is given. Needs the extras `serve` and `parity`. The last
line is JSON; benchmarks/results/serve.json holds every measurement.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from urllib.request import Request, urlopen

import numpy as np
import typer

from benchmarks.common import SHARED_DATA, machine, write_results
from benchmarks.encode import SOURCES, mixed_texts
from benchmarks.servers import ROOT, running, serve_command

CLIENTS = (1, 4, 16, 64)
PLAIN = ("plain-threads", "plain-loop")
OURS = ("trichrome", "trichrome-float32")
LONGEST = 1500  # characters of a passage


def search_queries(count: int, seed: int = 0) -> list[str]:
    """Real questions of 7 sources; without the data, made-up ones of the same lengths."""
    draw = random.Random(seed)
    texts: list[str] = []
    for source in SOURCES:
        path = SHARED_DATA / "eval" / source / "queries.jsonl.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as file:
                rows = [json.loads(line)["text"] for line in file]
            texts += draw.sample(rows, min(len(rows), count // len(SOURCES) + 1))
    if not texts:
        words = [f"{a}{b}{c}" for a in "kltmrs" for b in "aeiou" for c in ("n", "r", "st", "")]
        texts = [" ".join(draw.choices(words, k=draw.randint(2, 12))) for _ in range(count)]
    draw.shuffle(texts)
    return texts[:count]


def commands(model: Path) -> dict[str, list[str]]:
    """How each contender is started."""
    plain = [sys.executable, "-m", "benchmarks.serve_plain", str(model), "--style"]
    return {
        "trichrome": serve_command(model),
        "trichrome-float32": serve_command(model, dtype="float32"),
        "plain-threads": [*plain, "threads"],
        "plain-loop": [*plain, "loop"],
    }


def vectors(url: str, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[n, D] what a server answers, one request after another."""
    rows = []
    for text in texts:
        head = {"Content-Type": "application/json"}
        with urlopen(
            Request(f"{url}/embed", json.dumps({"inputs": text}).encode(), head), timeout=120
        ) as got:
            rows.append(json.loads(got.read())[0])
    made = np.array(rows, np.float32)
    unit: np.ndarray[Any, np.dtype[np.float32]] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def least_agreement(urls: Mapping[str, str], texts: Sequence[str]) -> dict[str, float]:
    """The smallest cosine between each contender's vector of a text and a plain server's."""
    wanted = vectors(urls[PLAIN[0]], texts)
    return {name: round(float((vectors(url, texts) * wanted).sum(1).min()), 5) for name, url in urls.items()}


def ask(url: str, texts: Path, clients: int, seconds: float, count: int, seed: int) -> dict[str, Any]:
    """One level of one contender."""
    command = [sys.executable, "-m", "benchmarks.serve_client", url, str(texts), "--clients", str(clients)]
    command += ["--seconds", str(seconds), "--count", str(count), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"error: the clients failed:\n{done.stderr[-2000:]}")
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    latencies = made.pop("latencies_ms")
    return {
        **made,
        "per_second": round(made["requests"] / made["seconds"], 2),
        "p50_ms": round(float(np.percentile(latencies, 50)), 2) if latencies else None,
        "p99_ms": round(float(np.percentile(latencies, 99)), 2) if latencies else None,
    }


def compare(work: Path, seconds: float, count: int, rounds: int, chosen: Sequence[str]) -> dict[str, Any]:
    """Start all, check that they say the same, then let them take turns."""
    import trichrome
    from trichrome.encoder import save

    encoder = trichrome.load("small", device="cpu", prompts={"query": "", "passage": ""})
    save(encoder, work / "model", "flagembedding")
    del encoder
    texts = {"queries": search_queries(600), "passages": [t[:LONGEST] for t in mixed_texts(300)]}
    for name, some in texts.items():
        (work / f"{name}.json").write_text(json.dumps(some))
    environment = {"TRICHROME_HOME": str(work / "home")}
    levels = [("queries", clients) for clients in CLIENTS] + [("passages", 16)]
    measured: list[dict[str, Any]] = []
    with ExitStack() as stack:
        urls = {}
        for name, command in commands(work / "model").items():
            if name in chosen:
                urls[name] = stack.enter_context(running(command, work / f"{name}.log", environment))[1]
        agreement = least_agreement(urls, texts["queries"][:20]) if PLAIN[0] in urls else {}
        print(f"smallest cosine with {PLAIN[0]}: {agreement}", flush=True)
        if any(cosine < 0.99 for cosine in agreement.values()):
            raise SystemExit("error: the servers don't give the same vectors")
        for url in urls.values():
            ask(url, work / "queries.json", 16, min(seconds, 3), count, 1)  # warm, uncounted
        for r, (kind, clients) in product(range(rounds), levels):
            order = list(urls)[r % len(urls) :] + list(urls)[: r % len(urls)]
            row: dict[str, Any] = {"round": r, "texts": kind, "clients": clients, "contenders": {}}
            for name in order:
                made = ask(urls[name], work / f"{kind}.json", clients, seconds, count, seed=r)
                row["contenders"][name] = made
                print(
                    f"{r + 1}/{rounds} {kind:9} {clients:3} clients  {name:18} {made['per_second']:8.1f}/s  "
                    f"p50 {made['p50_ms'] or 0:8.1f} ms  p99 {made['p99_ms'] or 0:8.1f} ms  "
                    f"{made['errors']} errors {made['problems'] or ''}",
                    flush=True,
                )
            measured.append(row)
    return {"agreement": agreement, "measured": measured}


def ratio(measured: Sequence[Mapping[str, Any]], ours: str, kind: str, clients: int) -> float | None:
    """Requests a second against the better plain server of the same round and level, the rounds' median."""
    found = []
    for row in measured:
        if (row["texts"], row["clients"]) == (kind, clients):
            made = {name: values["per_second"] for name, values in row["contenders"].items()}
            theirs = [made[name] for name in PLAIN if name in made]
            if ours in made and theirs:
                found.append(made[ours] / max(theirs))
    return round(median(found), 3) if found else None


def summary(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last line."""
    ratios: dict[str, Any] = {}
    for ours, clients in product(OURS, CLIENTS):
        name = f"ratio_throughput_{clients}" + ("" if ours == OURS[0] else "_float32")
        ratios[name] = ratio(measured, ours, "queries", clients)
    ratios["ratio_throughput_16_passages"] = ratio(measured, OURS[0], "passages", 16)
    ratios["ratio_throughput_16_passages_float32"] = ratio(measured, OURS[1], "passages", 16)
    every = [values for row in measured for values in row["contenders"].items()]
    ratios["errors"] = sum(values["errors"] for name, values in every if name in OURS)
    ratios["errors_plain"] = sum(values["errors"] for name, values in every if name in PLAIN)
    return ratios


def main(
    quick: Annotated[bool, typer.Option(help="1 s a level, one round: a check, not a measurement.")] = False,
    seconds: Annotated[float, typer.Option(help="Of one level, at most.")] = 5.0,
    count: Annotated[int, typer.Option(help="Requests of one level, at most.")] = 4000,
    rounds: int = 3,
    only: Annotated[list[str] | None, typer.Option(help="These contenders only; repeat it.")] = None,
) -> None:
    """Measure servers side by side."""
    if quick:
        seconds, rounds = min(seconds, 1.0), 1
    chosen = only or [*OURS, *PLAIN]
    with tempfile.TemporaryDirectory() as temporary:
        results = compare(Path(temporary), seconds, count, rounds, chosen)
    found = summary(results["measured"])
    settings = {"seconds": seconds, "count": count, "rounds": rounds, "real_texts": SHARED_DATA.is_dir()}
    record = {"machine": machine(), **settings, **results, "ratios": found}
    if not only:
        print(f"wrote {write_results('serve.quick' if quick else 'serve', record)}")
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
