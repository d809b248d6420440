"""Stores whose sparse search reads blocks: when they are made, that they answer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.index.samples import make_store, names
from tests.index.sparse_samples import rows_of
from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import TrichromeError
from trichrome.index import Store, copy_store, open_store, read_manifest
from trichrome.index.copying import open_copy
from trichrome.storage import load_arrays, save_arrays

N = 900
ONLY_SPARSE = {"dense_dim": None, "multivector_dim": None}
DOCUMENTS = Embeddings(sparse=rows_of(N, seed=1, longest=40))
QUERIES = list(Embeddings(sparse=rows_of(40, seed=2, longest=12)))
PAYLOADS = [{"even": i % 2 == 0} for i in range(N)]


def filled(place: Path, **changes: str) -> Store:
    store = make_store(place, "exact", **ONLY_SPARSE, **changes)
    for start in range(0, N, 300):
        part = slice(start, start + 300)
        store.add(names(N)[part], DOCUMENTS[part], PAYLOADS[part])
    return store


def files(place: Path) -> dict[str, bool]:
    """Segments, and whether each holds blocks."""
    found = sorted((place / "segments").iterdir())
    return {path.name: "blocks.lists" in load_arrays(path) for path in found}


def test_optimize_makes_blocks_once_and_searches_find_nearly_the_same(folder: Path) -> None:
    with filled(folder / "exact") as exact, filled(folder / "blocks", sparse_search="seismic") as store:
        assert not any(files(folder / "blocks").values())
        for query in QUERIES:  # without blocks yet: exactly
            assert_same_answer(store, exact, query)
        store.optimize()
        exact.optimize()
        made = files(folder / "blocks")
        assert list(made.values()) == [True]
        assert not any(files(folder / "exact").values())
        store.optimize()
        assert files(folder / "blocks") == made
        hits = wanted = 0
        for query in QUERIES:
            found, right = store.search("sparse", query, 10), exact.search("sparse", query, 10)
            np.testing.assert_array_equal(found.scores, exact.scores("sparse", query, found.rows))
            order = np.lexsort((found.rows, -found.scores))
            assert order.tolist() == list(range(len(order)))
            hits += len(np.intersect1d(found.rows, right.rows))
            wanted += len(right.rows)
        assert 0.9 * wanted < hits


def assert_same_answer(store: Store, exact: Store, query: Embedding) -> None:
    found, right = store.search("sparse", query, 10), exact.search("sparse", query, 10)
    assert store.ids(found.rows) == exact.ids(right.rows)
    np.testing.assert_array_equal(found.scores, right.scores)


def test_what_is_added_deleted_or_filtered_out_counts_at_once(folder: Path) -> None:
    with filled(folder / "blocks", sparse_search="seismic") as store:
        store.optimize()
        query = next(q for q in QUERIES if q.token_ids is not None and len(q.token_ids) > 5)
        first = store.ids(store.search("sparse", query, 5).rows)
        store.delete(first[:2])
        left = store.ids(store.search("sparse", query, 5).rows)
        assert not {*first[:2]} & {*left}
        assert first[2] == left[0]
        strong = Embeddings(sparse=rows_of(0, seed=0).from_rows([(query.token_ids, 9 * query.token_weights)]))
        store.add(["new"], strong, [{"even": True}])
        found = store.search("sparse", query, 5)
        assert store.ids(found.rows)[0] == "new"
        assert found.scores[0] == pytest.approx(9 * float((query.token_weights**2).sum()), rel=1e-5)
        even = store.search("sparse", query, 50, {"even": True})
        assert {payload["even"] for payload in store.payloads(even.rows)} == {True}
        assert len(store.search("sparse", query, 0).rows) == 0
        store.optimize()
        assert store.ids(store.search("sparse", query, 5).rows)[0] == "new"


def test_the_manifest_keeps_the_choice_and_older_ones_mean_exact(folder: Path) -> None:
    filled(folder / "blocks", sparse_search="seismic").close()
    assert read_manifest(folder / "blocks").sparse_search == "seismic"
    file = folder / "blocks" / "manifest.json"
    values = json.loads(file.read_text())
    del values["sparse_search"]
    file.write_text(json.dumps(values))
    assert read_manifest(folder / "blocks").sparse_search == "exact"
    for kind, changes, message in (
        ("embedded", {"sparse_search": "seismic"}, "sparse_search of the embedded store must be exact"),
        ("exact", {"sparse_search": "wand"}, "must be exact or seismic, not 'wand'"),
    ):
        with pytest.raises(TrichromeError, match=message):
            make_store(folder / "new", kind, **changes)


def test_a_copy_keeps_the_choice_where_its_kind_has_it(folder: Path) -> None:
    with filled(folder / "blocks", sparse_search="seismic") as source:
        source.optimize()
        with open_copy(source.manifest, folder / "copy", kind="exact") as target:
            assert target.manifest.sparse_search == "seismic"
            copy_store(source, target)
            assert list(files(folder / "copy").values()) == [True]
            for query in QUERIES:
                assert_same_answer(target, source, query)
        with open_copy(source.manifest, folder / "other", kind="embedded") as target:
            assert target.manifest.sparse_search == "exact"


def test_damaged_blocks_are_one_clear_error(folder: Path) -> None:
    with filled(folder / "blocks", sparse_search="seismic") as store:
        store.optimize()
    (segment,) = (folder / "blocks" / "segments").iterdir()
    whole = {name: np.array(array) for name, array in load_arrays(segment).items()}
    for name, wrong in (
        ("texts", whole["blocks.texts"] + N),
        ("places", whole["blocks.places"] + np.uint16(5000)),
        ("steps", whole["blocks.steps"][:-1]),
        ("codes", None),
    ):
        arrays = {k: a for k, a in whole.items() if k != f"blocks.{name}"}
        save_arrays(segment, arrays if wrong is None else {**arrays, f"blocks.{name}": wrong})
        with pytest.raises(TrichromeError, match="damaged"):
            open_store(folder / "blocks")
    save_arrays(segment, whole)
    with open_store(folder / "blocks") as store:
        assert store.count() == N
