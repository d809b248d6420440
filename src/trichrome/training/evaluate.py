"""Evaluation during training: the five modes on a few tasks, with the weights as they are at a step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from trichrome.encoder.encoder import Encoder
from trichrome.evaluation import Options, evaluate_many, load_task
from trichrome.training.recipe import Evaluation


def evaluator(encoder: Encoder, settings: Evaluation, steps: int) -> Callable[[int], dict[str, float] | None]:
    """step → nDCG@10 by TASK/MODE, at step 0, every `settings.every` steps and at the last; else None."""
    tasks = [load_task(path) for path in settings.tasks]

    def evaluate(step: int) -> dict[str, float] | None:
        if step % settings.every and step != steps:
            return None
        network = encoder.network.eval()
        now = Encoder(
            network, encoder.tokenizer.tokenizer, encoder.config, str(encoder.device), f"at step {step}"
        )
        try:
            with tempfile.TemporaryDirectory() as cache:  # the weights of one step are never seen again
                options = Options(baselines=(), max_queries=settings.max_queries, cache=Path(cache))
                suite = evaluate_many(now, tasks, options)
        finally:
            network.train()
        return {
            f"{report.task}/{mode}": round(figures["nDCG@10"], 5)
            for report in suite.reports
            for mode, figures in report.means.items()
        }

    return evaluate
