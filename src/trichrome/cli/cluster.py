"""`trichrome cluster`: a large corpus encoded and mined on a Ray cluster; `trichrome index` stores it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trichrome.cli.console import Bar, Stopped, bar, counting_cuts, note, out, print_json, stages
from trichrome.cli.settings import JsonOption, ModelOption, PrecisionOption, open_model
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.cluster import EncodeReport, Progress
    from trichrome.negatives import MineReport

cluster = typer.Typer(
    no_args_is_help=True,
    help="Encode, check and mine a large corpus on the machines of a Ray cluster, or on this one.",
)

AddressOption = Annotated[
    str | None,
    typer.Option(help="Of a running Ray cluster: ray://HOST:10001, or auto on one of it; else this machine."),
]
ActorsOption = Annotated[int, typer.Option(min=1, help="Processes that work side by side.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads of an actor; the machine's cores shared out, 4 on a cluster."),
]


@cluster.command(no_args_is_help=True)
def encode(
    corpus: Annotated[Path, typer.Argument(help="A folder of JSONL files, or documents of any format.")],
    to: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder of Parquet shards; every machine sees it.")
    ],
    model: ModelOption = "small",
    dtype: PrecisionOption = "auto",
    outputs: Annotated[
        str | None, typer.Option(help="Of dense,sparse,multivector; all that the model has.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cut the corpus into so many; else each JSONL file of a folder is one, and 16 otherwise.",
        ),
    ] = None,
    actors: ActorsOption = 1,
    threads: ThreadsOption = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of an actor; 0.5 puts two actors on one.")] = 0,
    address: AddressOption = None,
    passage_tokens: Annotated[
        int | None, typer.Option(min=8, help="As in `trichrome index`, which then stores the same passages.")
    ] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Tokens that passages share.")] = None,
    token_budget: Annotated[int | None, typer.Option(min=16, help="Padded tokens a forward pass.")] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Passages encoded, and written, together.")] = 1024,
    format: Annotated[
        str | None, typer.Option(help="As in `trichrome index`; told from the content.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what can't be read; count it.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Encode anew what OUT holds of another model or other settings.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Encode a corpus into Parquet shards; run it again to go on after a stop.

    Finished shards are skipped. A process or machine that dies costs the time of its shard. With OUT as PATH,
    `trichrome index` stores the shards in any index, and `trichrome cluster mine` draws negatives from them.
    """
    from trichrome.cli.index import lasting_name, passage_size
    from trichrome.cluster import Cluster, Encoding, ModelSource, encode_shards, find_parts
    from trichrome.embeddings import SIGNALS
    from trichrome.formats.detect import detect

    encoder = open_model(model, dtype)
    wanted = [name.strip() for name in outputs.split(",")] if outputs else list(encoder.signals)
    if unknown := [name for name in wanted if name not in encoder.signals]:
        raise TrichromeError(
            f"{encoder.name} has no output {unknown[0]!r}, only {', '.join(encoder.signals)}"
        )
    size, shared = passage_size(encoder, format or detect(corpus), passage_tokens, overlap)
    encoding = Encoding(
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        dtype=encoder.precision,
        outputs=tuple(name for name in SIGNALS if name in wanted),
        dense_dim=encoder.dense_dim if "dense" in wanted else None,
        multivector_dim=encoder.config.multivector_dim if "multivector" in wanted else None,
        passage_tokens=size,
        overlap=shared,
        chunk=chunk,
        token_budget=token_budget,
        skip_bad=skip_bad,
    )
    source = ModelSource(lasting_name(model), encoder.precision, _threads(threads, actors, address))
    try:
        with stages("documents", quiet=as_json) as tell:
            parts = find_parts(
                corpus, to, shards, format=format, skip_bad=skip_bad,
                progress=lambda stage, done: tell(f"{stage} documents", done, max(1, done)),
            )  # fmt: skip
        with bar("encode", len(parts.parts), unit="shards", quiet=as_json) as shown:
            report = encode_shards(
                parts, to, encoding, source,
                cluster=Cluster(address, actors, gpus), again=again, progress=_shown(shown),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped("stopped; finished shards are kept, the same command goes on from there") from None
    for reason, count in parts.left_out.items():  # those were left out before there were shards
        report.counts.left_out[reason] = report.counts.left_out.get(reason, 0) + count
    summary = _summary(to, report)
    if as_json:
        print_json(summary)
        return
    _show(summary)


def _shown(shown: Bar) -> Any:
    def tell(at: Progress) -> None:
        rate = at.passages / at.seconds if at.seconds else 0.0
        label = f"encode  {at.passages:,} texts  {rate:,.1f} texts/s  shards"
        shown.at(at.shards, at.shards, label=label)

    return tell


def _threads(threads: int | None, actors: int, address: str | None) -> int:
    return threads or (4 if address else max(1, (os.cpu_count() or 1) // actors))


def _summary(to: Path, report: EncodeReport) -> dict[str, Any]:
    counts = report.counts
    return {
        "path": str(to),
        "shards": report.encoded + report.kept,
        "encoded": report.encoded,
        "kept": report.kept,
        "redone": report.redone,
        "documents": counts.documents,
        "documents_cut": counts.cut,
        "left_out": counts.left_out,
        "passages": report.passages,
        "truncated": counts.truncated,
        "failed": counts.failed,
        "failures": [{"id": id, "reason": reason} for id, reason in counts.failures],
        "bytes": report.bytes,
        "seconds": round(report.seconds, 2),
        "texts_per_second": round(report.encoded_passages / report.seconds, 1) if report.seconds else 0.0,
    }


def _show(summary: dict[str, Any]) -> None:
    out.print(f"shards     {summary['encoded']:,} encoded, {summary['kept']:,} were finished")
    for reason, count in summary["redone"].items():
        out.print(f"redone     {count:,}: {reason}", markup=False, soft_wrap=True)
    out.print(
        f"passages   {summary['passages']:,} of {summary['documents']:,} documents, "
        f"{summary['documents_cut']:,} of them cut"
    )
    for reason, count in summary["left_out"].items():
        out.print(f"left out   {count:,}: {reason}", markup=False, soft_wrap=True)
    for failure in summary["failures"][:5]:
        out.print(f"refused    {failure['id']}: {failure['reason']}", markup=False, soft_wrap=True)
    if (more := summary["failed"] - 5) > 0:
        out.print(f"refused    {more:,} more (--json lists them)")
    if summary["truncated"]:
        out.print(f"truncated  {summary['truncated']:,} passages were longer than the model reads")
    if summary["encoded"]:
        out.print(
            f"encoded    {summary['texts_per_second']:,.1f} texts/s, {summary['seconds']:,.1f} s in all"
        )
    out.print(
        f"stored     {summary['bytes'] / 1e6:,.1f} MB in {summary['path']}", markup=False, soft_wrap=True
    )


@cluster.command(no_args_is_help=True)
def check(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="What `cluster encode` made.")],
    as_json: JsonOption = False,
) -> None:
    """Read every shard to its last byte and compare it with its checksum."""
    from trichrome.cluster import EncodedCorpus, verify_shard

    corpus = EncodedCorpus.open(path)
    with bar("check", len(corpus.paths), unit="shards", quiet=as_json) as shown:
        for done, shard in enumerate(corpus.paths, 1):
            verify_shard(shard)
            shown.at(done)
    corpus.check_ids()
    if as_json:
        print_json({"path": str(path), "shards": len(corpus.paths), "passages": len(corpus), "whole": True})
    else:
        out.print(f"whole      {len(corpus.paths):,} shards, {len(corpus):,} passages")


@cluster.command(no_args_is_help=True)
def mine(
    examples: Annotated[
        list[Path], typer.Argument(metavar="EXAMPLES...", help="Training files: query, pos, neg as JSONL.")
    ],
    to: Annotated[Path, typer.Option("--out", help="File to write; a folder for several inputs.")],
    encoded: Annotated[Path, typer.Option("--encoded", help="What `cluster encode` made: the candidates.")],
    source: Annotated[
        list[str] | None, typer.Option(help="As in `trichrome mine`, but for bm25; by default dense:10-210.")
    ] = None,
    fill: Annotated[
        list[str] | None, typer.Option(help="Sources for queries that are left short: random:100.")
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", "-n", min=1, help="Negatives a query.")] = 7,
    draw: Annotated[
        Literal["top", "random", "bins"],
        typer.Option(help="The best candidates, any, or evenly from bins of their scores."),
    ] = "random",
    judge: Annotated[
        Literal["dense", "sparse", "multivector", "hybrid", "none"],
        typer.Option(help="The score that margins and draws look at."),
    ] = "dense",
    relative_margin: Annotated[
        float, typer.Option(help="Keep s(q,n) up to this share of s(q,p); 0 switches it off.")
    ] = 0.95,
    absolute_margin: Annotated[float | None, typer.Option(help="Keep s(q,n) up to s(q,p) less this.")] = None,
    adaptive_margin: Annotated[float | None, typer.Option(help="As in `trichrome mine`.")] = None,
    ceiling: Annotated[float | None, typer.Option(help="Keep s(q,n) up to this.")] = None,
    weights: Annotated[str, typer.Option(help="Of dense, sparse, multivector in hybrid.")] = "1,0.3,0",
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
    keep: Annotated[bool, typer.Option("--keep", help="Keep the rows' own negatives; they count.")] = False,
    scores: Annotated[
        Literal["none", "judge"], typer.Option(help="Write these as pos_scores, neg_scores.")
    ] = "none",
    block: Annotated[
        int, typer.Option(min=1, help="Queries of one pass over the shards; their candidates fit in memory.")
    ] = 4096,
    dtype: PrecisionOption = "auto",
    actors: ActorsOption = 1,
    threads: ThreadsOption = None,
    address: AddressOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and draws.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Mine hard negatives out of an encoded corpus; what is not said here is as in `trichrome mine`.

    The actors search every shard for a block of queries; the rules look at what they found, here. Finished
    files are kept when the command runs again.
    """
    from trichrome.cli.mine import parse_weights, show_reports
    from trichrome.cluster import Cluster, EncodedCorpus, mine_shards
    from trichrome.negatives import MineSettings, Rules, Sample, Source
    from trichrome.negatives.files import iter_outs

    unjudged = judge == "none"
    settings = MineSettings(
        sources=tuple(Source.parse(text) for text in source or ["dense:10-210"]),
        fill=tuple(Source.parse(text) for text in fill or ()),
        negatives=negatives,
        draw=draw,
        judge=judge,
        weights=parse_weights(weights),
        rules=Rules(absolute_margin, None if unjudged else relative_margin or None, ceiling, adaptive_margin),
        within_language=within_language,
        pair_tags=pair_tags,
        keep=keep,
        scores=scores,
        block=block,
        seed=seed,
    )
    sample = Sample(max_rows, None, tuple(filter(None, without.split(","))), skip_bad, seed)
    corpus = EncodedCorpus.open(encoded)
    wanted = corpus.encoding.dtype if dtype == "auto" else dtype
    encoder = open_model(corpus.manifest.model, wanted) if settings.signals else None
    reports: dict[str, MineReport] = {}

    def done(path: Path, report: MineReport, before: bool) -> None:
        reports[path.name] = report
        what = "was finished already" if before else "written"
        note(f"{path}: {what}, {report.drawn:,} negatives for {report.queries:,} queries")

    try:
        with stages(unit="texts", quiet=as_json) as tell, counting_cuts() as cut:
            mine_shards(
                examples, list(iter_outs(examples, to)), corpus, encoder, settings, sample,
                cluster=Cluster(address, actors), threads=_threads(threads, actors, address),
                described=wanted, done=done,
                progress=lambda file, stage, at, total: tell(f"{file}: {stage}", at, total),
                passed=lambda what, at, total: tell(f"cluster: {what}", at, total),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped("stopped; finished files are kept, the same command goes on with the next") from None
    if cut():
        note(f"{cut():,} texts were cut to the length that the model reads")
    if as_json:
        print_json({name: report.to_json() for name, report in reports.items()})
        return
    show_reports(reports)
