"""`trichrome score`: a teacher's scores for training files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trichrome.cli.console import bar, counting_cuts, note, out, print_json
from trichrome.cli.settings import JsonOption, ModelOption, PrecisionOption, open_model, precision
from trichrome.errors import TrichromeError


def score(
    examples: Annotated[Path, typer.Argument(metavar="EXAMPLES", help="Training file: query, pos, neg.")],
    to: Annotated[Path, typer.Option("--out", help="File to write.")],
    teacher: Annotated[
        str, typer.Option(help="A cross-encoder (folder or hub id), or hybrid: the model's three scores.")
    ] = "hybrid",
    weights: Annotated[str, typer.Option(help="Of dense, sparse, multivector in hybrid.")] = "1,0.3,1",
    missing_only: Annotated[
        bool, typer.Option("--missing-only", help="Rows that have scores keep them.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option(min=8, help="Tokens of a pair that a cross-encoder reads.")
    ] = None,
    model: ModelOption = "small",
    dtype: PrecisionOption = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a teacher's pos_scores and neg_scores to a training file, for distillation."""
    from trichrome.training.teachers import open_teacher, score_file

    try:
        dense, sparse, multivector = (float(part) for part in weights.split(","))
    except ValueError:
        raise TrichromeError(f"--weights {weights!r}: three numbers are needed, as 1,0.3,1") from None
    encoder = open_model(model, dtype) if teacher == "hybrid" else None
    opened = open_teacher(
        teacher,
        encoder=encoder,
        weights=(dense, sparse, multivector),
        dtype=precision(dtype),
        max_tokens=max_tokens,
    )
    with bar("score", None, unit="rows", quiet=as_json) as shown, counting_cuts() as cut:
        report = score_file(
            examples, to, opened, missing_only=missing_only, skip_bad=skip_bad, progress=shown.at
        )
    agree = report.agree / report.judged if report.judged else None
    if cut():
        note(f"{cut():,} texts were cut to the length that the teacher reads")
    if report.read.skipped:
        note(report.read.summary())
    if as_json:
        names = ("positives", "negatives")
        means = {f"mean_{n}": getattr(report, n).mean if len(getattr(report, n)) else None for n in names}
        print_json(
            {
                "teacher": report.teacher,
                "rows": report.rows,
                "scored": report.scored,
                "pairs": report.pairs,
                "skipped": report.read.skipped_count,
                "agree": agree,
                **means,
            }
        )
        return
    out.print(f"{to}: {report.scored:,} of {report.rows:,} rows scored", markup=False, soft_wrap=True)
    table = Table()
    for name in ("", "count", "mean", "5 %", "50 %", "95 %"):
        table.add_column(name, justify="right" if name else "left")
    for name, h in (("positives", report.positives), ("negatives", report.negatives)):
        if len(h):
            quantiles = [f"{h.quantile(q):.2f}" for q in (0.05, 0.5, 0.95)]
            table.add_row(name, f"{len(h):,}", f"{h.mean:.3f}", *quantiles)
    if table.row_count:
        out.print(table)
    if agree is not None:
        share = f"{100 * agree:.1f} % of {report.judged:,} rows with negatives"
        out.print(f"{share}: every positive above every negative", markup=False, soft_wrap=True)
