"""What int8 costs in quality: nDCG@10 of one model in float32 and bfloat16 (torch) and int8 (onnxruntime).

    python -m benchmarks.precision [--quick] [--model small] [--leave-out down]

Whole tasks in three languages, all five modes. float32 is the measure: what is lost is its nDCG@10 minus
the other's, in points (0.01). --leave-out tries an int8 graph whose named products stay in float32. The last
line is JSON: the most points lost over tasks and modes, by precision; benchmarks/results/precision.json
holds every figure.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import trichrome
from benchmarks.common import SHARED_DATA, machine, write_results
from trichrome.encoder import Encoder
from trichrome.encoder.export import LEAVE_OUT, export_onnx
from trichrome.errors import TrichromeError
from trichrome.evaluation import Options, Suite, evaluate_many, load_task

TASKS = ("cranfield", "jaquad-dev", "afriqa-dev")
PRECISIONS = ("float32", "bfloat16", "int8")

console = Console(stderr=True)


def main(
    quick: Annotated[bool, typer.Option(help="Two small tasks, 60 queries.")] = False,
    model: Annotated[str, typer.Option(help="small, a folder or a hub id.")] = "small",
    data: Annotated[Path, typer.Option(help="Folder of BEIR-layout tasks.")] = SHARED_DATA / "eval",
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(TASKS),
    leave_out: Annotated[
        str, typer.Option(help="Products that int8 leaves in float32, comma-separated.")
    ] = ",".join(LEAVE_OUT),
    max_queries: Annotated[int | None, typer.Option(help="A seeded sample of each task's queries.")] = None,
    name: Annotated[str, typer.Option(help="Of the results file.")] = "precision",
) -> None:
    """Measure what a precision costs."""
    if not data.is_dir():
        raise SystemExit(f"error: no tasks at {data}; give their folder with --data")
    chosen = ["tquad-dev", "iapp-valid"] if quick else tasks.split(",")
    kept = tuple(filter(None, leave_out.split(",")))
    suites: dict[str, Suite] = {}
    seconds: dict[str, float] = {}
    try:
        with tempfile.TemporaryDirectory() as temporary:
            for precision in PRECISIONS:
                encoder = opened(model, precision, kept, Path(temporary) / "int8")
                start = time.perf_counter()
                suites[precision] = measured(encoder, data, chosen, 60 if quick else max_queries, kept)
                seconds[precision] = time.perf_counter() - start
                console.print(f"{precision}: {seconds[precision]:.0f} s", highlight=False)
    except TrichromeError as error:
        raise SystemExit(f"error: {error}") from None
    scores = {
        precision: {r.task: {mode: m["nDCG@10"] for mode, m in r.means.items()} for r in suite.reports}
        for precision, suite in suites.items()
    }
    lost = {
        precision: {
            task: {mode: round(100 * (scores["float32"][task][mode] - at), 3) for mode, at in modes.items()}
            for task, modes in by_task.items()
        }
        for precision, by_task in scores.items()
        if precision != "float32"
    }
    results: dict[str, Any] = {
        "machine": machine(),
        "model": suites["float32"].reports[0].model,
        "leave_out": list(kept),
        "documents": {r.task: r.documents for r in suites["float32"].reports},
        "queries": {r.task: r.queries for r in suites["float32"].reports},
        "seconds": seconds,
        "ndcg10": scores,
        "points_lost": lost,
    }
    for precision, by_task in lost.items():
        for task, modes in by_task.items():
            row = "  ".join(f"{mode} {points:+.2f}" for mode, points in modes.items())
            console.print(f"{precision:9} {task:12} points lost: {row}", highlight=False)
    print(f"wrote {write_results(f'{name}.quick' if quick else name, results)}")
    most = {p: max(points for modes in t.values() for points in modes.values()) for p, t in lost.items()}
    print(json.dumps({f"most_points_lost_{precision}": points for precision, points in most.items()}))


def opened(model: str, precision: str, leave_out: tuple[str, ...], folder: Path) -> Encoder:
    """The model in one precision; int8 is exported anew, with what is left out."""
    if precision != "int8":
        return trichrome.load(model, device="cpu", dtype=precision)
    export_onnx(trichrome.load(model, device="cpu"), folder, "int8", leave_out=leave_out)
    return trichrome.load(folder)


def measured(
    encoder: Encoder, data: Path, tasks: list[str], max_queries: int | None, leave_out: tuple[str, ...]
) -> Suite:
    """The modes on every task; encodings are kept by precision."""
    settings = {"dtype": encoder.precision}
    if encoder.precision == "int8":
        settings["leave_out"] = ",".join(leave_out)
    options = Options(max_queries=max_queries, settings=dict(settings), baselines=())
    stages: set[tuple[str, str]] = set()

    def tell(task: str, stage: str, done: int, total: int) -> None:
        if (task, stage) not in stages:
            stages.add((task, stage))
            console.print(f"  {encoder.precision} {task}: {stage} of {total}", highlight=False)

    return evaluate_many(encoder, (load_task(data / task) for task in tasks), options, progress=tell)


if __name__ == "__main__":
    typer.run(main)
