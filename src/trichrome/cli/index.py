"""`trichrome index`: documents of any format into a store that can be searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trichrome.cli.console import Bar, Stopped, bar, counting_cuts, out, print_json, program
from trichrome.cli.encoded import index_encoded, is_encoded
from trichrome.cli.settings import JsonOption, PrecisionOption, open_model, precision, store_place
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.embeddings import Embeddings
    from trichrome.encoder import Encoder, Progress
    from trichrome.formats import Documents
    from trichrome.index import IndexReport, Place, Store
    from trichrome.records import JSON, Document

PASSAGE_TOKENS, OVERLAP = 256, 32

#: Passages read before the first is encoded: their number is the bar's total, and an error among them
#: leaves no empty index behind.
READ_FIRST = 20_000

#: Passages stored at a time: seconds of work, which is what Ctrl-C loses at most.
BATCH = 128


def index(
    path: Annotated[
        Path,
        typer.Argument(
            help="A folder or file of documents, JSONL, BEIR, TREC or SQuAD; or what `cluster encode` made."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="Name of the index, a path with a slash, or a URL.")],
    kind: Annotated[
        Literal["embedded", "exact"] | None, typer.Option(help="Of store; embedded for a new index.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder or hub id; small (built in) for a new index."),
    ] = None,
    dtype: PrecisionOption = "auto",
    dense_search: Annotated[
        Literal["float32", "int8", "binary", "pq"] | None,
        typer.Option(help="What dense search reads first; embedded: int8, exact: float32 by default."),
    ] = None,
    sparse_search: Annotated[
        Literal["exact", "seismic"] | None,
        typer.Option(help="How sparse search finds passages; seismic, in an exact store, misses a few."),
    ] = None,
    multivector_dtype: Annotated[
        Literal["float32", "float16", "int8", "int4"] | None,
        typer.Option(help="Of stored token vectors: float16 by default; int8 and int4 in an exact store."),
    ] = None,
    passage_tokens: Annotated[
        int | None,
        typer.Option(
            min=8,
            help=f"Cut into passages of at most so many tokens: {PASSAGE_TOKENS} for plain files; "
            "other documents only where the model reads less than the whole.",
        ),
    ] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Tokens that passages share.")] = None,
    format: Annotated[
        str | None, typer.Option(help="beir, jsonl, squad, trec, miracl or files; told from the content.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what can't be read; list it.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what PATH no longer holds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Index documents; run it again to add what is new or changed, or to go on after a stop."""
    from trichrome.formats import read_documents
    from trichrome.index import index_documents

    place = store_place(to)
    if is_encoded(path):
        given = (model, passage_tokens, overlap, format, skip_bad or None, prune or None, dense_search,
                 sparse_search, multivector_dtype)  # fmt: skip
        if dtype != "auto" or any(value is not None for value in given):
            raise TrichromeError(
                f"{path}: these documents are cut and encoded already: besides --kind, no option changes how"
            )
        index_encoded(path, place, kind, as_json)
        return
    documents = read_documents(path, format=format, skip_bad=skip_bad)
    kept = kept_settings(place)
    model = model or str(kept.get("model", "small"))
    wanted = str(kept.get("dtype", dtype)) if dtype == "auto" else precision(dtype)
    encoder = open_model(model, wanted)
    refuse_another_model(place, encoder)
    size, shared = passage_size(
        encoder,
        documents.format,
        number_or_none(kept, "passage_tokens") if passage_tokens is None else passage_tokens,
        number_or_none(kept, "overlap") if overlap is None else overlap,
    )
    passages = Passages(documents, encoder, size, shared)
    head = list(islice(passages, READ_FIRST))
    if not head:
        raise TrichromeError(f"{path}: no document to index ({documents.report.summary()})")
    total = len(head) if len(head) < READ_FIRST else None
    settings: dict[str, JSON] = {
        "model": lasting_name(model),
        "dtype": encoder.precision,
        "passage_tokens": size,
        "overlap": shared,
    }
    refuse_other_settings(place, kept, settings)
    layout = {
        "dense_search": dense_search,
        "sparse_search": sparse_search,
        "multivector_dtype": multivector_dtype,
    }
    store = open_or_create(place, kind, encoder, settings, layout)
    with store, counting_cuts() as cut:
        try:
            with bar("index", total) as shown:
                watched = Watched(encoder, shown)
                report = index_documents(
                    store,
                    watched,
                    chain(head, passages),
                    batch=BATCH,
                    prune=prune,
                    progress=watched.batch_done,
                )
            stale = passages.delete_stale(store)
        except KeyboardInterrupt:
            raise Stopped(
                f"stopped; {store.count():,} passages are stored, the same command goes on from there"
            ) from None
        summary = summarise(to, place, passages, report, store.count(), stale, cut())
    if as_json:
        print_json(summary)
    else:
        show(summary, passages)


