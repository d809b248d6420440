"""A training log as one picture: a panel a kind of number, each over the steps."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.storage import atomic_write
from trichrome.training.diagnostics import Record, read_log

#: (title, the names it shows: a prefix that ends in /, or a whole name; scale: exact begins at 0, unsmoothed)
PANELS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("loss", ("loss/",), "linear"),
    ("gradient norm, before clipping", ("grad/",), "log"),
    ("temperature", ("temperature",), "exact"),
    ("learning rate", ("learning_rate",), "exact"),
    ("sparse non-zeros a text", ("nonzeros/",), "linear"),
    ("texts without any sparse weight", ("zero/",), "share"),
    ("agreement of two rankings (Spearman)", ("agreement/",), "linear"),
    ("positive ranked first", ("accuracy/",), "share"),
    ("own negatives harder than random ones", ("harder/",), "share"),
    ("mean cosine between texts or tokens", ("alike/",), "linear"),
    ("tokens a second", ("tokens_per_second",), "zero"),
    ("padding", ("padding_share",), "share"),
)

#: The three signals keep their colours from panel to panel.
_COLOURS = {"dense": "#2f6fb7", "sparse": "#d98f1f", "multivector": "#4f9d5d", "total": "#222222"}
_REST = ("#a8546b", "#3b2a4d", "#7d7d7d", "#5fa8a8", "#b58f5f", "#8f6fc0")


def plot_log(log: str | Path, png: str | Path) -> None:
    """Write a PNG of everything that a log holds; an evaluation's figures get a panel of their own.

    Lines are exponential means (fading by 0.9 a step) over the raw numbers in pale.
    """
    records = read_log(log)
    if not records:
        raise TrichromeError(f"{log}: no step has been logged")
    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [r for r in records if r.get("kind") != "evaluation"]
    evaluations = [r for r in records if r.get("kind") == "evaluation"]
    filled = [(title, found, scale) for title, names, scale in PANELS if (found := _names(steps, names))]
    drawn: list[tuple[str, list[str], str, list[Record]]] = [(*panel, steps) for panel in filled]
    if evaluations:
        drawn.append(("evaluation", _names(evaluations, ("",)), "linear", evaluations))
    if not drawn:
        raise TrichromeError(f"{log}: its records hold no number that can be drawn")
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    for i, (title, names, scale, source) in enumerate(drawn):
        _panel(figure.add_subplot(rows, columns, i + 1), title, names, scale, source)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    with atomic_write(png) as file:
        file.write(image.getvalue())


def _panel(axes: Any, title: str, names: Sequence[str], scale: str, records: Sequence[Record]) -> None:
    for i, name in enumerate(names):
        points = [(r["step"], r[name]) for r in records if _is_number(r.get(name))]
        x, y = [p[0] for p in points], [float(p[1]) for p in points]
        last = name.partition("/")[2] or name
        colour = _COLOURS.get(last, _REST[i % len(_REST)])
        if len(x) < 30 or scale == "exact":
            style = ".-" if len(x) < 30 else "-"
            axes.plot(x, y, style, color=colour, linewidth=1.2, markersize=3, label=last)
        else:
            axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.25)
            axes.plot(x, smooth(y), color=colour, linewidth=1.4, label=last)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(linewidth=0.4, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if scale == "log":
        axes.set_yscale("log")
    elif scale == "share":
        axes.set_ylim(-0.02, 1.02)
    elif scale in ("zero", "exact"):
        axes.set_ylim(bottom=0)
    if len(names) > 1:
        axes.legend(fontsize=7, frameon=False, ncols=1 + (len(names) > 5))


def smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Exponential means that begin unbiased: weights keep^k, divided by their sum."""
    total = weight = 0.0
    made = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        made.append(total / weight)
    return made


def _names(records: Sequence[Record], wanted: Sequence[str]) -> list[str]:
    """The numbers that some record holds, in the order of their first coming."""
    numbers = dict.fromkeys(n for r in records for n, v in r.items() if n != "step" and _is_number(v))
    return [
        n for n in numbers if any(n == w or (w.endswith("/") and n.startswith(w)) or not w for w in wanted)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
