"""Copying between stores: everything as it was, resumed after a kill, and checked at the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from tests.index.children import copy_until_killed
from tests.index.places import new_place
from tests.index.samples import assert_holds, make_store, names, processes, random_embeddings
from trichrome.embeddings import MultiVector
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.index import CopyReport, Place, copy_store, open_store, verify_copy
from trichrome.index.copying import check_places, open_copy

N = 150
DOCUMENTS = random_embeddings(N, seed=11)
PAYLOADS = [
    {"text": f"text {i}", "n": i, "lang": "en" if i % 3 else "sw", "ü.x": [i, None]} for i in range(N)
]
KINDS = ("exact", "embedded", "qdrant")


def filled(place: Place, kind: str) -> None:
    """A closed store of all documents."""
    with make_store(place, kind, settings={"model": "tiny", "passage_tokens": 64}) as store:
        store.add(names(N), DOCUMENTS, PAYLOADS)


@pytest.fixture
def source(folder: Path) -> Place:
    place = folder / "source"
    filled(place, "exact")
    return place


@pytest.mark.parametrize(
    ("kind", "to"), [*permutations(KINDS, 2), ("exact", "postgres"), ("postgres", "qdrant")]
)
def test_a_copy_is_the_same_and_answers_the_same(folder: Path, kind: str, to: str) -> None:
    with new_place(kind, folder / "a") as here, new_place(to, folder / "b") as there:
        filled(here, kind)
        told: list[int] = []
        with open_store(here) as source, open_copy(source.manifest, there, kind=folder_kind(to)) as target:
            report = copy_store(source, target, batch=40, progress=lambda report: told.append(report.done))
            assert (report.total, report.copied, report.unchanged) == (N, N, 0)
            assert told == [40, 80, 120, 150, 150]
            assert_holds(target, names(N), DOCUMENTS, PAYLOADS)
            assert target.manifest.kind == to
            for name in ("model", "fingerprint", "settings", "multivector_dtype"):
                assert getattr(target.manifest, name) == getattr(source.manifest, name)
            checked = verify_copy(source, target, report.sample, queries=20)
        assert checked.problems == []
        assert (checked.source, checked.target, checked.compared, checked.queries) == (N, N, N, 20)
        assert checked.vectors == {"dense": 0, "sparse": 0, "multivector": 0}
        assert min(checked.agreement.values()) >= 0.95
        assert set(checked.agreement) == {"dense", "sparse"}
        with open_store(here) as source, open_store(there) as target:
            report = copy_store(source, target)
            assert (report.copied, report.unchanged, report.deleted) == (0, N, 0)
            assert_holds(target, names(N), DOCUMENTS, PAYLOADS)


def folder_kind(kind: str) -> str | None:
    return kind if kind in ("exact", "embedded") else None


@pytest.mark.parametrize("to", KINDS)
def test_a_killed_copy_goes_on_where_it_stopped(folder: Path, source: Place, to: str) -> None:
    with new_place(to, folder / "b") as there:
        make_store(there, to).close()
        context = processes()
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=copy_until_killed, args=(source, there, theirs))
        child.start()
        theirs.close()
        acknowledged = last_of(ours, 3)
        child.kill()
        child.join()
        with open_store(source) as opened, open_store(there) as target:
            kept = target.count()
            assert acknowledged <= kept < N
            report = copy_store(opened, target, batch=10)
            assert (report.copied, report.unchanged) == (N - kept, kept)
            assert_holds(target, names(N), DOCUMENTS, PAYLOADS)
            assert verify_copy(opened, target, report.sample).problems == []


def last_of(connection: Connection, count: int) -> int:
    """The last of so many messages: documents that the child's copy has done."""
    return [int(connection.recv()) for _ in range(count)][-1]


def test_changed_documents_are_copied_again_and_others_pruned(folder: Path, source: Place) -> None:
    with open_store(source) as opened, make_store(folder / "copy", "exact") as target:
        copy_store(opened, target)
        opened.add(names(5), DOCUMENTS[5:10], [{"new": i} for i in range(5)])
        opened.delete(names(20, start=100))
        report = copy_store(opened, target)
        assert (report.copied, report.unchanged, report.deleted) == (5, N - 25, 0)
        problems = verify_copy(opened, target, report.sample).problems
        assert problems[0] == "the source holds 130 documents, the target 150; delete the others with --prune"
        report = copy_store(opened, target, prune=True)
        assert (report.copied, report.deleted) == (0, 20)
        kept = [*range(5, 10), *range(5, 100), *range(120, N)]
        payloads = [*({"new": i} for i in range(5)), *PAYLOADS[5:100], *PAYLOADS[120:]]
        assert_holds(target, [*names(100), *names(30, start=120)], DOCUMENTS[kept], payloads)
        assert verify_copy(opened, target, report.sample).problems == []


