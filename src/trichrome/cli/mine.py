"""`trichrome mine`: hard negatives for training files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from trichrome.cli.console import Stopped, counting_cuts, note, out, print_json, stages
from trichrome.cli.settings import (
    JsonOption,
    ModelOption,
    PrecisionOption,
    existing_store,
    open_model,
    precision,
)
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.encoder import Encoder
    from trichrome.negatives import MineReport, MineSettings, PairScorer


def mine(
    examples: Annotated[
        list[Path], typer.Argument(metavar="EXAMPLES...", help="Training files: query, pos, neg as JSONL.")
    ],
    to: Annotated[Path, typer.Option("--out", help="File to write; a folder for several inputs.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:FIRST-LAST, ranks from 1; several are joined. NAME: dense, sparse, hybrid, bm25, "
            "bm25-words, random, topic. By default dense:10-210.",
        ),
    ] = None,
    fill: Annotated[
        list[str] | None, typer.Option(help="Sources for queries that are left short: random:100.")
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", "-n", min=1, help="Negatives a query.")] = 7,
    draw: Annotated[
        Literal["top", "random", "bins"],
        typer.Option(help="The best candidates, any, or evenly from bins of their scores."),
    ] = "random",
    bins: Annotated[int, typer.Option(min=1, help="Bins of --draw bins.")] = 5,
    judge: Annotated[
        Literal["dense", "sparse", "multivector", "hybrid", "none"],
        typer.Option(help="The score that margins and draws look at."),
    ] = "dense",
    relative_margin: Annotated[
        float, typer.Option(help="Keep s(q,n) up to this share of s(q,p); 0 switches it off.")
    ] = 0.95,
    absolute_margin: Annotated[float | None, typer.Option(help="Keep s(q,n) up to s(q,p) less this.")] = None,
    adaptive_margin: Annotated[
        float | None,
        typer.Option(
            help="Keep s(q,n) up to s(q,p) less so many standard deviations of the query's own candidates; "
            "alone with --relative-margin 0."
        ),
    ] = None,
    ceiling: Annotated[float | None, typer.Option(help="Keep s(q,n) up to this.")] = None,
    weights: Annotated[
        str, typer.Option(help="Of dense, sparse, multivector in hybrid; 0 for the third is fast.")
    ] = "1,0.3,0",
    within_language: Annotated[
        bool, typer.Option("--within-language", help="Candidates of the row's language only.")
    ] = False,
    pair_tags: Annotated[
        bool,
        typer.Option("--pair-tags", help="lang is A-B, of query and passage (bitext): B is what counts."),
    ] = False,
    without: Annotated[str, typer.Option(help="Languages whose rows are left out: eu,et,el.")] = "",
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of each file and language, drawn by the seed.")
    ] = None,
    max_candidates: Annotated[
        int | None,
        typer.Option(min=0, help="Further passages of each file and language as candidates; else all."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Candidates are these documents, not the files' own positives.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Candidates are the documents of this index.")] = None,
    rescore: Annotated[
        str | None, typer.Option(help="A cross-encoder (folder or hub id), or hybrid, as a second judge.")
    ] = None,
    rescore_margin: Annotated[
        float, typer.Option(help="As --relative-margin, for the second judge; 0 switches it off.")
    ] = 0.95,
    rescore_absolute: Annotated[
        float | None, typer.Option(help="As --absolute-margin, for the second judge.")
    ] = None,
    rescore_adaptive: Annotated[
        float | None, typer.Option(help="As --adaptive-margin, for the second judge.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the rows' own negatives; they count.")] = False,
    scores: Annotated[
        Literal["none", "judge", "rescorer"], typer.Option(help="Write these as pos_scores, neg_scores.")
    ] = "none",
    model: ModelOption = "small",
    dtype: PrecisionOption = "auto",
    max_tokens: Annotated[
        int | None, typer.Option(min=8, help="Tokens read of a text; less is faster.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write; OUT.png by default.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and draws.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Mine hard negatives: what ranks high for a query and yet doesn't answer it.

    Candidates are the positives of the same file, unless --corpus or --index says otherwise. A passage is
    left out that is a positive of the same query in any row, has the id of one, or the same text, and one
    that scores too close to the positive. Finished files are kept when the command runs again.
    """
    from trichrome.negatives import MineSettings, Rules, Sample, Source, StorePool, mine_files
    from trichrome.negatives.files import iter_outs
    from trichrome.negatives.plots import plot_report

    if corpus is not None and index is not None:
        raise TrichromeError("candidates come from --corpus or from --index, not from both")
    unjudged = judge == "none"
    settings = MineSettings(
        sources=tuple(Source.parse(text) for text in source or ["dense:10-210"]),
        fill=tuple(Source.parse(text) for text in fill or ()),
        negatives=negatives,
        draw=draw,
        bins=bins,
        judge=judge,
        weights=parse_weights(weights),
        rules=Rules(absolute_margin, None if unjudged else relative_margin or None, ceiling, adaptive_margin),
        rescore_rules=Rules(rescore_absolute, rescore_margin or None, adaptive_margin=rescore_adaptive),
        within_language=within_language,
        pair_tags=pair_tags,
        keep=keep,
        scores=scores,
        seed=seed,
    )
    sample = Sample(max_rows, max_candidates, tuple(filter(None, without.split(","))), skip_bad, seed)
    outs = list(iter_outs(examples, to))
    if index is not None:
        existing_store(index)  # or says what there is, before a model is opened
    encoder = _open(model, dtype, max_tokens, settings, index)
    rescorer = _rescorer(rescore, encoder, settings, dtype)
    device = "cpu" if encoder is None else str(encoder.device)
    described = f"{encoder and precision(dtype)} {max_tokens} {corpus} {index}"
    reports: dict[str, MineReport] = {}

    def done(path: Path, report: MineReport, before: bool) -> None:
        reports[path.name] = report
        what = "was finished already" if before else "written"
        note(f"{path}: {what}, {report.drawn:,} negatives for {report.queries:,} queries")

    try:
        with stages(unit="texts", quiet=as_json) as tell, counting_cuts() as cut, _store(index) as store:
            mine_files(
                examples, outs, encoder, settings, sample,
                corpus=_documents(corpus), pool=None if store is None else StorePool(store),
                rescorer=rescorer, device=device, described=described, done=done,
                progress=lambda file, stage, at, total: tell(f"{file}: {stage}", at, total),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped("stopped; finished files are kept, the same command goes on with the next") from None
    picture = plot or to.with_name(f"{to.name}.png")
    plot_report(reports, picture)
    if cut():
        note(f"{cut():,} texts were cut to the length that the model reads")
    note(f"wrote {picture}")
    if as_json:
        print_json({name: report.to_json() for name, report in reports.items()})
        return
    show_reports(reports)


def parse_weights(text: str) -> tuple[float, float, float]:
    try:
        dense, sparse, multivector = (float(part) for part in text.split(","))
    except ValueError:
        raise TrichromeError(f"--weights {text!r}: three numbers are needed, as 1,0.3,1") from None
    return dense, sparse, multivector


def _open(
    model: str, dtype: str, max_tokens: int | None, settings: MineSettings, index: str | None
) -> Encoder | None:
    """The encoder, where anything needs one; of the index's model where there is an index."""
    names = {source.name for source in (*settings.sources, *settings.fill)}
    if not settings.signals and "bm25" not in names:
        return None
    if max_tokens is None:
        encoder = open_model(model, dtype)
    else:
        import trichrome

        encoder = trichrome.load(model, dtype=precision(dtype), max_tokens=max_tokens)
    if index is not None and settings.signals:
        from trichrome.index import check_model, read_manifest

        check_model(read_manifest(existing_store(index)), encoder.fingerprint, encoder.name)
    return encoder


def _rescorer(
    name: str | None, encoder: Encoder | None, settings: MineSettings, dtype: str
) -> PairScorer | None:
    if name is None:
        return None
    from trichrome.training.teachers import open_teacher

    return open_teacher(name, encoder=encoder, weights=settings.weights, dtype=precision(dtype))


def _documents(corpus: Path | None) -> Any:
    if corpus is None:
        return None
    from trichrome.formats import read_documents

    return lambda: read_documents(corpus)


def _store(index: str | None) -> Any:
    from contextlib import nullcontext

    if index is None:
        return nullcontext()
    from trichrome.index import open_store

    return open_store(existing_store(index))


def show_reports(reports: dict[str, MineReport]) -> None:
    from trichrome.negatives import MineReport

    total = MineReport.total(reports.values())
    files = Table(title="negatives by file", title_justify="left")
    for name in ("file", "queries", "candidates", "negatives", "% short", "% none", "% above s(q,p)"):
        files.add_column(name, justify="left" if name == "file" else "right", no_wrap=name == "file")
    rows = [*reports.items(), *([("all", total)] if len(reports) > 1 else [])]
    for name, r in rows:
        above = 100 * r.above / max(1, len(r.scores["candidates"])) if "candidates" in r.scores else None
        files.add_row(
            name.split(".jsonl")[0], f"{r.queries:,}", f"{r.candidates:,}", f"{r.drawn:,}",
            f"{100 * r.short:.1f}", f"{100 * r.empty:.1f}", "–" if above is None else f"{above:.1f}",
        )  # fmt: skip
    out.print(files)
    rules = Table(title=f"what became of {total.considered:,} candidates", title_justify="left")
    for name in ("", "pairs", "%"):
        rules.add_column(name, justify="right" if name else "left")
    found = [(f"found by {name}", n) for name, n in total.found.items()]
    removed = [(f"removed: {rule}", n) for rule, n in total.rules()]
    for name, n in [*found, *removed, ("drawn", total.drawn)]:
        rules.add_row(name, f"{n:,}", f"{100 * n / max(1, total.considered):.1f}")
    out.print(rules)
    if total.scores:
        spread = Table(title=f"scores (judge: {total.judge})", title_justify="left")
        for name in ("", "count", "mean", "5 %", "25 %", "50 %", "75 %", "95 %"):
            spread.add_column(name, justify="right" if name else "left")
        for name, h in total.scores.items():
            quantiles = [f"{h.quantile(q):.2f}" for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
            spread.add_row(name, f"{len(h):,}", f"{h.mean:.3f}", *quantiles)
        out.print(spread)
