"""`trichrome eval`: the five modes and BM25 on BEIR-layout tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from trichrome.cli.console import Stopped, note, out, print_json, stages
from trichrome.cli.search import feedback_of
from trichrome.cli.settings import (
    FeedbackOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    ReviserOption,
    open_model,
)
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trichrome.encoder import Encoder
    from trichrome.evaluation import Comparison, Report, Suite
    from trichrome.search import Mode


def evaluate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders: corpus, queries, qrels.")],
    modes: Annotated[str | None, typer.Option(help="Some of the five: dense,all")] = None,
    qrels: Annotated[str | None, typer.Option(help="Which judgements: a file of the folder, or dev.")] = None,
    within_language: Annotated[
        bool, typer.Option("--within-language", help="Search the documents of the query's language only.")
    ] = False,
    preset: Annotated[
        Literal["m3", "long"], typer.Option(help="The paper's weights, for passages or long documents.")
    ] = "m3",
    max_queries: Annotated[int | None, typer.Option(min=1, help="A sample of the queries.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and the bootstrap.")] = 0,
    by_language: Annotated[
        bool, typer.Option("--by-language", help="A row a language of the queries.")
    ] = False,
    compare: Annotated[
        str | None, typer.Option(help="Two systems, by the paired bootstrap: all,dense")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The results.json of another run, such as before training: paired bootstrap."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder for TREC runs, results.json, .md and .png.")
    ] = None,
    feedback: FeedbackOption = 0,
    reviser: ReviserOption = None,
    model: ModelOption = "small",
    documents: Annotated[
        str | None, typer.Option(help="Of a query tower: the model that encodes the documents.")
    ] = None,
    dtype: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure nDCG@10, Recall@100 and MRR@10; encodings are kept in $TRICHROME_CACHE (~/.cache/trichrome)."""
    from trichrome.evaluation import (
        Options,
        Suite,
        TwoTowers,
        differences,
        earlier_report,
        evaluate_many,
        load_task,
    )

    chosen = _modes(modes, preset)
    twice = feedback_of(feedback, reviser)
    pair = _pair(compare)
    earlier = None if against is None else Suite.load(against)
    tasks = [load_task(path, qrels=qrels, within_language=within_language) for path in paths]
    before = [] if earlier is None else [earlier_report(task.name, earlier) for task in tasks]
    queries = open_model(model, dtype)
    encoder: Encoder | TwoTowers = queries
    if documents is not None:
        encoder = TwoTowers(queries, open_model(documents, dtype))
    settings = {"dtype": queries.precision}
    options = Options(
        preset=preset, modes=chosen, max_queries=max_queries, seed=seed, settings=settings, feedback=twice
    )
    try:
        with stages() as tell:
            suite = evaluate_many(
                encoder,
                tasks,
                options,
                progress=lambda task, stage, done, total: tell(f"{task}: {stage}", done, total),
            )
    except KeyboardInterrupt:
        raise Stopped("stopped; what is encoded is kept, the same command goes on from there") from None
    comparisons = [report.compare(*pair) for report in suite.reports] if pair else []
    changes = [
        differences(report, old, seed=seed) for report, old in zip(suite.reports, before, strict=False)
    ]
    if to is not None:
        _write(suite, to, by_language)
    if as_json:
        found = {
            r.task: {m: asdict(c) for m, c in d.items()} for r, d in zip(suite.reports, changes, strict=False)
        }
        print_json(suite.to_json() | ({} if earlier is None else {"against": found}))
        return
    for report in suite.reports:
        _show(report, by_language)
    if len(suite.reports) > 1:
        out.print(_table(f"mean of {len(suite.reports)} tasks", suite.means))
    for report, c in zip(suite.reports, comparisons, strict=False):
        out.print(
            f"{report.task}: {c.a} − {c.b} = {100 * c.difference:+.2f} points of {c.metric}, "
            f"{100 * c.low:+.2f} … {100 * c.high:+.2f} at {c.confidence:.0%}, p = {c.p:.4f} "
            f"(paired bootstrap, {c.queries:,} queries)",
            markup=False,
            soft_wrap=True,
        )
    for report, old, change in zip(suite.reports, before, changes, strict=False):
        _show_changes(report, old, change)