def test_other_vectors_under_the_same_payloads_are_seen(folder: Path, source: Place) -> None:
    with open_store(source) as opened, make_store(folder / "copy", "exact") as target:
        target.add(names(N), random_embeddings(N, seed=12), PAYLOADS)
        report = copy_store(opened, target)
        assert report.copied == 0
        checked = verify_copy(opened, target, report.sample)
        assert len(checked.tokens) > N / 2
        problems = " ".join(checked.problems)
        for what in ("the tokens of", "dense vectors differ", "dense search finds", "dense scores differ"):
            assert what in problems
        assert copy_store(opened, target, again=True).copied == N
        assert verify_copy(opened, target, report.sample).problems == []
        assert_holds(target, names(N), DOCUMENTS, PAYLOADS)


def test_what_is_rounded_is_told(folder: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((N, 8)).astype(np.float32) / 3
    fine = replace(DOCUMENTS, multivector=MultiVector(np.arange(N + 1), vectors))
    with make_store(folder / "fine", "exact", multivector_dtype="float32") as source:
        source.add(names(N), fine, PAYLOADS)
        place = folder / "coarse"
        with open_copy(source.manifest, place, kind="exact", multivector_dtype="float16") as target:
            checked = verify_copy(source, target, copy_store(source, target).sample)
    assert checked.problems == []
    assert (checked.vectors["dense"], checked.vectors["sparse"]) == (0, 0)
    assert 0 < checked.vectors["multivector"] < 1e-3
    assert 0 < checked.scores["multivector"] < 1e-3


def test_packed_token_vectors_go_over_as_they_are_handed_out(folder: Path) -> None:
    with make_store(folder / "packed", "exact", multivector_dtype="int4", dense_search="int8") as source:
        source.add(names(N), DOCUMENTS, PAYLOADS)
        for kind, dtype, search in (("exact", "int4", "int8"), ("embedded", "float16", "int8")):
            with open_copy(source.manifest, folder / kind, kind=kind) as target:
                assert (target.manifest.multivector_dtype, target.manifest.dense_search) == (dtype, search)
                checked = verify_copy(source, target, copy_store(source, target).sample)
            assert checked.problems == []
            assert checked.vectors["multivector"] <= (0 if kind == "embedded" else 0.01)


def test_missing_documents_are_told(folder: Path, source: Place) -> None:
    with open_store(source) as opened, make_store(folder / "copy", "exact") as target:
        report = copy_store(opened, target)
        target.delete([report.sample[0]])
        problems = verify_copy(opened, target, report.sample).problems
    assert problems == [
        "the source holds 150 documents, the target 149",
        "1 documents of the sample are not in the target",
    ]


def test_a_copy_that_is_there_has_to_be_what_was_asked_for(folder: Path, source: Place) -> None:
    with open_store(source) as opened, make_store(folder / "copy", "exact") as target:
        copy_store(opened, target)
    with pytest.raises(TrichromeError, match="the store there has kind exact, not embedded; leave it out"):
        open_copy(opened.manifest, folder / "copy", kind="embedded")
    with pytest.raises(TrichromeError, match="has multivector_dtype float16, not float32"):
        open_copy(opened.manifest, folder / "copy", multivector_dtype="float32")
    with open_copy(opened.manifest, folder / "copy", kind="exact") as target:
        assert target.count() == N


def test_an_empty_store_is_copied(folder: Path) -> None:
    with make_store(folder / "a", "exact") as source, make_store(folder / "b", "exact") as target:
        report = copy_store(source, target)
        assert (report.total, report.done) == (0, 0)
        checked = verify_copy(source, target, report.sample)
        assert (checked.problems, checked.agreement) == ([], {})


def test_what_does_not_fit_is_refused(folder: Path, source: Place) -> None:
    with open_store(source) as opened:
        with make_store(folder / "a", "exact", fingerprint="0" * 64) as other, pytest.raises(ModelMismatch):
            copy_store(opened, other)
        with make_store(folder / "b", "exact", sparse=False) as other:
            with pytest.raises(TrichromeError, match="the source has sparse True, the target False"):
                copy_store(opened, other)
            assert other.count() == 0
        with (
            make_store(folder / "c", "exact") as other,
            pytest.raises(TrichromeError, match="batch must be positive"),
        ):
            copy_store(opened, other, batch=0)
    with pytest.raises(TrichromeError, match="cannot be copied to where it is"):
        check_places(source, source)


def test_progress_counts_all_that_is_done(folder: Path, source: Place) -> None:
    with open_store(source) as opened, make_store(folder / "copy", "exact") as target:
        target.add(names(30), DOCUMENTS[:30], PAYLOADS[:30])
        seen: list[CopyReport] = []
        copy_store(opened, target, progress=lambda report: seen.append(replace(report)))
        assert seen[-1].done == seen[-1].total == N
        assert (seen[-1].copied, seen[-1].unchanged) == (N - 30, 30)
