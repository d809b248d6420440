"""Whether the store in PostgreSQL keeps what it acknowledged: the database killed during indexing.

    python -m benchmarks.crash --postgres [--quick] [--kills 20]

A child process works through the plan of benchmarks.crash into a PostgreSQL server of our own; at random
moments all processes of the server get SIGKILL, and it is started again. Every second child has no patience:
its call fails, it ends, and what the recovered server holds is compared with its log before the next child
goes on. The others wait for the server and go on themselves; what they left is compared when they are done.
The verdicts are those of benchmarks.crash: lost, half, different. The last line is JSON;
benchmarks/results/crash_postgres.json holds all figures.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.common import machine, write_results
from benchmarks.crash import Verdict, compare, examine, read_log, wait_for_start, work
from benchmarks.crash_plan import plan
from benchmarks.postgres import Postgres, postgres_server
from trichrome.errors import TrichromeError
from trichrome.index import open_store

#: The module that a child imports before its log begins.
_KIND = "postgres_store"
_PATIENT, _IMPATIENT = 120.0, 0.0


def run(kills: int, seed: int, quick: bool) -> dict[str, int]:
    """Kill the database so many times; the totals of the last line. All figures are written as results."""
    documents, began = (600 if quick else 4000), time.perf_counter()
    with postgres_server() as server, tempfile.TemporaryDirectory() as temporary:
        verdict, gone_on = torture(server, Path(temporary), kills, documents, random.Random(seed))
    print(verdict, flush=True)
    totals = {"kills": verdict.kills, "lost": verdict.lost + verdict.half, "different": verdict.different}
    record = {
        "machine": machine(),
        "documents": documents,
        "changes": sum(len(part.documents) + sum(map(len, part.deletions)) for part in plan(documents)),
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "survived_by_clients": gone_on,
        "stores": {"postgres": vars(verdict)},
        **totals,
    }
    name = write_results("crash_postgres.quick" if quick else "crash_postgres", record)
    print(f"wrote {name}")
    return totals


def torture(
    server: Postgres, folder: Path, kills: int, size: int, draw: random.Random
) -> tuple[Verdict, int]:
    """The verdict, and how many kills a child survived that had patience."""
    verdict, gone_on, number = Verdict(), 0, 0
    seconds = run_whole(folder / "unkilled", server.place("unkilled"), size)
    print(f"a run takes {seconds:.1f} s", flush=True)
    while verdict.kills < kills:
        number += 1
        work_folder, place = folder / str(number), server.place(f"killed{number}")
        finished = False
        while not finished:
            patience = draw.choice([_PATIENT, _IMPATIENT])
            with child(work_folder, place, size, patience) as process:
                wait_for_start(process, work_folder)
                killed = 0
                while process.poll() is None and verdict.kills < kills:
                    try:  # so short that a run takes several kills
                        process.wait(draw.uniform(0, seconds / 4))
                    except subprocess.TimeoutExpired:
                        verdict.killed_while[read_log(work_folder / "log")[-1][0]] += 1
                        server.kill()
                        killed += 1
                        verdict.kills += 1
                        if patience == _IMPATIENT:
                            process.wait()
                        server.start()
                status = process.wait()
            finished = status == 0
            if status and not killed:
                raise SystemExit(
                    f"error: the child failed with status {status}, and nobody had killed anything"
                )
            gone_on += killed if finished else 0
            examine(work_folder, read_log(work_folder / "log"), verdict, place)
            print(
                f"{verdict.kills} kills: {verdict.lost} lost, {verdict.half} half, {gone_on} gone on",
                flush=True,
            )
        with open_store(place) as store, open_store(server.place("unkilled")) as other:
            compare(store, other, verdict)
    return verdict, gone_on


@contextmanager
def child(folder: Path, place: str, size: int, patience: float) -> Iterator[subprocess.Popen[bytes]]:
    """A process that indexes; killed at the end."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.crash_postgres", str(folder), place]
    command += ["--documents", str(size), "--patience", str(patience)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_whole(folder: Path, place: str, size: int) -> float:
    """Let a child finish; seconds of its work, without the start of Python."""
    with child(folder, place, size, _PATIENT) as process:
        started = wait_for_start(process, folder)
        if process.wait():
            raise SystemExit(f"error: indexing into PostgreSQL failed with status {process.returncode}")
        return time.perf_counter() - started


def main(
    folder: Annotated[Path, typer.Argument(help="Where the log is.")],
    place: str,
    documents: int = 600,
    patience: float = _PATIENT,
) -> None:
    """The child: work through the plan; end with 1 where a call fails."""
    from trichrome.index import postgres_pool

    postgres_pool.PATIENCE = patience
    try:
        work(folder, _KIND, documents, place)
    except TrichromeError as error:
        if patience:
            print(f"the child ends: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    typer.run(main)
