"""A picture of a mining: the scores of positives, candidates and negatives, and what each rule removed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trichrome.extras import require
from trichrome.negatives.report import BIN, Histogram, MineReport
from trichrome.storage import atomic_write

_COLOURS = {"positives": "#4f9d5d", "candidates": "#b5b5b5", "negatives": "#c2504a"}
_COLUMNS = 3


def plot_report(reports: Mapping[str, MineReport], path: str | Path) -> None:
    """Write one PNG: the sum of all files above (scores, rules, negatives a query), then each file's scores.

    reports: file name → its report.
    """
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    total = MineReport.total(reports.values())
    files = reports if len(reports) > 1 else {}
    height = 1 + -(-len(files) // _COLUMNS)
    figure = Figure(figsize=(12, 3.4 + 2.1 * (height - 1)), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    ratios = [1.5] + [1.0] * (height - 1)
    grid = figure.add_gridspec(height, _COLUMNS, height_ratios=ratios)
    _draw_scores(figure.add_subplot(grid[0, 0]), total, f"scores by {total.judge}", legend=True)
    _draw_rules(figure.add_subplot(grid[0, 1]), total)
    _draw_counts(figure.add_subplot(grid[0, 2]), total)
    for i, (name, report) in enumerate(files.items()):
        axes = figure.add_subplot(grid[1 + i // _COLUMNS, i % _COLUMNS])
        _draw_scores(axes, report, f"{name}: {report.queries:,} queries, {100 * report.short:.0f} % short")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    with atomic_write(path) as file:
        file.write(image.getvalue())


def _draw_scores(axes: Any, report: MineReport, title: str, legend: bool = False) -> None:
    axes.set_title(title, fontsize=8)
    shown = {name: report.scores[name] for name in _COLOURS if len(report.scores.get(name, Histogram()))}
    if not shown:
        axes.text(0.5, 0.5, "no judge, no scores", ha="center", transform=axes.transAxes, fontsize=8)
        return
    low = min(histogram.quantile(0.001) for histogram in shown.values()) - BIN
    high = max(histogram.quantile(0.999) for histogram in shown.values()) + BIN
    step = BIN * max(1, round((high - low) / 50 / BIN))  # whole bins, so that bars are even
    edges = np.arange(np.floor(low / step) * step, high + step, step)
    for name, histogram in shown.items():
        places = [(b + 0.5) * BIN for b in histogram.bins]
        weights = np.array(list(histogram.bins.values())) / len(histogram)
        axes.hist(
            places, edges, weights=weights, label=name, color=_COLOURS[name], alpha=0.6, histtype="stepfilled"
        )
    _plain(axes)
    axes.set_yticks([])
    if legend:
        axes.legend(fontsize=7, frameon=False)


def _draw_rules(axes: Any, report: MineReport) -> None:
    rows = [*report.rules(), ("negatives", report.drawn)]
    shares = [100 * n / max(1, report.considered) for _, n in rows]
    axes.barh(range(len(rows)), shares, color=["#7d7d7d"] * (len(rows) - 1) + [_COLOURS["negatives"]])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_title(f"% of {report.considered:,} candidates removed, or drawn", fontsize=8)
    _plain(axes)


def _draw_counts(axes: Any, report: MineReport) -> None:
    axes.bar(list(report.counts), list(report.counts.values()), color="#2f6fb7")
    axes.set_title(
        f"negatives a query: {100 * report.short:.1f} % of {report.queries:,} short of {report.wanted}",
        fontsize=8,
    )
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
