"""`trichrome papers`: the literature on negatives, as rows that can be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from trichrome.cli.console import note, out, print_json, stages
from trichrome.cli.settings import JsonOption
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.papers.pattern.record import Record

papers = typer.Typer(invoke_without_command=True, help="Papers on negatives in retrieval, run on real data.")

_COLOURS = {"works": "green", "fails": "red", "not yet": "dim"}
ResultsOption = Annotated[
    Path | None, typer.Option("--results", help="Folder of results; the package's own by default.")
]


@papers.callback()
def rows(context: typer.Context, results: ResultsOption = None, as_json: JsonOption = False) -> None:
    """All rows with their state: works, fails, not yet."""
    if context.invoked_subcommand is not None:
        return
    from trichrome.papers.pattern.citations import CITATIONS
    from trichrome.papers.pattern.record import best_record
    from trichrome.papers.pattern.rows import recorded_results

    folder = results or recorded_results()
    known = {c.name: best_record(folder, c.name) for c in CITATIONS}
    if as_json:
        print_json(
            [
                {
                    "number": c.number,
                    "name": c.name,
                    "title": c.title,
                    "year": c.year,
                    "link": c.link,
                    "families": c.families,
                    "state": record.state if record else "not yet",
                    "scale": record.scale if record else None,
                }
                for c in CITATIONS
                for record in [known[c.name]]
            ]
        )
        return
    effects = [_effect(record) for record in known.values()]
    others = 3, *(max(map(len, cells)) for cells in (known, _COLOURS, effects))
    table = Table(box=None, pad_edge=False)
    for column in ("row", "name", "state", "effect"):
        table.add_column(column, justify="right" if column == "row" else "left", no_wrap=True)
    # what a narrow terminal cuts; all columns would be cut alike otherwise, short ones to nothing
    table.add_column("title", no_wrap=True, max_width=max(10, out.width - sum(others) - 2 * len(others)))
    for c in CITATIONS:
        record = known[c.name]
        state = record.state if record else "not yet"
        table.add_row(
            str(c.number), c.name, Text(state, _COLOURS[state]), _effect(record), Text(c.title, style="dim")
        )
    out.print(table)
    counts: Counter[str] = Counter(record.state if record else "not yet" for record in known.values())
    note(", ".join(f"{counts[state]} {state}" for state in _COLOURS))


@papers.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Rows to run.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every row that is built.")] = False,
    scale: Annotated[
        Literal["mini", "small", "gpu"],
        typer.Option(help="A minute, 15 minutes, or an accelerator."),
    ] = "mini",
    seeds: Annotated[int, typer.Option(min=2, help="Repetitions.")] = 5,
    data: Annotated[
        Path | None, typer.Option(help="Folder with train/ and eval/; TRICHROME_DATA, or packages' texts.")
    ] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for one JSON file a row.")] = Path("runs/papers"),
    resume: Annotated[bool, typer.Option("--resume", help="Pass over rows that OUT holds already.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Repeat a paper's central claim: baseline and treatment on the same data and seeds."""
    from trichrome.papers.pattern.collection import data_folder
    from trichrome.papers.pattern.paper import Setting
    from trichrome.papers.pattern.record import file_of, measure, read_record, write_record
    from trichrome.papers.pattern.rows import built, paper

    if bool(names) == every:
        raise TrichromeError("name rows to run, or say --all; `trichrome papers` lists them")
    folder = data_folder(data)
    found = []
    chosen = [paper(name) for name in (built() if every else names or [])]
    for row in chosen:
        name = row.citation.name
        path = file_of(to, name, scale)
        if resume and path.exists():
            found.append(read_record(path))
            continue
        with stages("runs") as tell:
            record = measure(row, Setting(scale, seeds, folder, partial(_tell, tell, name)))
        write_record(to, record)
        found.append(record)
        if not as_json:
            _show(record)
    if as_json:
        print_json([record.to_json() for record in found])
    else:
        note(f"written to {to}")


def _tell(tell: Callable[[str, int, int], None], name: str, stage: str, done: int, total: int) -> None:
    tell(f"{name}: {stage}", done, total)


def _effect(record: Record | None) -> str:
    """The central effect with its interval."""
    if record is None:
        return ""
    first = record.outcomes[0]
    found = first.found
    return f"{found['effect']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _show(record: Record) -> None:
    title = Text.assemble(
        (record.name, "bold"), "  ", (record.state, _COLOURS[record.state]), f"  {record.seconds:.0f} s"
    )
    out.print(title)
    out.print(record.claim, style="dim", markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for column in ("measure", "effect", "interval", "expected", "the paper's number"):
        table.add_column(column)
    for o in record.outcomes:
        wanted = o.expected["direction"] + (
            f" (margin {o.expected['margin']:g})" if o.expected["margin"] else ""
        )
        table.add_row(
            f"{o.expected['measure']}, {o.expected['unit']}",
            f"{o.found['effect']:+.2f}",
            f"{o.found['low']:+.2f} … {o.found['high']:+.2f} ({o.found['by']})",
            Text(wanted, "green" if o.met else "red"),
            o.expected["reported"],
        )
    out.print(table)
    for name, holds in record.identities.items():
        out.print(Text.assemble(("holds  " if holds else "broken  ", "green" if holds else "red"), name))
    for line in record.notes:
        out.print(line, style="dim", markup=False)
