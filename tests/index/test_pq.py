"""Product quantisation: what it keeps, that training lowers the error, and stores that hold codes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.index.samples import DIM, make_store, names, random_embeddings
from trichrome.embeddings import Embedding
from trichrome.errors import TrichromeError
from trichrome.index import copy_store, create_store, open_store, verify_copy
from trichrome.index.codes import check_codes, dense_codes
from trichrome.index.copying import open_copy, quantiser_of
from trichrome.index.exact import ExactStore
from trichrome.index.manifests import QUANTISER
from trichrome.index.pq import ProductQuantiser, train_quantiser


def correlated(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors most of whose variance lies in few directions, as those of encoders: none of them an axis."""
    draw = np.random.default_rng(seed)
    spread = 0.8 ** np.arange(dim)
    turn = np.linalg.qr(np.random.default_rng(99).standard_normal((dim, dim)))[0]
    x = (draw.standard_normal((n, dim)) * spread) @ turn
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def quantiser() -> ProductQuantiser:
    return train_quantiser(correlated(3000, DIM), 4)


def test_scores_are_products_with_what_codes_stand_for(quantiser: ProductQuantiser) -> None:
    x, query = correlated(500, DIM, seed=1), correlated(1, DIM, seed=2)[0]
    codes, found = quantiser.encode(x), np.empty(500, np.float32)
    assert (codes.dtype, codes.shape) == (np.dtype(np.uint8), (500, 4))
    quantiser.scores(query, codes, found)
    np.testing.assert_allclose(found, quantiser.decode(codes) @ query, atol=1e-5)
    table = quantiser.table(query)
    by_hand = [sum(table[m, row[m]] for m in range(4)) for row in codes[:9]]
    np.testing.assert_allclose(found[:9], by_hand, atol=1e-6)


def test_codes_are_the_nearest_centroids(quantiser: ProductQuantiser) -> None:
    x = correlated(200, DIM, seed=1)
    turned = (x @ quantiser.rotation).reshape(200, 4, -1)
    apart = np.square(turned[:, :, None] - quantiser.centroids[None]).sum(-1)  # [200, M, K]
    np.testing.assert_array_equal(quantiser.encode(x), apart.argmin(2))
    assert quantiser.error(x) == pytest.approx(apart.min(2).sum(1).mean(), rel=1e-4)


def test_what_was_coded_once_stays(quantiser: ProductQuantiser) -> None:
    codes = quantiser.encode(correlated(300, DIM, seed=3))
    np.testing.assert_array_equal(quantiser.encode(quantiser.decode(codes)), codes)


def test_rotations_are_orthonormal_and_lower_the_error() -> None:
    x, others = correlated(3000, 32), correlated(1000, 32, seed=1)
    plain, turned = (train_quantiser(x, 4, rotate=rotate) for rotate in (False, True))
    np.testing.assert_array_equal(plain.rotation, np.eye(32, dtype=np.float32))
    np.testing.assert_allclose(turned.rotation @ turned.rotation.T, np.eye(32), atol=1e-5)
    assert turned.error(others) < 0.8 * plain.error(others)
    first = train_quantiser(x, 4, rounds=1)
    assert turned.error(x) < 0.95 * first.error(x)
    assert train_quantiser(x, 8).error(others) < 0.8 * turned.error(others)


def test_centroids_are_means_of_their_own() -> None:
    """Lloyd's rounds end where every centroid is the mean of the vectors that it stands for."""
    x = correlated(600, 6)
    made = train_quantiser(x, 2, rotate=False, rounds=200)
    codes = made.encode(x)
    for m in range(2):
        for k in np.unique(codes[:, m]):
            own = x[codes[:, m] == k][:, 3 * m : 3 * m + 3]
            np.testing.assert_allclose(made.centroids[m, k], own.mean(0), atol=1e-5)


