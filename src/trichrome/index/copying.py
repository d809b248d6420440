"""Copying a store: documents, vectors and payloads as they are, from any store to any other.

A document is there already if the target holds its id with the same payload; so a copy that was killed goes
on where it stopped, one that is finished does nothing, and documents that changed since are copied again.
(The vectors are not read for that: where they were made anew for unchanged payloads, `verify_copy` sees it on
its sample, and `again` copies everything.)
"""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from trichrome.errors import TrichromeError
from trichrome.index.keys import hash_ids
from trichrome.index.manifests import QUANTISER, check_model
from trichrome.index.open import create_store, has_store, open_store, read_manifest
from trichrome.index.pq import SAMPLE as TRAINED_ON
from trichrome.index.pq import ProductQuantiser, train_quantiser
from trichrome.index.store import Manifest, Store
from trichrome.index.urls import Place, is_url, kind_of, shown
from trichrome.storage import atomic_folder

T = TypeVar("T")

#: Documents of a copy that are compared number by number: those with the smallest hashes of their ids, which
#: are a fair sample, and the same in every run.
SAMPLE = 200


@dataclass
class CopyReport:
    """What a copy did so far.

    total: documents of the source when it began. copied, unchanged (there already), deleted (with prune):
    numbers of documents. seconds: since the start. sample: ids of some documents for `verify_copy`.
    """

    total: int
    copied: int = 0
    unchanged: int = 0
    deleted: int = 0
    seconds: float = 0.0
    sample: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Documents of the source that the target holds now."""
        return self.copied + self.unchanged


def copy_store(
    source: Store,
    target: Store,
    *,
    batch: int = 128,
    again: bool = False,
    prune: bool = False,
    progress: Callable[[CopyReport], None] | None = None,
) -> CopyReport:
    """Copy what the target lacks, batch by batch, each acknowledged by the target.

    batch: documents read and stored at once. again: copy everything, also what is there already. prune:
    delete documents of the target that the source does not hold. progress: called after every batch. At the
    end the target is optimized. Raises TrichromeError (ModelMismatch) if the target is of another model or
    shape; an error of a store ends the copy, and the next one goes on there.
    """
    if batch < 1:
        raise TrichromeError(f"batch must be positive, got {batch}")
    check_fit(source.manifest, target.manifest)
    report, began = CopyReport(source.count()), time.perf_counter()
    sample: list[tuple[int, str]] = []
    seen: set[int] = set()  # hashes of the ids, where pruning needs them

    def tell() -> None:
        report.seconds = time.perf_counter() - began
        if progress is not None:
            progress(report)

    for group in _batches(source.scan(), batch):
        ids = [id for id, _ in group]
        hashes = hash_ids(ids).tolist()
        sample = heapq.nsmallest(SAMPLE, [*sample, *zip(hashes, ids, strict=True)])
        if prune:
            seen.update(hashes)
        payloads = dict(group)
        wanted = ids if again else [id for id, stored in _stored(target, ids) if stored != payloads[id]]
        rows = source.rows_of(wanted)
        if len(wanted):
            if (rows < 0).any():
                raise TrichromeError(
                    "a document was deleted from the source while it was copied; run it again"
                )
            target.add(wanted, source.embeddings(rows), [payloads[id] for id in wanted])
        report.copied += len(wanted)
        report.unchanged += len(ids) - len(wanted)
        tell()
    if prune:
        there = [id for id, _ in target.scan(fields=[])]  # first all of them: deleting would disturb the scan
        gone = [id for id, key in zip(there, hash_ids(there).tolist(), strict=True) if key not in seen]
        report.deleted = sum(target.delete(part) for part in _batches(iter(gone), 1000))
    target.optimize()
    report.sample = [id for _, id in sample]
    tell()
    return report


def open_copy(
    source: Manifest,
    place: Place,
    *,
    kind: str | None = None,
    multivector_dtype: str | None = None,
    dense_dtype: str | None = None,
    quantiser: ProductQuantiser | None = None,
) -> Store:
    """The store at a place, for a copy; where there is none, an empty one with all that the manifest says.

    kind: of a folder's store. multivector_dtype: of the token vectors; as in the source where it is not said,
    or float16 where the source packs them in a way of its own kind. dense_dtype: of a store that is there;
    quantiser: a new one keeps its codes in place of dense vectors (see `quantiser_of`). TrichromeError if a
    store is there that has another kind or dtype than was said.
    """
    if has_store(place):
        there = read_manifest(place)
        for name, said in (
            ("kind", kind),
            ("multivector_dtype", multivector_dtype),
            ("dense_dtype", dense_dtype),
        ):
            if said not in (None, getattr(there, name)):
                raise TrichromeError(
                    f"{shown(place)}: the store there has {name} {getattr(there, name)}, not {said}; leave "
                    "it out, or copy to a new place"
                )
        return open_store(place)
    kept = quantiser is None and source.dense_dtype == "float32"  # vectors, so what reads them may stay
    same_kind = source.kind == (kind_of(place) if is_url(place) else kind or "embedded")
    dtype = source.multivector_dtype if same_kind else source.token_floats
    return create_store(
        place,
        model=source.model,
        fingerprint=source.fingerprint,
        dense_dim=source.dense_dim,
        sparse=source.sparse,
        multivector_dim=source.multivector_dim,
        kind=kind,
        multivector_dtype=multivector_dtype or dtype,
        dense_search=source.dense_search if same_kind and kept else None,
        sparse_search=source.sparse_search if same_kind else "exact",
        settings=source.settings,
        quantiser=quantiser,
    )


def quantiser_of(source: Store) -> ProductQuantiser:
    """The quantiser of a store of dense codes; else a new one, trained on some of the store's dense vectors.

    TrichromeError: the store is empty, or holds no dense vectors.
    """
    known = getattr(source, "quantiser", None)
    if isinstance(known, ProductQuantiser):
        return known
    if source.manifest.dense_dim is None:
        raise TrichromeError("the source holds no dense vectors to make codes of")
    ids = [id for id, _ in source.scan(fields=[])]
    if not ids:
        raise TrichromeError("the source is empty: codes are learnt from its vectors; index documents first")
    some = [ids[i] for i in np.linspace(0, len(ids) - 1, min(len(ids), TRAINED_ON)).round().astype(int)]
    parts = [source.embeddings(source.rows_of(part)).dense for part in _batches(iter(some), 512)]
    return train_quantiser(np.concatenate([part for part in parts if part is not None]))


def copy_with_centroids(source: Path, target: Path, quantiser: ProductQuantiser) -> None:
    """A store of dense codes as it is, but with the centroids of another quantiser: what its codes stand for.

    source, target: folders; the target is absent, or empty. quantiser: of the source's rotation and shape.
    TrichromeError where it is of another, and as `open_store`.
    """
    with open_store(source) as store:  # nobody changes it meanwhile
        before = getattr(store, "quantiser", None)
        if (
            before is None
            or before.centroids.shape != quantiser.centroids.shape
            or not np.array_equal(before.rotation, quantiser.rotation)
        ):
            raise TrichromeError(f"{source}: its codes are not of a quantiser of this rotation and shape")
        with atomic_folder(target) as folder:
            aside = shutil.ignore_patterns("lock", QUANTISER)
            shutil.copytree(source, folder, ignore=aside, dirs_exist_ok=True)
            quantiser.save(folder / QUANTISER)


def check_fit(source: Manifest, target: Manifest) -> None:
    """Raise TrichromeError unless the target takes the source's documents as they are."""
    check_model(target, source.fingerprint, source.model)
    for name in ("dense_dim", "sparse", "multivector_dim"):
        if getattr(source, name) != getattr(target, name):
            raise TrichromeError(
                f"the source has {name} {getattr(source, name)}, the target {getattr(target, name)}; copy to "
                "a new place"
            )


def check_places(source: Place, target: Place) -> None:
    """Raise TrichromeError where both places are the same."""
    if source == target:
        raise TrichromeError(f"{shown(source)}: a store cannot be copied to where it is")


def _stored(target: Store, ids: list[str]) -> Iterator[tuple[str, object]]:
    """(id, the payload that the target holds, None where it holds none) of each id."""
    rows = target.rows_of(ids)
    payloads = iter(target.payloads(rows[rows >= 0]))
    for id, row in zip(ids, rows.tolist(), strict=True):
        yield id, next(payloads) if row >= 0 else None


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while group := list(islice(items, size)):
        yield group
