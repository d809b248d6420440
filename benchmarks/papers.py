"""docs/papers.md and its plots, out of benchmarks/results/papers/*.json.

    trichrome papers run --all --scale small --out benchmarks/results/papers
    python -m benchmarks.papers [--check]

Every row is listed, with its state, effect and interval; rows that were run follow with their claim, the
paper's own number, what is as in the paper and what is not. --check writes nothing; the exit code is 1 where
the page says something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import RESULTS
from trichrome.extras import require
from trichrome.papers.pattern.citations import CITATIONS
from trichrome.papers.pattern.paper import Citation, Paper
from trichrome.papers.pattern.record import Record, records
from trichrome.papers.pattern.rows import built, paper
from trichrome.storage import atomic_write

FOLDER = RESULTS / "papers"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOTS = DOCS / "papers.md", DOCS / "papers"

HEAD = """# The papers

The literature on negatives in retrieval, as rows that can be run: each is one file in
`src/trichrome/papers/`, which declares a claim and the direction it expects before it is run, and measures
baseline and treatment on the same data and seeds.

```sh
trichrome papers
trichrome papers run mw_loss
trichrome papers run --all --scale small --out benchmarks/results/papers
```

A row **works** when the interval of every effect it declared clears its bound in the declared direction, and
**fails** otherwise; a failure is shown as one. The largest scale that was run decides. Scales: `mini` takes a
minute on 2 cores and trains small towers on real text, `small` takes up to 15 minutes and trains an encoder.
The runs are small beside those of the papers: what is repeated is the claim, not the number. This page is
made by `python -m benchmarks.papers`.
"""


def main(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if the page is out of date.")] = False,
) -> None:
    known = every_record()
    text = page(known)
    if check:
        if not PAGE.exists() or PAGE.read_text("utf-8") != text:
            raise typer.Exit(1)
        return
    for name, found in known.items():
        if found[0].plots:
            draw(found[0], PLOTS / f"{name}.webp")
    with atomic_write(PAGE) as file:
        file.write(text.encode())
    print(f"wrote {PAGE}")


def every_record() -> dict[str, list[Record]]:
    """The committed results, by row, of the largest scale first."""
    return {c.name: found for c in CITATIONS if (found := records(FOLDER, c.name))}


def page(known: dict[str, list[Record]]) -> str:
    """The whole page. known: the results of each row that was run, of the largest scale first."""
    states: list[str] = [known[c.name][0].state if c.name in known else "not yet" for c in CITATIONS]
    counts = ", ".join(f"{states.count(s)} {w}" for s, w in _WORDS.items())
    lines = [
        HEAD,
        f"{len(CITATIONS)} rows: {counts}.",
        "",
        "| | row | state | effect | paper |",
        "|--:|---|---|---|---|",
    ]
    lines += [_row(c, known[c.name][0] if c.name in known else None) for c in CITATIONS]
    for name in built():
        if name in known:
            lines += ["", *_section(paper(name), known[name])]
    return "\n".join(lines) + "\n"


_WORDS = {"works": "work", "fails": "fail", "not yet": "not yet built or run"}


def _row(c: Citation, record: Record | None) -> str:
    known = f"[{c.name}](#{c.number}-{c.name})" if record else c.name
    state = f"**{record.state}**" if record else "not yet"
    effect = _effect(record.outcomes[0].found) + f" {record.outcomes[0].expected['unit']}" if record else ""
    title = f"[{c.title}]({c.link})" if c.link else c.title
    by = ", ".join(part for part in (c.authors, str(c.year or "")) if part)
    return f"| {c.number} | {known} | {state} | {effect} | {title}{f' ({by})' if by else ''} |"


def _section(row: Paper, known: list[Record]) -> list[str]:
    c, record = row.citation, known[0]
    lines = [
        f"## {c.number} {c.name}",
        "",
        f"{c.title}. {c.authors}, {c.year}. <{c.link}> ({', '.join(c.families)})",
        "",
        f"**Claim.** {row.claim}",
    ]
    for of_scale in known:
        lines += ["", *_outcomes(of_scale)]
    for name, holds in record.identities.items():
        lines += ["", f"Identity: {name}: {'holds' if holds else '**broken**'}."]
    if record.figures:
        lines += ["", "; ".join(f"{name} {value:.4g}" for name, value in record.figures.items()) + "."]
    lines += ["", f"As in the paper: {row.taken}. Otherwise: {row.reconstructed}."]
    sources = "; ".join(f"{s['name']} ({s['licence']})" for s in record.sources)
    lines += ["", f"Data: {sources}."]
    lines += [line for note in record.notes for line in ("", note)]
    if row.tried:
        lines += ["", f"Tried: {row.tried}."]
    if record.plots:
        lines += ["", f"![{record.plots[0]['title']}](papers/{c.name}.webp)"]
    return lines


def _outcomes(record: Record) -> list[str]:
    """What was expected and found at one scale."""
    seeds = "" if record.seeds == 5 else f" --seeds {record.seeds}"
    lines = [
        f"**{record.state.capitalize()}** at scale `{record.scale}` (`trichrome papers run {record.name} "
        f"--scale {record.scale}{seeds}`, {record.seconds:,.0f} s).",
        "",
        "| measure | effect | 95 % interval | expected | met | in the paper |",
        "|---|--:|---|---|---|---|",
    ]
    for o in record.outcomes:
        e, f = o.expected, o.found
        margin = f" (margin {e['margin']:g})" if e["margin"] else ""
        lines.append(
            f"| {e['measure']} ({e['unit']}) | {f['effect']:+.2f} | {f['low']:+.2f} … {f['high']:+.2f}; "
            f"{_by(f)} | {e['direction']}{margin} | {'yes' if o.met else '**no**'} | {e['reported']} |"
        )
    return lines


def _by(found: Any) -> str:
    """How an interval was made, and of how many queries where it isn't over seeds."""
    return str(found["by"]) + (f", {found['n']:,} queries" if "bootstrap" in found["by"] else "")


def _effect(found: Any) -> str:
    return f"{found['effect']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def draw(record: Record, path: Path) -> None:
    """A record's plots, side by side."""
    plt = require("matplotlib.pyplot", "eval")
    figure, axes = plt.subplots(1, len(record.plots), figsize=(5.2 * len(record.plots), 3.6), squeeze=False)
    for axis, plot in zip(axes[0], record.plots, strict=True):
        for name, line in plot["lines"].items():
            x, y = zip(*line["points"], strict=True)
            (drawn,) = axis.plot(x, y, marker="o", markersize=3, label=name)
            if line["band"]:
                low, high = zip(*line["band"], strict=True)
                axis.fill_between(x, low, high, alpha=0.15, color=drawn.get_color())
        axis.set_title(plot["title"], fontsize=10)
        axis.set_xlabel(plot["x"])
        axis.set_ylabel(plot["y"])
        axis.legend(fontsize=8, frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="webp", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