def _modes(names: str | None, preset: Literal["m3", "long"]) -> tuple[Mode, ...] | None:
    from trichrome.search import mode_named

    return tuple(mode_named(name, preset=preset) for name in names.split(",")) if names else None


def _pair(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    a, comma, b = text.partition(",")
    if not comma or not a or not b or "," in b or a == b:
        raise TrichromeError(f"--compare {text!r}: name two systems, such as all,dense")
    return a, b


def _write(suite: Suite, folder: Path, by_language: bool) -> None:
    from trichrome.evaluation import METRICS, comparison_table, language_table, markdown, plot_bars
    from trichrome.storage import atomic_write

    parts = [markdown(suite.reports, metric) for metric in METRICS]
    for report in suite.reports:
        parts += [language_table(report)] if by_language else []
        parts += [f"{report.task}\n\n{comparison_table(report)}"]
    paths = suite.write_runs(folder)
    suite.save(folder / "results.json", per_query=True)
    with atomic_write(folder / "results.md") as file:
        file.write("\n".join(parts).encode())
    plot_bars(suite.reports, folder / "results.png")
    note(f"wrote {len(paths)} run files, results.json, results.md and results.png to {folder}")


def _show(report: Report, by_language: bool) -> None:
    title = f"{report.task}: {report.queries:,} queries, {report.documents:,} documents, {report.model}"
    out.print(_table(title, report.means))
    for what, count in (("documents", report.cut_documents), ("queries", report.cut_queries)):
        if count:
            out.print(f"{count:,} {what} were cut to the length that the model reads", style="dim")
    if report.unjudged:
        out.print(f"{report.unjudged:,} queries without a relevant document were left out", style="dim")
    if by_language:
        metric = next(iter(next(iter(report.means.values()))))
        table = Table(title=f"{metric} by language, in %", title_justify="left")
        table.add_column("language")
        for name in ("queries", *report.systems):
            table.add_column(name, justify="right")
        for lang, systems in report.languages.items():
            cells = [f"{100 * systems[system][metric]:.1f}" for system in report.systems]
            table.add_row(lang, f"{report.language_queries[lang]:,}", *cells)
        out.print(table)


def _show_changes(report: Report, before: Report, changes: Mapping[str, Comparison]) -> None:
    """A row a mode: the figure before and now, the difference with its interval."""
    metric = next(iter(report.means[report.systems[0]]))
    table = Table(title=f"{report.task}: {metric} in %, before: {before.model}", title_justify="left")
    table.add_column("mode")
    for name in ("before", "now", "difference", "95 % of it", "p"):
        table.add_column(name, justify="right")
    for mode, c in changes.items():
        figures = [f"{100 * r.means[mode][metric]:.1f}" for r in (before, report)]
        interval = f"{100 * c.low:+.1f} … {100 * c.high:+.1f}"
        table.add_row(mode, *figures, f"{100 * c.difference:+.1f}", interval, f"{c.p:.4f}")
    out.print(table)
    out.print(f"paired bootstrap, {report.queries:,} queries", style="dim")


def _table(title: str, means: Any) -> Table:
    """A row a system, a column a metric, in percent; the best in bold."""
    table = Table(title=f"{title}, in %", title_justify="left")
    table.add_column("mode")
    metrics = list(next(iter(means.values())))
    for metric in metrics:
        table.add_column(metric, justify="right")
    best = {metric: max(row[metric] for row in means.values()) for metric in metrics}
    for system, row in means.items():
        cells = [Text(f"{100 * row[m]:.1f}", "bold" if row[m] == best[m] else "") for m in metrics]
        table.add_row(system, *cells)
    return table
