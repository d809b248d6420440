"""`trichrome train`: one stage of the M3 recipe, as a recipe file says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from trichrome.cli.console import INTERRUPTED, Stopped, bar, err, note, out, print_json
from trichrome.cli.settings import JsonOption

if TYPE_CHECKING:
    from trichrome.training.batches import BatchPlan
    from trichrome.training.loop import Watch
    from trichrome.training.recipe import Recipe
    from trichrome.training.stages import Trained

Stage = Literal["retromae", "contrastive", "heads", "unified", "queries", "query_tower"]


def train(
    stage: Annotated[
        Stage, typer.Argument(help="retromae, contrastive, heads, unified, queries or query_tower.")
    ],
    config: Annotated[Path, typer.Option("--config", "-c", help="The recipe, a YAML file.")],
    model: Annotated[str | None, typer.Option(help="Start from this encoder instead.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Train on these files instead.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write to this folder instead.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps instead.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an encoder. The same command goes on where it was stopped or killed.

    Several GPUs or processes: `accelerate launch -m trichrome.cli.main train …`; the first one speaks.
    """
    from trichrome.training.diagnostics import LOG, read_log
    from trichrome.training.loop import Watch
    from trichrome.training.recipe import read_recipe

    given = {"model": model, "data": data, "output": output and str(output), "steps": steps, "seed": seed}
    recipe = read_recipe(config, given)
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes that share the training
    with _interruptible() as stopped, bar(stage, None, unit="steps", quiet=not first) as progress:
        seen: list[float] = []

        def on_step(step: int, steps: int, record: Mapping[str, float], warnings: list[str]) -> None:
            seen.append(record["loss/total"])
            loss = fmean(seen[-20:])
            progress.at(step, free=step - len(seen), label=f"{stage}: loss {loss:.3f}", total=steps)
            for warning in warnings:
                err.print(f"step {step}: {warning}", style="yellow", markup=False, soft_wrap=True)

        trained = _stage(stage)(recipe, Watch(_tell_plan, on_step, stop=stopped))
    if not first:
        raise typer.Exit(0 if trained.finished else INTERRUPTED)
    if not trained.finished:
        raise Stopped(f"stopped after step {trained.steps}; the same command goes on from there")
    log = read_log(recipe.output / LOG)
    if as_json:
        print_json({"model": str(trained.model), "steps": trained.steps, **_summary(log)})
        return
    _show(log)
    note(f"log and plot are in {recipe.output}; `trichrome eval TASK --model {trained.model}` measures it")
    out.print(f"trained {trained.steps:,} steps: {trained.model}", markup=False, soft_wrap=True)


def _stage(name: Stage) -> Callable[[Recipe, Watch], Trained]:
    from trichrome.training import query_side, query_tower, stages

    room = {"queries": query_side, "query_tower": query_tower}.get(name, stages)
    chosen: Callable[[Recipe, Watch], Trained] = getattr(room, name)
    return chosen


def _tell_plan(plan: BatchPlan) -> None:
    """What becomes of the data: batches, padding, and whatever is left out or cut."""
    report = plan.report
    padding = f"padding {100 * plan.padding_share():.0f} %"
    if plan.settings.grouped:
        padding += f", {100 * plan.padding_share(grouped=False):.0f} % without length groups"
    note(f"{report.rows:,} rows in {report.batches:,} batches an epoch; {padding}")
    if report.topics:
        note(f"{report.topics:,} topics of queries, which batches keep together")
    if plan.examples.report.skipped:
        note(plan.examples.report.summary())
    for count, what in (
        (report.queries_cut, "queries are longer than batches.query_tokens, and cut"),
        (report.passages_cut, "passages are longer than batches.passage_tokens, and cut"),
        (report.single, "batches hold a single row"),
        (report.repeated, "rows are taken twice, so that every process has one"),
    ):
        if count:
            note(f"{count:,} {what}")


@contextmanager
def _interruptible() -> Iterator[Any]:
    """The first Ctrl-C ends the run after its step, with a checkpoint; the second at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        note("stopping after this step; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _summary(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The first and last evaluation, and the last step's losses."""
    evaluations = [r for r in log if r.get("kind") == "evaluation"]
    last: dict[str, Any] = next((r for r in reversed(log) if r.get("kind") != "evaluation"), {})
    return {
        "losses": {k: v for k, v in last.items() if k.startswith("loss/")},
        "before": evaluations[0] if evaluations else None,
        "after": evaluations[-1] if evaluations else None,
    }


def _show(log: list[dict[str, Any]]) -> None:
    """A row a task and mode: nDCG@10 before and after."""
    summary = _summary(log)
    before, after = summary["before"], summary["after"]
    if not after:
        return
    table = Table(title="nDCG@10 in %", title_justify="left")
    for column in ("task", "mode"):
        table.add_column(column)
    for column in ("before", "after", "difference"):
        table.add_column(column, justify="right")
    for name, value in after.items():
        if name in ("step", "kind"):
            continue
        task, _, mode = name.rpartition("/")
        old = before[name]
        table.add_row(task, mode, f"{100 * old:.1f}", f"{100 * value:.1f}", f"{100 * (value - old):+.1f}")
    out.print(table)
