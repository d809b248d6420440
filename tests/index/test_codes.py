"""Codes: how near they stay, that they are as small as they say, and what finds the right candidates."""

from pathlib import Path

import numpy as np
import pytest

from tests.index.samples import DIM, TOKEN_DIM, make_store, names, random_embeddings
from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import TrichromeError
from trichrome.index import open_store, read_manifest
from trichrome.index.codes import TokenFormat, check_codes, coded_scores, dense_codes
from trichrome.storage import load_arrays, save_arrays


def units(n: int, width: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("dtype", "size", "off"), [("int8", 130, 0.003), ("int4", 66, 0.06), ("float16", 256, 0.0005)]
)
def test_packed_tokens_stay_near(dtype: str, size: int, off: float) -> None:
    form, x = TokenFormat(dtype, 128), units(500, 128)
    stored = form.pack(x)
    assert stored.nbytes == 500 * size
    assert (stored.dtype, stored.shape[1]) == form.stored
    back = form.unpack(stored).astype(np.float32)
    assert np.abs((x * back).sum(1) - 1).max() < off
    wide = np.empty_like(x)
    form.widen(stored, wide)
    np.testing.assert_allclose(wide, back, atol=1e-3)
    # what was packed once loses nothing more
    np.testing.assert_allclose(form.unpack(form.pack(back)), back, atol=1e-3)


def test_odd_widths_zeros_and_nothing() -> None:
    for dtype in ("int8", "int4"):
        form = TokenFormat(dtype, 5)
        x = np.array([[1, 0, 0, 0, -1], [0, 0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5]], np.float32)
        back = form.unpack(form.pack(x))
        np.testing.assert_allclose(back, x, atol=0.08)
        assert np.abs(back[1]).max() < 1e-4
        assert form.unpack(form.pack(x[:0])).shape == (0, 5)


def test_binary_codes_find_their_way_in_a_cone() -> None:
    """Vectors in one narrow cone, as many encoders make them: signs alone would hardly tell them apart."""
    x = units(2000, 64) + 4 * units(1, 64, seed=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    right = found = by_signs = 0
    for query in x[:20] + 0.02 * units(20, 64, seed=2):
        exact, near = x @ query, np.empty(len(x), np.float32)
        coded_scores(query, "binary", dense_codes(x, "binary"), near)
        best = set(np.argsort(-exact)[:10].tolist())
        right += len(best)
        found += len(best & set(np.argsort(-near)[:160].tolist()))
        plain = np.packbits(x > 0, axis=1) ^ np.packbits(query > 0)
        apart = np.unpackbits(plain, axis=1).sum(1)
        by_signs += len(best & set(np.argsort(apart, kind="stable")[:160].tolist()))
    assert found >= 0.85 * right
    assert by_signs < 0.5 * right


@pytest.mark.parametrize("kind", ["int8", "binary", "pq"])
def test_coded_scores_are_near_and_codes_are_small(kind: str) -> None:
    x, query = units(300, 43), units(1, 43, seed=3)[0]
    codes, near = dense_codes(x, kind), np.empty(300, np.float32)
    coded_scores(query, kind, codes, near)
    exact = x @ query
    assert np.abs(near - exact).max() < (0.005 if kind == "int8" else 0.5)
    assert np.corrcoef(near, exact)[0, 1] > (0.9999 if kind == "int8" else 0.7)
    assert codes["codes"].nbytes == 300 * (43 if kind == "int8" else 6)
    check_codes(codes, kind, x)
    damaged = "centroids" if kind == "pq" else "scales"
    with pytest.raises(ValueError, match=f"the {kind} codes of its dense vectors do not fit"):
        check_codes({**codes, damaged: codes[damaged][:-1]}, kind, x)


def test_the_manifest_keeps_what_was_chosen(folder: Path) -> None:
    for kind, dense_search, dtype in (("exact", "binary", "int4"), ("embedded", "float32", "float32")):
        make_store(folder / kind, kind, dense_search=dense_search, multivector_dtype=dtype).close()
        manifest = read_manifest(folder / kind)
        assert (manifest.dense_search, manifest.multivector_dtype) == (dense_search, dtype)
    with pytest.raises(TrichromeError, match="must be float16 or float32, not 'int4'"):
        make_store(folder / "new", "embedded", multivector_dtype="int4")


def test_compressed_stores_are_smaller_and_rescore(folder: Path) -> None:
    documents = random_embeddings(600, seed=1)
    sizes = {}
    for kind in ("exact", "exact int8", "exact int4"):
        with make_store(folder / kind, kind) as store:
            store.add(names(600), documents, [{}] * 600)
            query = Embedding(dense=documents.dense[7])
            found = store.search("dense", query, 5)
            assert store.ids(found.rows)[0] == "d7"
            np.testing.assert_allclose(
                found.scores, store.scores("dense", query, found.rows), atol=1e-6
            )  # by the vectors, not by the codes
        (segment,) = (folder / kind / "segments").iterdir()
        arrays = load_arrays(segment)
        sizes[kind] = arrays["multivector.vectors"].nbytes
        assert arrays["dense"].shape == (600, DIM)
    tokens = len(documents.multivector.vectors)
    assert sizes == {
        "exact": 2 * TOKEN_DIM * tokens,
        "exact int8": (TOKEN_DIM + 2) * tokens,
        "exact int4": (TOKEN_DIM // 2 + 2) * tokens,
    }


def test_the_embedded_store_scores_what_its_codes_find_by_the_vectors(folder: Path) -> None:
    documents = random_embeddings(600, seed=1)
    with make_store(folder / "store", "embedded", dense_search="binary") as store:
        store.add(names(600), documents, [{}] * 600)
        store.optimize()
        query = Embedding(dense=documents.dense[7])
        found = store.search("dense", query, 5)
        assert store.ids(found.rows)[0] == "d7"
        np.testing.assert_allclose(found.scores, store.scores("dense", query, found.rows), atol=1e-6)


def test_a_store_without_its_codes_is_refused(folder: Path) -> None:
    with make_store(folder / "store", "exact int8") as store:
        store.add(names(9), random_embeddings(9, seed=1), [{}] * 9)
    (segment,) = (folder / "store" / "segments").iterdir()
    arrays = {name: np.array(a) for name, a in load_arrays(segment).items() if name != "dense.codes"}
    save_arrays(segment, arrays)
    with pytest.raises(TrichromeError, match="the int8 codes of its dense vectors do not fit them"):
        open_store(folder / "store")


def test_an_empty_batch_has_its_shape() -> None:
    none = Embeddings(np.empty((0, 16), np.float32))
    assert dense_codes(none.dense, "pq") == {}
    assert dense_codes(none.dense, "binary")["direction"].shape == (16,)
