"""Evaluation: the five modes and BM25 on BEIR-layout tasks, with their significance.

    evaluate(encoder, load_task("folder")) → Report
    evaluate_many(encoder, tasks) → Suite

Needs the extra `eval`: pip install 'trichrome[eval]'.
"""

from trichrome.evaluation.against import differences, earlier_report
from trichrome.evaluation.metrics import METRICS
from trichrome.evaluation.plots import plot_bars
from trichrome.evaluation.report import Report, Suite, comparison_table, language_table, markdown
from trichrome.evaluation.run import BASELINES, Options, evaluate, evaluate_many
from trichrome.evaluation.significance import Comparison, paired_bootstrap
from trichrome.evaluation.task import Task, load_task
from trichrome.evaluation.two_towers import TwoTowers

__all__ = [
    "BASELINES",
    "METRICS",
    "Comparison",
    "Options",
    "Report",
    "Suite",
    "Task",
    "TwoTowers",
    "comparison_table",
    "differences",
    "earlier_report",
    "evaluate",
    "evaluate_many",
    "language_table",
    "load_task",
    "markdown",
    "paired_bootstrap",
    "plot_bars",
]
