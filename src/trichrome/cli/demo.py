"""`trichrome demo`: one model on real messages in two dozen languages: five searches and a table."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from trichrome.cli.console import Stopped, bar, note, out, print_json, program, stages
from trichrome.cli.hits import print_hits
from trichrome.cli.settings import JsonOption, PrecisionOption, open_model, store_path
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.embeddings import Embedding, Embeddings
    from trichrome.encoder import Encoder
    from trichrome.evaluation import Report
    from trichrome.formats.django_catalogues import Catalogues
    from trichrome.index import IndexReport, Store
    from trichrome.search import Searcher
    from trichrome.search.explain import TokenSpans

#: About 4,000 messages: what 2 cores without bfloat16 index in a minute or so.
LANGUAGES = (
    *("ar", "cs", "da", "de", "es", "fa", "fi", "fr", "he", "hi", "id", "it"),
    *("ja", "ko", "nl", "pl", "pt_BR", "ru", "sv", "th", "tr", "uk", "vi", "zh_Hans"),
)
QUICK_LANGUAGES = ("de", "he", "ja")

_MADE_HERE = "trichrome demo"  # kept in the store's manifest: the demo overwrites no other index


@dataclass(frozen=True)
class Example:
    """One search. lang: of the documents to search, all where None."""

    title: str
    text: str
    mode: str
    lang: str | None = None


EXAMPLES = (
    Example("English in every language, all three signals", "my password is too easy to guess", "all"),
    Example("English in Japanese", "cookies are switched off in my browser", "multivector", "ja"),
    Example("Hebrew (I forgot my password) in every language", "שכחתי את הסיסמה שלי", "all"),
    Example("Japanese (this page does not exist) in Hebrew", "このページは存在しません", "dense", "he"),
    Example("German in German, by shared words alone", "gültige E-Mail-Adresse eingeben", "sparse", "de"),
)


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Three languages, few queries.")] = False,
    queries: Annotated[
        int, typer.Option(min=1, help="English messages to evaluate with: a seeded sample.")
    ] = 100,
    dtype: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Index Django's translation catalogues, search them across languages, and measure the five modes.

    Afterwards the index is there to be searched: trichrome search demo "…"
    """
    from trichrome.formats.django_catalogues import read_catalogues

    began = time.perf_counter()
    languages = QUICK_LANGUAGES if quick else LANGUAGES
    queries = min(queries, 20) if quick else queries
    name = "demo-quick" if quick else "demo"
    read = read_catalogues(languages)
    note(f"Django's catalogues in {len(languages)} languages: {_summary(read)}")
    encoder = open_model("small", dtype)
    note(f"model {encoder.name}, {encoder.precision}: {', '.join(encoder.signals)} in one pass")
    once = EncodeOnce(encoder)
    with _store(name, encoder) as store:
        indexed = _index(store, once, read, quiet=as_json)
        if not as_json:
            _searches(store, once, name)
    report = _evaluate(once, read, queries, encoder.precision, quiet=as_json)
    seconds = time.perf_counter() - began
    if as_json:
        print_json(_figures(read, indexed, report, encoder.precision, seconds))
        return
    _table(report, languages)
    out.print(f"{seconds:.0f} s in all. The index stays:")
    out.print(f'  {program()} search {name} "your own words"', markup=False, soft_wrap=True)
    out.print(f"  {program()} serve {name}  # a page at http://localhost:8000", markup=False, soft_wrap=True)


def _summary(read: Catalogues) -> str:
    left_out = [f"{len(places):,} {reason}" for reason, places in read.report.skipped.items()]
    return f"{read.report.read:,} messages; left out: {', '.join(left_out) or 'none'}"


# the index


def _store(name: str, encoder: Encoder) -> Store:
    """The demo's index, open; made anew where another model made it."""
    from trichrome.index import create_store_for, open_store, read_manifest

    path = store_path(name)
    if path.exists():
        manifest = read_manifest(path)
        if manifest.settings.get("made by") != _MADE_HERE:
            raise TrichromeError(
                f"{path}: an index named {name!r} is there that the demo did not make; rename it"
            )
        if manifest.fingerprint == encoder.fingerprint:
            return open_store(path)
        open_store(path).close()  # refused while another process has it open
        shutil.rmtree(path)
    return create_store_for(encoder, path, settings={"model": encoder.name, "made by": _MADE_HERE})


def _index(store: Store, encoder: EncodeOnce, read: Catalogues, quiet: bool) -> IndexReport:
    from trichrome.index import index_documents

    def told(report: IndexReport) -> None:
        shown.at(report.stored)

    try:
        with bar("index", len(read.documents), quiet=quiet) as shown:
            indexed = index_documents(store, encoder, read.documents, prune=True, progress=told)
    except KeyboardInterrupt:
        raise Stopped("stopped; what is indexed is kept, and the next run goes on from there") from None
    if indexed.encoded:
        note(f"indexed {indexed.encoded:,} messages, {indexed.texts_per_second:,.0f} a second")
    else:
        note(f"{indexed.skipped:,} messages are indexed already")
    return indexed


