"""Two models on one task, or one before and after its training: the differences, query by query."""

from __future__ import annotations

import numpy as np

from trichrome.errors import TrichromeError
from trichrome.evaluation.metrics import METRICS
from trichrome.evaluation.report import Report, Suite
from trichrome.evaluation.run import BASELINES
from trichrome.evaluation.significance import SAMPLES, Comparison, paired_bootstrap

#: What a Comparison of `differences` calls the two: a is now, b was before.
NOW, BEFORE = "now", "before"


def differences(now: Report, before: Report, samples: int = SAMPLES, seed: int = 0) -> dict[str, Comparison]:
    """Mode → its nDCG@10 now less that before, by the paired bootstrap over the queries.

    Modes that both reports have; BM25 is left out, which no training changes.
    TrichromeError: the reports are of different queries or corpora, or hold no values by query.
    """
    if not before.per_query:
        raise TrichromeError(
            f"task {before.task}: the earlier results hold no values by query; "
            "they must be the results.json that --out wrote"
        )
    if now.query_ids != before.query_ids or now.documents != before.documents:
        raise TrichromeError(
            f"task {now.task}: {now.queries:,} queries and {now.documents:,} documents now, "
            f"{before.queries:,} and {before.documents:,} before, or others: only results on the same task "
            "can be compared"
        )
    metric = next(iter(METRICS))
    made = {}
    for mode in now.systems:
        if mode in before.per_query and mode not in BASELINES:
            values = np.stack([r.per_query[mode][metric] for r in (now, before)], axis=1)  # [Q, 2]
            (made[mode],) = paired_bootstrap(metric, (NOW, BEFORE), values, samples, seed)
    return made


def earlier_report(task: str, earlier: Suite) -> Report:
    """The report of a task in earlier results. TrichromeError names the tasks that are there."""
    for report in earlier.reports:
        if report.task == task:
            return report
    there = ", ".join(report.task for report in earlier.reports)
    raise TrichromeError(f"the earlier results are not of {task}, but of {there or 'nothing'}")
