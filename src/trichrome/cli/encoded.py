"""`trichrome index` for what `trichrome cluster encode` made: into a store, with nothing encoded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trichrome.cli.console import Stopped, bar, out, print_json
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.index import IndexReport, Place


def is_encoded(path: Path) -> bool:
    """Whether a path is what `cluster encode` makes."""
    return (path / "encoded.json").is_file()


def index_encoded(path: Path, place: Place, kind: str | None, as_json: bool) -> None:
    """`trichrome index` for an encoded corpus: its passages into a store, with nothing encoded."""
    from trichrome.cluster import EncodedCorpus, create_store_of, load_encoded
    from trichrome.index import check_model, has_store, open_store, read_manifest
    from trichrome.index.urls import shown as shown_place

    corpus = EncodedCorpus.open(path)
    if has_store(place):
        manifest = read_manifest(place)
        check_model(manifest, corpus.encoding.fingerprint, corpus.encoding.model)
        if kind not in (None, manifest.kind):
            raise TrichromeError(
                f"{shown_place(place)}: this index is of the kind {manifest.kind}; leave --kind out"
            )
        store = open_store(place)
    else:
        store = create_store_of(corpus, place, kind=kind)
    with store:
        try:
            with bar("store", len(corpus), quiet=as_json) as shown:

                def tell(report: IndexReport) -> None:
                    shown.at(report.stored, report.skipped)

                report = load_encoded(store, corpus, progress=tell)
        except KeyboardInterrupt:
            raise Stopped(
                f"stopped; {store.count():,} passages are stored, the same command goes on from there"
            ) from None
        stored = store.count()
    summary = {
        "path": shown_place(place),
        "format": "encoded",
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.skipped,
        "stored": stored,
        "seconds": round(report.seconds, 2),
        "texts_per_second": round(report.texts_per_second, 1),
    }
    if as_json:
        print_json(summary)
        return
    out.print(f"passages   {report.added:,} added, {report.updated:,} updated, {report.skipped:,} unchanged")
    if report.encoded:
        out.print(
            f"stored     {summary['texts_per_second']:,.1f} texts/s, {report.seconds:,.1f} s, nothing encoded"
        )
    out.print(f"stored     {stored:,} passages in {summary['path']}", markup=False, soft_wrap=True)