class EncodeOnce:
    """An encoder that remembers: what was encoded for the index isn't encoded again for the evaluation, nor
    a query for each explanation of its hits."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name, self.fingerprint, self.signals = encoder.name, encoder.fingerprint, encoder.signals
        self._known: dict[tuple[str, str], Embedding] = {}  # (kind, text) → all its outputs

    def encode(
        self, texts: Sequence[str], kind: str = "passage", outputs: Sequence[str] | None = None
    ) -> Embeddings:
        """As Encoder.encode; from memory where all outputs are asked for and all texts are there."""
        if set(outputs or self.signals) != set(self.signals):
            return self.encoder.encode(texts, kind, outputs)
        keys = [(kind, text) for text in texts]
        if keys and all(key in self._known for key in keys):
            return _columns([self._known[key] for key in keys])
        made = self.encoder.encode(texts, kind)
        self._known.update(zip(keys, made, strict=True))
        return made

    def token(self, token_id: int) -> str:
        return self.encoder.token(token_id)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encoder.token_ids(texts)

    def token_spans(self, text: str, kind: str = "passage") -> TokenSpans:
        return self.encoder.token_spans(text, kind)


def _columns(rows: Sequence[Embedding]) -> Embeddings:
    """One batch of rows that all hold the same outputs."""
    import numpy as np

    from trichrome.embeddings import Embeddings, MultiVector, Sparse

    dense = [row.dense for row in rows if row.dense is not None]
    sparse = [
        (row.token_ids, row.token_weights)
        for row in rows
        if row.token_ids is not None and row.token_weights is not None
    ]
    vectors = [row.multivector for row in rows if row.multivector is not None]
    return Embeddings(
        np.stack(dense) if dense else None,
        Sparse.from_rows(sparse) if sparse else None,
        MultiVector.from_rows(vectors) if vectors else None,
    )


# the searches


def _searches(store: Store, encoder: EncodeOnce, name: str) -> None:
    from trichrome.search import Searcher

    searcher: Searcher = Searcher(encoder, store)
    for example in EXAMPLES:
        out.print()
        out.print(Text(example.title, style="bold"))
        out.print(Text(f"{program()} {_command(name, example)}", style="dim"), soft_wrap=True)
        where = None if example.lang is None else {"lang": example.lang}
        encoded = searcher.encode(example.text)
        print_hits(searcher, example.text, encoded, searcher.search(encoded, example.mode, 3, where))


def _command(name: str, example: Example) -> str:
    """What gives the same hits."""
    where = "" if example.lang is None else f" --filter lang={example.lang}"
    return f'search {name} "{example.text}" --mode {example.mode}{where} -k 3'


# the table


def _evaluate(encoder: EncodeOnce, read: Catalogues, queries: int, dtype: str, quiet: bool) -> Report:
    """English messages as queries, all languages' translations of each as its relevant documents."""
    from trichrome.evaluation import Options, Task, evaluate

    task = Task.of("django", read.documents, read.queries, read.qrels)
    options = Options(max_queries=queries, samples=1000, settings={"dtype": dtype})
    with stages(quiet=quiet) as tell:
        return evaluate(encoder, task, options, tell)


def _table(report: Report, languages: Sequence[str]) -> None:
    metrics = list(next(iter(report.means.values())))
    out.print(
        f"\n[bold]{report.queries} English messages searched for among {report.documents:,} "
        f"in {len(languages)} other languages, in %[/bold]",
        soft_wrap=True,
    )
    table = Table()
    table.add_column("mode")
    for metric in metrics:
        table.add_column(metric, justify="right")
    best = {metric: max(values[metric] for values in report.means.values()) for metric in metrics}
    for system, values in report.means.items():
        cells = [
            Text(f"{100 * values[m]:.1f}", style="bold" if values[m] == best[m] else "") for m in metrics
        ]
        table.add_row(system, *cells)
    out.print(table)
    out.print(
        "Queries and documents are in different languages here, so BM25 and sparse can match only what "
        "languages share: placeholders such as %(name)s, acronyms, borrowed words.",
        style="dim",
        markup=False,
    )


def _figures(
    read: Catalogues, indexed: IndexReport, report: Report, dtype: str, seconds: float
) -> dict[str, Any]:
    return {
        "model": report.model,
        "dtype": dtype,
        "languages": sorted({str(document.lang) for document in read.documents}),
        "documents": report.documents,
        "queries": report.queries,
        "left_out": {reason: len(places) for reason, places in read.report.skipped.items()},
        "encoded": indexed.encoded,
        "texts_per_second": round(indexed.texts_per_second, 1),
        "seconds": round(seconds, 1),
        "means": report.means,
    }
