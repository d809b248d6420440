"""Evaluation during training: the five modes on a few tasks, with the weights as they are at a step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from trichrome.encoder.encoder import Encoder
from trichrome.evaluation import Options, TwoTowers, evaluate_many, load_task
from trichrome.training.recipe import Evaluation
from trichrome.training.towers import finished


def evaluator(
    encoder: Encoder, settings: Evaluation, steps: int, documents: Encoder | None = None
) -> Callable[[int], dict[str, float] | None]:
    """step → nDCG@10 by TASK/MODE, at step 0, every `settings.every` steps and at the last; else None.

    documents: what encodes the documents, where `encoder` learns its queries.
    """
    tasks = [load_task(path) for path in settings.tasks]
    kept = None if documents is None else tempfile.TemporaryDirectory()  # documents are encoded once

    def evaluate(step: int) -> dict[str, float] | None:
        if step % settings.every and step != steps:
            return None
        network = encoder.network.eval()
        now = Encoder(
            network, encoder.tokenizer.tokenizer, encoder.config, str(encoder.device), f"at step {step}"
        )
        try:
            # the weights of one step are never seen again
            with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept.name) as cache:
                options = Options(baselines=(), max_queries=settings.max_queries, cache=Path(cache))
                both = now if documents is None else TwoTowers(finished(now, documents), documents)
                suite = evaluate_many(both, tasks, options)
        finally:
            network.train()
        return {
            f"{report.task}/{mode}": round(figures["nDCG@10"], 5)
            for report in suite.reports
            for mode, figures in report.means.items()
        }

    return evaluate
