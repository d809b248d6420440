"""Embeddings: slicing, joining, iterating, saving; files that are damaged are refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichrome.embeddings import Embeddings, MultiVector, Sparse
from trichrome.errors import TrichromeError
from trichrome.storage import atomic_write, save_arrays


def random_embeddings(n: int, seed: int = 0) -> Embeddings:
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = np.sort(draw.choice(50, draw.integers(0, 6), replace=False)).astype(np.int32)
        rows.append((ids, draw.random(len(ids), np.float32) + 0.1))
    vectors = [draw.random((draw.integers(0, 4), 5), np.float32) for _ in range(n)]
    return Embeddings(
        draw.random((n, 3), np.float32), Sparse.from_rows(rows), MultiVector.from_rows(vectors, dim=5)
    )


def assert_rows(batch: Embeddings, whole: Embeddings, rows: list[int]) -> None:
    assert len(batch) == len(rows)
    for got, i in zip(batch, rows, strict=True):
        want = whole[i]
        for name in ("dense", "token_ids", "token_weights", "multivector"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 9), data=st.data())
def test_indexing_picks_whole_texts(n: int, data: st.DataObject) -> None:
    whole = random_embeddings(n)
    rows = data.draw(st.lists(st.integers(0, n - 1))) if n else []
    assert_rows(whole[rows], whole, rows)
    a, b = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    assert_rows(whole[a:b], whole, list(range(a, b)))
    assert_rows(Embeddings.concatenate([whole[:a], whole[a:b], whole[b:]]), whole, list(range(n)))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 9), signals=st.sets(st.sampled_from(["dense", "sparse", "multivector"]), min_size=1))
def test_a_saved_batch_reads_back(
    tmp_path_factory: pytest.TempPathFactory, n: int, signals: set[str]
) -> None:
    path = tmp_path_factory.mktemp("e") / "e.safetensors"
    whole = random_embeddings(n).select(*signals)
    whole.save(path)
    again = Embeddings.load(path)
    assert set(again.signals) == signals
    assert_rows(again, whole, list(range(n)))
    Embeddings.save_joined([whole, again, whole], path.with_name("joined"))
    assert_rows(
        Embeddings.load(path.with_name("joined")), Embeddings.concatenate([whole] * 3), list(range(3 * n))
    )


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    whole = random_embeddings(4)
    whole.save(tmp_path / "e.safetensors")
    arrays = load_file(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(arrays["dense"], whole.dense)
    assert {n for n in arrays if n.startswith("sparse")} == {"sparse.indptr", "sparse.ids", "sparse.weights"}


def test_loading_maps_and_does_not_copy(tmp_path: Path) -> None:
    random_embeddings(4).save(tmp_path / "e.safetensors")
    again = Embeddings.load(tmp_path / "e.safetensors")
    assert isinstance(again.dense, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again.dense[0] = 0


def test_sparse_for_other_programs() -> None:
    rows = [
        (np.array([3, 9], np.int32), np.array([0.5, 2.0], np.float32)),
        (np.array([], np.int32), np.array([])),
    ]
    batch = Embeddings(sparse=Sparse.from_rows(rows))
    assert batch.sparse_dicts() == [{3: 0.5, 9: 2.0}, {}]
    assert batch.sparse_tokens({3: "a", 9: "b"}.__getitem__) == [{"a": 0.5, "b": 2.0}, {}]
    with pytest.raises(ValueError, match="no sparse output"):
        Embeddings(np.zeros((1, 2))).sparse_dicts()


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of texts"):
        Embeddings(np.zeros((2, 3)), None, MultiVector(np.array([0, 1]), np.zeros((1, 2))))
    with pytest.raises(ValueError, match="offsets must end at 3"):
        MultiVector(np.array([0, 1]), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="2 token ids but 1 weights"):
        Sparse(np.array([0, 2]), np.array([1, 2]), np.array([1.0]))
    with pytest.raises(ValueError, match="different outputs"):
        Embeddings.concatenate([random_embeddings(1), random_embeddings(1).select("dense")])
    with pytest.raises(ValueError, match=r"unknown outputs \['lexical'\]"):
        random_embeddings(1).select("lexical")
    with pytest.raises(IndexError, match="text 3 of a batch of 2"):
        random_embeddings(2)[3]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    random_embeddings(20).save(path)
    data = path.read_bytes()
    for bad, message in [
        (data[:-10], "cut short"),
        (data[:4], "not a safetensors file, or cut short"),
        (b"\x08" + b"\0" * 7 + b"not json" + data, "header is not JSON"),
    ]:
        path.write_bytes(bad)
        with pytest.raises(TrichromeError, match=rf"e\.safetensors: .*{message}"):
            Embeddings.load(path)


def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("before")

    def fails() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(TypeError, match="complex128"):
        save_arrays(path, {"x": np.zeros(1, complex)})
    assert path.read_text() == "before"