def test_a_training_that_is_repeated_gives_the_same_bits() -> None:
    x = correlated(2000, 24)
    first, again, other = (train_quantiser(x, 3, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    np.testing.assert_array_equal(first.rotation, again.rotation)
    assert not np.array_equal(first.centroids, other.centroids)


def test_few_equal_or_odd_vectors(tmp_path: Path) -> None:
    one = train_quantiser(np.ones((1, 5), np.float32))
    np.testing.assert_allclose(one.decode(one.encode(np.ones((2, 5), np.float32))), 1, atol=1e-5)
    same = train_quantiser(
        np.ones((3000, 20), np.float32)
    )  # 20 numbers: three pieces of seven, one is filled
    assert (same.pieces, same.rotation.shape) == (3, (20, 21))
    assert same.error(np.ones((5, 20), np.float32)) < 1e-6
    x = correlated(3000, 20)
    np.testing.assert_allclose(
        (x @ train_quantiser(x).rotation) @ (x @ train_quantiser(x).rotation).T, x @ x.T, atol=1e-4
    )
    for shape, pieces in (((0, 8), 2), ((9, 8), 9), ((9, 8), 0)):
        with pytest.raises(TrichromeError, match="can't be cut"):
            train_quantiser(np.ones(shape, np.float32), pieces)


def test_a_quantiser_is_saved_whole(quantiser: ProductQuantiser, tmp_path: Path) -> None:
    quantiser.save(tmp_path / "q")
    again = ProductQuantiser.load(tmp_path / "q")
    np.testing.assert_array_equal(again.centroids, quantiser.centroids)
    (tmp_path / "q").write_bytes((tmp_path / "q").read_bytes()[:-9])
    for path in (tmp_path / "q", tmp_path / "nothing"):
        with pytest.raises(TrichromeError, match="no quantiser, or damaged"):
            ProductQuantiser.load(path)


def test_codes_beside_vectors_must_fit() -> None:
    x = correlated(400, 16)
    arrays = dense_codes(x, "pq")
    check_codes(arrays, "pq", x)
    assert dense_codes(x[:255], "pq") == {}
    check_codes({}, "pq", x[:255])
    high = arrays["codes"].copy()
    high[7, 1] = arrays["centroids"].shape[1]  # names a centroid that is not there
    for wrong in ({}, {**arrays, "codes": high}, {**arrays, "rotation": arrays["rotation"][:-1]}):
        with pytest.raises(ValueError, match="the pq codes"):
            check_codes(wrong, "pq", x)


# stores that keep codes alone


def make_coded(folder: Path, quantiser: ProductQuantiser, name: str = "store") -> ExactStore:
    store = make_store(folder / name, "exact", quantiser=quantiser)
    assert isinstance(store, ExactStore)
    return store


def test_a_store_of_codes_answers_by_them(folder: Path, quantiser: ProductQuantiser) -> None:
    documents = random_embeddings(400, seed=1)
    stand_for = quantiser.decode(quantiser.encode(documents.dense))
    with make_coded(folder, quantiser) as store:
        for start in range(0, 400, 70):
            store.add(
                names(400)[start : start + 70],
                documents[start : start + 70],
                [{}] * len(documents[start : start + 70]),
            )
        store.add(["d3"], documents[4:5], [{"new": 1}])
        store.delete(["d9"])
        store.add(["d3"], documents[3:4], [{}])
        store.optimize()
    with open_store(folder / "store") as store:
        assert isinstance(store, ExactStore)
        assert (store.manifest.dense_dtype, store.manifest.dense_search) == ("pq", "pq")
        kept = [i for i in range(400) if i != 9]
        rows = store.rows_of([f"d{i}" for i in kept])
        np.testing.assert_array_equal(store.dense_codes(rows), quantiser.encode(documents.dense)[kept])
        np.testing.assert_allclose(store.embeddings(rows).dense, stand_for[kept], atol=1e-6)
        query = Embedding(dense=random_embeddings(1, seed=2).dense[0])
        wanted = stand_for[kept] @ query.dense
        np.testing.assert_allclose(store.scores("dense", query, rows), wanted, atol=1e-5)
        found = store.search("dense", query, 10)
        best = np.argsort(-wanted, kind="stable")[:10]
        assert store.ids(found.rows) == [f"d{kept[i]}" for i in best]
        np.testing.assert_allclose(found.scores, wanted[best], atol=1e-5)
        assert store.embeddings(rows[:0]).dense.shape == (0, DIM)


def test_codes_take_a_sixteenth_here(folder: Path, quantiser: ProductQuantiser) -> None:
    with make_coded(folder, quantiser) as store:
        store.add(names(300), random_embeddings(300, seed=1), [{}] * 300)
        (segment,) = store._state.segments
        assert segment.arrays["dense"].nbytes == 300 * 4 == 300 * DIM * 4 // 16
        assert not segment.dense_codes


def test_a_store_of_dense_vectors_alone_may_be_codes(folder: Path, quantiser: ProductQuantiser) -> None:
    documents = random_embeddings(30, seed=1).select("dense")
    shape = {"sparse": False, "multivector_dim": None}
    with make_store(folder / "store", "exact", quantiser=quantiser, **shape) as store:
        store.add(names(30), documents, [{}] * 30)
        assert store.embeddings(store.rows_of(["d2"])).signals == ("dense",)


def test_copies_learn_codes_and_keep_them(folder: Path) -> None:
    documents = random_embeddings(500, seed=1)
    with (
        make_store(folder / "floats", "embedded") as floats,
        create_store(folder / "empty", model="tiny", fingerprint="f" * 64, dense_dim=DIM, sparse=False,
                     multivector_dim=None) as empty,
    ):  # fmt: skip
        floats.add(names(500), documents, [{}] * 500)
        with pytest.raises(TrichromeError, match="the source is empty"):
            quantiser_of(empty)
        learnt = quantiser_of(floats)
        with open_copy(floats.manifest, folder / "codes", kind="exact", quantiser=learnt) as codes:
            report = copy_store(floats, codes)
            checked = verify_copy(floats, codes, report.sample)
            assert not checked.problems
            assert checked.vectors["dense"] > 0.01
            assert quantiser_of(codes) is codes.quantiser  # type: ignore[attr-defined]
            with open_copy(codes.manifest, folder / "again", kind="exact", quantiser=learnt) as again:
                report = copy_store(codes, again)
                assert verify_copy(codes, again, report.sample).vectors["dense"] < 1e-6
            with open_copy(codes.manifest, folder / "back", kind="exact") as back:
                assert (back.manifest.dense_dtype, back.manifest.dense_search) == ("float32", "float32")
                report = copy_store(codes, back)
                assert not verify_copy(codes, back, report.sample).problems
    with open_copy(read(folder / "floats"), folder / "codes", dense_dtype="pq"):
        pass
    with pytest.raises(TrichromeError, match="has dense_dtype pq, not float32"):
        open_copy(read(folder / "floats"), folder / "codes", dense_dtype="float32")


def read(place: Path) -> object:
    from trichrome.index import read_manifest

    return read_manifest(place)


def test_what_no_store_can_have_is_refused(folder: Path, quantiser: ProductQuantiser) -> None:
    with pytest.raises(TrichromeError, match="dense_search of the embedded store"):
        make_store(folder / "a", "embedded", quantiser=quantiser)
    with pytest.raises(TrichromeError, match="dense_dtype pq goes with"):
        make_store(folder / "a", "exact", quantiser=quantiser, dense_search="int8")
    with pytest.raises(TrichromeError, match="vectors of 16 numbers, not of 8"):
        make_store(folder / "a", "exact", quantiser=quantiser, dense_dim=8)
    assert not (folder / "a").exists()
    with make_store(folder / "floats", "exact") as store:
        assert isinstance(store, ExactStore)
        with pytest.raises(TrichromeError, match="keeps dense vectors, not codes"):
            store.dense_codes(np.empty(0, np.int64))


def test_a_damaged_store_of_codes_is_told(folder: Path, quantiser: ProductQuantiser) -> None:
    with make_coded(folder, quantiser) as store:
        store.add(names(30), random_embeddings(30, seed=1), [{}] * 30)
    few = ProductQuantiser(quantiser.rotation, np.ascontiguousarray(quantiser.centroids[:, :2]))
    few.save(folder / "store" / QUANTISER)
    with pytest.raises(TrichromeError, match="its codes are not those of the quantiser"):
        open_store(folder / "store")
    train_quantiser(correlated(300, 8)).save(folder / "store" / QUANTISER)
    with pytest.raises(TrichromeError, match="for vectors of 8 numbers"):
        open_store(folder / "store")
    (folder / "store" / QUANTISER).unlink()
    with pytest.raises(TrichromeError, match="no quantiser"):
        open_store(folder / "store")
