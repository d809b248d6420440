"""How well one model retrieves: BM25 and the five modes on real tasks in many languages.

    python -m benchmarks.quality [--quick] [--model small] [--name quality]
    python -m benchmarks.quality --raw --name quality-base    the bare base: dense, and its raw token states

Whole corpora, all queries (a seeded sample with --max-queries), the depths and weights of the M3 paper; the
two long tasks are searched within the query's language. The weights are those for passages on all tasks: on
manual pages of the training data they serve `small` better than the paper's for long documents, which give
the sparse score four times the weight of the dense (--long-weights uses them on the long tasks). Every row
is written to benchmarks/results/NAME.json, whatever it is. The last line is JSON: nDCG@10 by task and system.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import trichrome
from benchmarks.common import RESULTS, SHARED_DATA, machine, write_results
from trichrome.encoder import Encoder, NewHeads
from trichrome.errors import TrichromeError
from trichrome.evaluation import BASELINES, Options, evaluate_many, load_task, markdown, plot_bars
from trichrome.search.modes import Preset, mode_named

#: The visible tasks; the last two have long documents.
TASKS = (
    "xquad-pool",
    "cranfield",
    "afriqa-dev",
    "cosqa-dev",
    "jaquad-dev",
    "cmrc-dev",
    "tquad-dev",
    "iapp-valid",
    "man-long",
    "lohelp-long",
)
LONG = ("man-long", "lohelp-long")

console = Console(stderr=True)


def main(
    quick: Annotated[bool, typer.Option(help="Two small tasks, few queries.")] = False,
    model: Annotated[str, typer.Option(help="small, a folder or a hub id.")] = "small",
    name: Annotated[str, typer.Option(help="Of the results file.")] = "quality",
    data: Annotated[Path, typer.Option(help="Folder of BEIR-layout tasks.")] = SHARED_DATA / "eval",
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(TASKS),
    max_queries: Annotated[int | None, typer.Option(help="A seeded sample of each task's queries.")] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the network.")] = "bfloat16",
    long_weights: Annotated[bool, typer.Option(help="The paper's for long documents, on the two.")] = False,
    raw: Annotated[
        bool, typer.Option(help="The base of `small`, its last hidden states as multi-vector: untrained.")
    ] = False,
) -> None:
    """Evaluate one model on the visible tasks."""
    if not data.is_dir():
        raise SystemExit(f"error: no tasks at {data}; give their folder with --data")
    chosen = tasks.split(",") if not quick else ["tquad-dev", "cranfield"]
    start = time.perf_counter()
    encoder = raw_states(dtype) if raw else trichrome.load(model, dtype=dtype)
    presets: dict[str, Preset] = dict.fromkeys(LONG, "long") if long_weights else {}

    stages: set[tuple[str, str]] = set()

    def tell(task: str, stage: str, done: int, total: int) -> None:
        if (task, stage) not in stages or done == total:
            stages.add((task, stage))
            console.print(
                f"{time.perf_counter() - start:7.0f} s  {task}: {stage} {done} of {total}", highlight=False
            )

    try:
        suite = evaluate_many(
            encoder,
            (load_task(data / t, within_language=t in LONG) for t in chosen),
            Options(
                max_queries=60 if quick else max_queries,
                settings={"dtype": dtype},
                modes=tuple(mode_named(name) for name in ("dense", "multivector")) if raw else None,
                baselines=() if raw else BASELINES,
            ),
            presets,
            tell,
        )
    except TrichromeError as error:
        raise SystemExit(f"error: {error}") from None
    for metric in ("nDCG@10", "Recall@100", "MRR@10"):
        print(f"\n{metric}\n{markdown(suite.reports, metric)}")
    results = {
        "machine": machine(),
        "dtype": dtype,
        "seconds": time.perf_counter() - start,
        **suite.to_json(),
    }
    print(f"wrote {write_results(f'{name}.quick' if quick else name, results)}")
    if not quick:
        plot_bars(suite.reports, RESULTS / f"{name}.png")
    scores = {r.task: {s: round(m["nDCG@10"], 4) for s, m in r.means.items()} for r in suite.reports}
    print(json.dumps(scores))


def raw_states(dtype: str) -> Encoder:
    """The base of `small` whose token vectors are its last hidden states [T, 384], as they are."""
    width = trichrome.load("small", device="cpu").dense_dim
    made = trichrome.load("small-base", new_heads=NewHeads(sparse=False, multivector_dim=width), device="cpu")
    projection = made.network.heads.multivector
    assert projection is not None
    with torch.no_grad():
        projection.weight.copy_(torch.eye(width))
        projection.bias.zero_()
    config = replace(made.config, name="base, raw token states")
    return Encoder(made.network, made.tokenizer.tokenizer, config).to(dtype=dtype)


if __name__ == "__main__":
    typer.run(main)
