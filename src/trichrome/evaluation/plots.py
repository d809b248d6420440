"""Bars: one group a task, one bar a system."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trichrome.evaluation.report import Report, Suite
from trichrome.extras import require
from trichrome.storage import atomic_write

#: Baselines in greys; dense, sparse and multivector in three hues, the sums in their mixtures.
_COLOURS = {
    "bm25-tokenizer": "#b5b5b5",
    "bm25-words": "#7d7d7d",
    "dense": "#2f6fb7",
    "sparse": "#d98f1f",
    "multivector": "#4f9d5d",
    "dense+sparse": "#a8546b",
    "all": "#3b2a4d",
}


def plot_bars(reports: Sequence[Report], path: str | Path, metric: str = "nDCG@10") -> None:
    """Write one PNG: a metric in percent by task (and on average, where there are several) and system."""
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    suite = Suite(tuple(reports))
    groups = [(f"{report.task}\n{report.queries:,} queries", report.means) for report in reports]
    if len(reports) > 1:
        groups.append(("mean", suite.means))
    systems = suite.systems
    figure = Figure(figsize=(max(6.0, 1.5 * len(groups) + 1.5), 4.2), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    axes = figure.add_subplot()
    width = 0.84 / len(systems)
    for i, system in enumerate(systems):
        at = np.arange(len(groups)) + (i - (len(systems) - 1) / 2) * width
        heights = [100 * table[system][metric] if system in table else 0.0 for _, table in groups]
        axes.bar(at, heights, width * 0.92, label=system, color=_COLOURS.get(system))
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], fontsize=8)
    axes.set_ylabel(f"{metric} (%)")
    axes.set_ylim(0, 100)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(4, len(systems)), fontsize=8, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    with atomic_write(path) as file:
        file.write(image.getvalue())
