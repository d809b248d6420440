"""The loop: optimiser steps with warm-up, clipping, a log, checkpoints and resumption, on accelerate.

What a step computes is the stage's affair; the loop only asks it to add gradients. Every step begins from a
random state that is made of seed and step, so that a run that was stopped goes on to the very same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trichrome.training.batches import BatchPlan
from trichrome.training.checkpoints import Checkpoints
from trichrome.training.diagnostics import Diagnostics
from trichrome.training.optimiser import make_optimiser, rate_share, set_rate
from trichrome.training.recipe import Optimiser

#: Adds the gradients of one step (from 0) to the parameters; returns what is worth logging.
Backward = Callable[[int], Mapping[str, float]]


@dataclass(frozen=True)
class Loop:
    """steps: optimiser steps in all. every: steps between checkpoints. seed: of dropout and draws."""

    steps: int
    every: int
    seed: int
    optimiser: Optimiser


@dataclass
class Watch:
    """What goes on beside the training.

    on_plan(plan): before the first step, what becomes of the data; main process only. on_step(step, steps,
    record, warnings): after each step. evaluate(step): before the first step and after each; it decides
    when, and the figures it returns are logged. stop(): asked before each step.
    """

    on_plan: Callable[[BatchPlan], None] | None = None
    on_step: Callable[[int, int, Mapping[str, float], list[str]], None] | None = None
    evaluate: Callable[[int], Mapping[str, float] | None] | None = None
    stop: Callable[[], bool] = lambda: False


def run(
    loop: Loop,
    named: Mapping[str, nn.Parameter],
    backward: Backward,
    accelerator: Any,
    checkpoints: Checkpoints,
    diagnostics: Diagnostics,
    watch: Watch,
) -> int:
    """Run to the end, or until `watch.stop()`; returns the steps done. A checkpoint stands at either.

    named: the parameters that are trained. Only the main process writes.
    """
    optimiser = make_optimiser(named, loop.optimiser)
    done = start = checkpoints.resume(named, optimiser)
    main = bool(accelerator.is_main_process)

    def evaluate(step: int) -> None:
        figures = watch.evaluate(step) if watch.evaluate is not None else None
        if figures and main:
            diagnostics.evaluation(step, figures)

    if start == 0:
        evaluate(0)
    while done < loop.steps and not _any(watch.stop(), accelerator):
        began = time.perf_counter()
        _seed(loop.seed, done, int(accelerator.process_index))
        share = rate_share(done, loop.steps, loop.optimiser)
        set_rate(optimiser, share)
        record = dict(backward(done))
        torch.nn.utils.clip_grad_norm_(list(named.values()), loop.optimiser.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        done += 1
        seconds = time.perf_counter() - began
        record |= {"step": done, "learning_rate": share * loop.optimiser.rate, "seconds": seconds}
        if "tokens" in record:
            record["tokens_per_second"] = record["tokens"] / seconds
        warnings = diagnostics.step(record) if main else []
        if main and done % loop.every == 0:
            checkpoints.save(done, named, optimiser)
        if watch.on_step is not None:
            watch.on_step(done, loop.steps, record, warnings)
        evaluate(done)
    if main and done > start:
        checkpoints.save(done, named, optimiser)
    accelerator.wait_for_everyone()
    return done


def _any(mine: bool, accelerator: Any) -> bool:
    """Whether any process says so; all must end at the same step, or they wait for each other forever."""
    if accelerator.num_processes == 1:
        return mine
    return bool(accelerator.gather(torch.tensor([float(mine)], device=accelerator.device)).any())


def _seed(seed: int, step: int, rank: int) -> None:
    """Dropout differs between ranks, as their texts do."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank)
