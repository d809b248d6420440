"""Laws about what retrieves better than what: self-distillation (a), the five modes (b), long documents and
languages (c), MCLS (d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trichrome
from benchmarks.laws_common import (
    Interval,
    Law,
    Paired,
    Room,
    all_above_zero,
    part_of,
    smallest,
    spoken,
)
from trichrome.embeddings import SIGNALS
from trichrome.encoder import Encoder, NewHeads, save
from trichrome.evaluation import Options, Report, Task, evaluate, load_task
from trichrome.negatives import MineSettings, Rules, Sample, Source, mine_files
from trichrome.search.modes import LONG_MODES, M3_MODES
from trichrome.training.batches import BatchSettings
from trichrome.training.loop import Watch
from trichrome.training.lowrank import LowRank
from trichrome.training.prepare import with_positions
from trichrome.training.recipe import Objective, Optimiser, Recipe
from trichrome.training.stages import Trained, contrastive, unified

METRIC = "nDCG@10"
DTYPE = "bfloat16"
LONG = ("man-long", "lohelp-long")
#: Tasks whose queries and passages are in one language, and whose passages are short.
IN_LANGUAGE = ("cranfield", "cosqa-dev", "jaquad-dev", "cmrc-dev", "tquad-dev", "iapp-valid")
#: What (a) and (d) train on, and what (a) is measured on: other texts, most in the same languages.
TRAINED_ON = ("jaquad-train", "cmrc-trial", "drcd-dev", "iapp-train", "pquad-val", "lohelp")
MEASURED_ON = ("jaquad-dev", "cmrc-dev", "cranfield", "tquad-dev")
#: Rows of each language of lohelp, which has 24 of them.
_ROWS_A_LANGUAGE = 40
#: (d): languages searched, tokens read there, tokens of the passages trained on.
_MCLS_LANGS, _MCLS_TOKENS, _SHORT = ("en", "de"), 2048, 128
#: Of random sparse heads on this base many give some texts, or all, no weight at all, and learn nothing
#: there; 1 is the first seed whose head gives every text weights.
_HEADS_SEED = 1

Values = Mapping[str, NDArray[np.float64]]


def self_distillation(room: Room) -> Law:
    """(a) Two unified runs from the same base and new heads; only self-distillation differs."""
    arms = {arm: _unified_arm(room, arm, distil=arm == "on") for arm in ("off", "on")}
    tables = {arm: _means(reports) for arm, reports in arms.items()}
    both = [
        {f"off {s}": off.per_query[s][METRIC] for s in SIGNALS}
        | {f"on {s}": on.per_query[s][METRIC] for s in SIGNALS}
        for off, on in zip(arms["off"], arms["on"], strict=True)
    ]  # of each task
    paired = Paired(both)
    gains = {s: paired.difference(f"on {s}", f"off {s}") for s in SIGNALS}
    harmed = [s for s in SIGNALS if gains[s].high < 0]
    largest = max(gains, key=lambda s: gains[s].effect)
    return Law(
        "(a) self-distillation helps sparse most and harms none; effect: gain of sparse in nDCG@10 points",
        gains["sparse"],
        largest == "sparse" and gains["sparse"].low > 0 and not harmed,
        {
            "gains": {s: gain.to_json() for s, gain in gains.items()},
            "significantly_worse": harmed,
            "without": tables["off"],
            "with": tables["on"],
            "steps": room.sizes.steps,
            "queries": [r.queries for r in arms["on"]],
        },
    )


def modes(room: Room) -> Law:
    """(b) The five modes of `small` within languages."""
    reports = _as_shipped(room, IN_LANGUAGE)
    paired = Paired([_values(report) for report in reports])
    steps = {
        f"{a} - {b}": paired.difference(a, b)
        for a, b in (("all", "dense+sparse"), ("dense+sparse", "dense"), ("multivector", "dense"))
    }
    return Law(
        "(b) All > Dense+Sparse > Dense, and Multi-vector > Dense, within languages; effect: the smallest of "
        "the three differences in nDCG@10 points",
        smallest(steps),
        all_above_zero(steps),
        {"differences": _told(steps), **_means(reports)},
    )


def sparse_and_dense(room: Room) -> Law:
    """(c) Sparse against Dense on long documents and across languages."""
    long = _as_shipped(room, LONG)
    across = _as_shipped(room, ("xquad-pool",))
    steps = {
        "long: sparse - dense": Paired([_values(r) for r in long]).difference("sparse", "dense"),
        "across: dense - sparse": Paired([_values(r) for r in across]).difference("dense", "sparse"),
    }
    return Law(
        "(c) Sparse > Dense on long documents, Dense >> Sparse across languages; effect: the smaller of the "
        "two differences in nDCG@10 points",
        smallest(steps),
        all_above_zero(steps),
        {"differences": _told(steps), **_means([*long, *across])},
    )


def mcls(room: Room) -> Law:
    """(d) CLS against MCLS for a dense encoder that saw short passages only."""
    base = room.work / "cls-base"
    if not base.is_dir():
        bare = NewHeads(sparse=False, multivector_dim=None)
        save(trichrome.load("small-base", new_heads=bare, pooling="cls", device="cpu"), base)
    recipe = Recipe(
        model=str(base),
        data=_mined(room),
        output=room.work / "d",
        train="lowrank",
        lowrank=LowRank(rank=16, alpha=32),
        steps=room.sizes.dense_steps,
        dropout=0.0,
        precision="bfloat16",
        sub_batch_tokens=16384,
        batches=BatchSettings(
            token_budget=8192, group_size=2, query_tokens=48, passage_tokens=_SHORT, by="language"
        ),
        optimiser=Optimiser(rate=2e-4),
        checkpoint_every=40,
        keep=1,
    )
    encoder = with_positions(finished(contrastive(recipe, watch(room, "d")), recipe), _MCLS_TOKENS)
    encoder = encoder.to(dtype=DTYPE)
    task = load_task(room.task("man-long"), within_language=True)
    task = part_of(spoken(task, _MCLS_LANGS), room.sizes.queries, room.sizes.long_documents)
    dense = (LONG_MODES["dense"],)
    reports = {
        pooling: _measured(room, encoder.with_pooling(pooling), task, Options(modes=dense))
        for pooling in ("cls", "mcls")
    }
    paired = Paired([{p: r.per_query["dense"][METRIC] for p, r in reports.items()}])
    gain = paired.difference("mcls", "cls")
    return Law(
        "(d) MCLS lifts a dense encoder that was not trained on long documents; effect: nDCG@10 points of "
        "MCLS over CLS, same weights, on long manual pages",
        gain,
        gain.low > 0,
        {
            "nDCG@10": {p: round(paired.mean(p), 2) for p in reports},
            "trained_on_tokens": _SHORT,
            "read_tokens": _MCLS_TOKENS,
            "cut_documents": {p: r.cut_documents for p, r in reports.items()},
            "languages": list(_MCLS_LANGS),
            "documents": reports["cls"].documents,
            "queries": reports["cls"].queries,
            "steps": room.sizes.dense_steps,
        },
    )


# training


def watch(room: Room, name: str) -> Watch:
    """Tell every tenth step."""

    def on_step(step: int, steps: int, record: Mapping[str, float], warnings: list[str]) -> None:
        if step % 10 == 0 or step == steps:
            rate = record.get("tokens_per_second", 0.0)
            room.tell(
                f"{name}: step {step} of {steps}, loss {record['loss/total']:.3f}, {rate:,.0f} tokens/s"
            )

    return Watch(on_step=on_step)


def finished(trained: Trained, recipe: Recipe) -> Encoder:
    """The encoder of a run that went to its end, evaluated on the CPU."""
    if not trained.finished:
        raise SystemExit(f"error: {recipe.output} stopped after {trained.steps} steps; run again")
    return trained.encoder


def mine_bm25(room: Room, names: Sequence[str], rows: Mapping[str, int], to: Path) -> tuple[str, ...]:
    """Training files with four hard negatives a row, drawn from the first 30 that BM25 over words finds.

    rows: of each language of a file. No model is asked, so that no arm of a law is favoured.
    """
    settings = MineSettings(
        sources=(Source("bm25-words", 1, 30),),
        negatives=4,
        judge="none",
        rules=Rules(),
        within_language=True,
    )
    outs = []
    for name in names:
        outs.append(to / f"{name}.jsonl.gz")
        room.tell(f"mine {name}")
        sample = Sample(max_rows=rows[name], without=("eu", "et", "el"))
        mine_files([room.train(name)], [outs[-1]], None, settings, sample)
    return tuple(str(path) for path in outs)


def _mined(room: Room) -> tuple[str, ...]:
    """The training files of (a) and (d)."""
    rows = dict.fromkeys(TRAINED_ON, room.sizes.rows)
    rows["lohelp"] = min(room.sizes.rows, _ROWS_A_LANGUAGE)
    return mine_bm25(room, TRAINED_ON, rows, room.work / "mined")


def _unified_arm(room: Room, name: str, distil: bool) -> list[Report]:
    recipe = Recipe(
        model="small-base",
        new_heads=NewHeads(seed=_HEADS_SEED),
        data=_mined(room),
        output=room.work / "a" / name,
        train="lowrank",
        lowrank=LowRank(rank=16, alpha=32),
        steps=room.sizes.steps,
        dropout=0.0,
        precision="bfloat16",
        sub_batch_tokens=16384,
        batches=BatchSettings(
            token_budget=5120,
            group_size=2,
            query_tokens=48,
            passage_tokens=128,
            groups=(64, 128),
            by="language",
        ),
        optimiser=Optimiser(rate=2e-4, head_rate=5e-4),
        objective=Objective(distil=distil),  # everything else as in the paper
        checkpoint_every=40,
        keep=1,
    )
    encoder = finished(unified(recipe, watch(room, f"a, distillation {name}")), recipe).to(dtype=DTYPE)
    options = Options(modes=tuple(M3_MODES[s] for s in SIGNALS))
    sizes = room.sizes
    tasks = (part_of(load_task(room.task(t)), sizes.trained_queries, sizes.documents) for t in MEASURED_ON)
    return [_measured(room, encoder, task, options) for task in tasks]


# evaluation


def _as_shipped(room: Room, tasks: Sequence[str]) -> list[Report]:
    """`small` in the five modes, in the way and with the cache of benchmarks.quality."""
    encoder = trichrome.load("small", dtype=DTYPE)
    reports = []
    for name in tasks:
        long = name in LONG
        task = load_task(room.task(name), within_language=long)
        if room.sizes.documents is not None:
            task = part_of(
                task, room.sizes.queries, room.sizes.long_documents if long else room.sizes.documents
            )
        options = Options(max_queries=room.sizes.queries, settings={"dtype": DTYPE})
        reports.append(_measured(room, encoder, task, options, ours=False))
    return reports


def _measured(room: Room, encoder: Encoder, task: Task, options: Options, ours: bool = True) -> Report:
    """ours: a model of this run, whose encodings belong in its work folder."""
    options = replace(options, baselines=(), samples=100, cache=room.work / "cache" if ours else None)
    told: set[str] = set()

    def progress(name: str, stage: str, done: int, total: int) -> None:
        if stage not in told:
            told.add(stage)
            room.tell(f"{name}: {stage}, {total:,}")

    return evaluate(encoder, task, options, partial(progress, task.name))


def dense_report(room: Room, encoder: Encoder, task: Task) -> Report:
    """One model of this run, its dense output alone."""
    return _measured(room, encoder.to(dtype=DTYPE), task, Options(modes=(M3_MODES["dense"],)))


def _values(report: Report) -> Values:
    return {system: metrics[METRIC] for system, metrics in report.per_query.items()}


def _means(reports: Sequence[Report]) -> dict[str, Any]:
    """Task → system → nDCG@10 in points."""
    tables = {r.task: {s: round(100 * m[METRIC], 2) for s, m in r.means.items()} for r in reports}
    return {METRIC: tables, "queries": {r.task: r.queries for r in reports}}


def _told(steps: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval.to_json() for name, interval in steps.items()}
