"""`trichrome copy`: an index from one store to another, checked at the end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trichrome.cli.console import FAILED, Stopped, bar, complain, out, print_json, program
from trichrome.cli.settings import JsonOption, existing_store, store_place

if TYPE_CHECKING:
    from trichrome.index import CopyReport


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The index, a path with a slash, or a URL.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="Name of the copy, a path with a slash, or a URL.")],
    kind: Annotated[
        Literal["embedded", "exact"] | None, typer.Option(help="Of a new copy in a folder; embedded.")
    ] = None,
    multivector_dtype: Annotated[
        Literal["float32", "float16", "int8", "int4"] | None,
        typer.Option(help="Of a new copy's token vectors; as in FROM where TO's kind has it."),
    ] = None,
    dense_dtype: Annotated[
        Literal["float32", "pq"] | None,
        typer.Option(help="Of a new copy's dense vectors: pq keeps codes alone, a 32nd of the bytes."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Copy also what is there already.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete from TO what FROM does not hold.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Documents copied at once.")] = 128,
    queries: Annotated[int, typer.Option(min=0, help="Sample queries that both must answer alike.")] = 50,
    agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of FROM's hits that TO must find.")
    ] = 0.95,
    as_json: JsonOption = False,
) -> None:
    """Copy an index to another store: vectors and payloads as they are, no encoding.

    Run it again to go on after a stop, or to bring over what is new or changed. At the end counts, a sample
    of documents and the answers to sample queries are compared; if they differ, the exit code is 1.
    """
    from trichrome.index import copy_store, has_store, open_store, verify_copy
    from trichrome.index.copying import check_places, open_copy, quantiser_of
    from trichrome.index.urls import is_url, shown

    here, there = existing_store(source), store_place(to)
    check_places(here, there)
    with ExitStack() as opened:
        ours = opened.enter_context(open_store(here))
        if dense_dtype == "pq" and kind is None and not is_url(there):
            kind = "exact"  # the only kind that keeps codes
        coded = dense_dtype or (ours.manifest.dense_dtype if kind == ours.manifest.kind else "float32")
        made = open_copy(
            ours.manifest,
            there,
            kind=kind,
            multivector_dtype=multivector_dtype,
            dense_dtype=dense_dtype,
            quantiser=quantiser_of(ours) if coded == "pq" and not has_store(there) else None,
        )
        theirs = opened.enter_context(made)
        with bar("copy", ours.count(), unit="documents", quiet=as_json) as moving:

            def told(report: CopyReport) -> None:
                moving.at(report.done, report.unchanged)

            try:
                report = copy_store(ours, theirs, batch=batch, again=again, prune=prune, progress=told)
            except KeyboardInterrupt:
                raise Stopped("stopped; what is copied is kept, and the same command goes on there") from None
        checked = verify_copy(ours, theirs, report.sample, queries=queries, agreement=agreement)
        summary: dict[str, Any] = {
            "from": shown(here),
            "to": shown(there),
            "kind": theirs.manifest.kind,
            "copied": report.copied,
            "unchanged": report.unchanged,
            "deleted": report.deleted,
            "seconds": round(report.seconds, 2),
            "multivector_dtype": theirs.manifest.multivector_dtype
            if theirs.manifest.multivector_dim
            else None,
            "dense_dtype": theirs.manifest.dense_dtype if theirs.manifest.dense_dim else None,
            "verified": asdict(checked),
        }
    if as_json:
        print_json(summary)
    else:
        show(summary)
    for problem in checked.problems:
        complain(problem)
    if checked.problems:
        raise typer.Exit(FAILED)


def show(summary: Mapping[str, Any]) -> None:
    """The summary for a person."""
    verified = summary["verified"]
    out.print(
        f"copied     {summary['copied']:,} documents in {summary['seconds']:,.1f} s; "
        f"{summary['unchanged']:,} were there already"
        + (f", {summary['deleted']:,} deleted" if summary["deleted"] else "")
    )
    out.print(f"counts     {verified['source']:,} in FROM, {verified['target']:,} in TO")
    kept = [
        f"{signal} {'the same' if difference == 0 else f'rounded, by {difference:.2g} at most'}"
        for signal, difference in verified["vectors"].items()
    ]
    out.print(f"precision  of {verified['compared']:,} documents compared: {', '.join(kept)}")
    found = ", ".join(f"{signal} {share:.1%}" for signal, share in verified["agreement"].items())
    apart = max(verified["scores"].values(), default=0.0)
    out.print(
        f"answers    to {verified['queries']:,} queries, hits of FROM that TO finds: {found or 'none'}; "
        f"scores differ by {apart:.2g} at most"
    )
    out.print(f'search     {program()} search {summary["to"]} "…"', markup=False, soft_wrap=True)