def kept_settings(place: Place) -> Mapping[str, JSON]:
    """The settings of the index that is there, which hold for every later run; none for a new one."""
    from trichrome.index import has_store, read_manifest

    return read_manifest(place).settings if has_store(place) else {}


def number_or_none(settings: Mapping[str, JSON], name: str) -> int | None:
    """A setting that is a whole number, where it is there."""
    value = settings.get(name)
    return value if isinstance(value, int) else None


def lasting_name(model: str) -> str:
    """What opens the model from any folder."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model != "small" and path.is_dir() else model


def refuse_another_model(place: Place, encoder: Encoder) -> None:
    """ModelMismatch where there is an index of another model."""
    from trichrome.index import check_model, has_store, read_manifest

    if has_store(place):
        check_model(read_manifest(place), encoder.fingerprint, encoder.name)


def refuse_other_settings(place: Place, kept: Mapping[str, JSON], settings: Mapping[str, JSON]) -> None:
    """TrichromeError where options say otherwise than the index: its passages would be of two kinds."""
    from trichrome.index.urls import shown

    for name in ("dtype", "passage_tokens", "overlap"):
        if name in kept and kept[name] != settings[name]:
            option = name.replace("_", "-")
            raise TrichromeError(
                f"{shown(place)}: this index was made with --{option} {kept[name]}, not {settings[name]}; "
                f"leave --{option} out, or make a new index"
            )


def passage_size(encoder: Encoder, format: str, tokens: int | None, overlap: int | None) -> tuple[int, int]:
    """Tokens of a passage, and how many the next one repeats."""
    prompt = len(encoder.token_ids([encoder.config.prompts["passage"]])[0])
    longest = encoder.config.max_tokens - prompt - 4  # the special tokens, and what a cut may add
    if tokens is None:
        tokens = min(PASSAGE_TOKENS, longest) if format == "files" else longest
    if tokens > longest:
        raise TrichromeError(
            f"--passage-tokens {tokens} is more than {encoder.name} reads: at most {longest}"
        )
    return tokens, min(OVERLAP, tokens // 2) if overlap is None else overlap


class Passages:
    """The passages of a stream of documents, and what they were cut from."""

    def __init__(self, documents: Documents, encoder: Encoder, tokens: int, overlap: int) -> None:
        self.documents = documents
        self.cut = 0  # documents that became several passages
        self.seen: set[int] = set()  # hashes of the passages' ids
        self.parents: set[int] = set()  # and of their documents' ids
        self._iterator = self._make(encoder, tokens, overlap)

    def __iter__(self) -> Iterator[Document]:
        """Those that were not read yet: a stream can be read once."""
        return self._iterator

    def _make(self, encoder: Encoder, tokens: int, overlap: int) -> Iterator[Document]:
        from trichrome.formats.passages import cut_document

        for document in self.documents:
            passages = cut_document(document, encoder.tokenizer.offsets, max_tokens=tokens, overlap=overlap)
            self.cut += len(passages) > 1
            self.parents.add(hash(document.id))
            self.seen.update(hash(passage.id) for passage in passages)
            yield from passages

    def delete_stale(self, store: Store) -> int:
        """Remove what is left of documents that are cut otherwise now (shorter, say); how many passages."""
        stale = [
            id
            for id, payload in store.scan(fields=["document"])
            if hash(id) not in self.seen and hash(payload.get("document")) in self.parents
        ]
        return store.delete(stale) if stale else 0


class Watched:
    """An encoder that moves a bar with every forward pass."""

    def __init__(self, encoder: Encoder, shown: Bar) -> None:
        self._encoder = encoder
        self._shown = shown
        self._before = self._free = 0

    def encode(self, texts: Sequence[str], kind: str) -> Embeddings:
        def at(progress: Progress) -> None:
            self._shown.at(self._before + progress.texts, self._free)

        return self._encoder.encode(texts, kind, progress=at)

    def batch_done(self, report: IndexReport) -> None:
        """A batch is stored; more unchanged documents may have been met."""
        self._free = report.skipped + report.failed
        self._before = self._free + report.encoded
        self._shown.at(self._before, self._free)


def open_or_create(
    place: Place,
    kind: str | None,
    encoder: Encoder,
    settings: Mapping[str, JSON],
    layout: Mapping[str, str | None],
) -> Store:
    """The store of this place; a new one where there is none. layout: fields of its manifest, by name, None
    where nothing was said. TrichromeError: it is there, made otherwise."""
    from trichrome.index import create_store_for, has_store, open_store, read_manifest
    from trichrome.index.urls import shown

    if not has_store(place):
        return create_store_for(
            encoder,
            place,
            kind=kind,
            multivector_dtype=layout["multivector_dtype"] or "float16",
            dense_search=layout["dense_search"],
            sparse_search=layout["sparse_search"] or "exact",
            settings=settings,
        )
    there = read_manifest(place)
    if kind not in (None, there.kind):
        raise TrichromeError(f"{shown(place)}: this index is of the kind {there.kind}; leave --kind out")
    for name, wanted in layout.items():
        if wanted not in (None, getattr(there, name)):
            raise TrichromeError(
                f"{shown(place)}: this index was made with {name} {getattr(there, name)}, not {wanted}; "
                f"leave --{name.replace('_', '-')} out, or make a new index"
            )
    return open_store(place)


def summarise(
    to: str, place: Place, passages: Passages, report: IndexReport, stored: int, stale: int, truncated: int
) -> dict[str, Any]:
    """What was done, as JSON values."""
    from trichrome.index.urls import shown

    read = passages.documents.report
    return {
        "index": shown(to),
        "path": shown(place),
        "format": passages.documents.format,
        "documents_read": read.read,
        "documents_skipped": {reason: len(places) for reason, places in read.skipped.items()},
        "documents_cut": passages.cut,
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.skipped,
        "deleted": report.deleted + stale,
        "failed": report.failed,
        "failures": [{"id": id, "reason": reason} for id, reason in report.failures],
        "truncated": truncated,
        "stored": stored,
        "seconds": round(report.seconds, 2),
        "texts_per_second": round(report.texts_per_second, 1),
    }


def show(summary: Mapping[str, Any], passages: Passages) -> None:
    """The summary for a person."""
    out.print(
        f"read       {summary['documents_read']:,} documents ({summary['format']}), "
        f"{summary['documents_cut']:,} of them cut into passages"
    )
    for reason, places in passages.documents.report.skipped.items():
        more = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
        out.print(f"left out   {len(places):,}: {reason} ({places[0]}{more})", markup=False, soft_wrap=True)
    for failure in summary["failures"][:5]:
        out.print(f"refused    {failure['id']}: {failure['reason']}", markup=False, soft_wrap=True)
    if (more_failed := summary["failed"] - 5) > 0:
        out.print(f"refused    {more_failed:,} more (--json lists them)")
    changes = ", ".join(f"{summary[name]:,} {name}" for name in ("added", "updated", "unchanged", "deleted"))
    out.print(f"passages   {changes}")
    if summary["truncated"]:
        out.print(f"truncated  {summary['truncated']:,} passages were longer than the model reads")
    if summary["added"] + summary["updated"]:
        out.print(
            f"encoded    {summary['texts_per_second']:,.1f} texts/s, {summary['seconds']:,.1f} s in all"
        )
    out.print(f"stored     {summary['stored']:,} passages in {summary['path']}", markup=False, soft_wrap=True)
    out.print(f'search     {program()} search {summary["index"]} "…"', markup=False, soft_wrap=True)
