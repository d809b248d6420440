"""What stores refuse, and that a refusal changes nothing: wrong batches, folders, versions, models, a second
process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.children import try_to_open
from tests.index.samples import assert_holds, make_store, names, processes, random_embeddings
from tests.tiny import tiny_encoder
from trichrome.embeddings import MultiVector, Sparse
from trichrome.errors import ModelMismatch, StoreLocked, TrichromeError
from trichrome.index import Store, check_model, create_store, open_store, read_manifest
from trichrome.index.store import LAYOUT_VERSION
from trichrome.search.searcher import Searcher

DOCUMENTS = random_embeddings(10, seed=1)


@pytest.fixture
def store(kind: str, folder: Path) -> Iterator[Store]:
    with make_store(folder / "store", kind) as made:
        yield made


# wrong batches: one clear error, nothing written


def _sparse(ids: list[int], weights: list[float]) -> Sparse:
    return Sparse.from_rows([(np.array(ids, np.int32), np.array(weights, np.float32))] * 2)


TWO = DOCUMENTS[:2]
WRONG: list[tuple[str, Callable[[Store], None]]] = [
    ("'a' is given twice", lambda s: s.add(["a", "a"], TWO, [{}, {}])),
    ("not empty, got ''", lambda s: s.add(["a", ""], TWO, [{}, {}])),
    ("must be a string", lambda s: s.add(["a", 3], TWO, [{}, {}])),  # type: ignore[list-item]
    ("not valid Unicode", lambda s: s.add(["a", "\ud800"], TWO, [{}, {}])),
    ("got 1 ids, 2 embeddings and 1 payloads", lambda s: s.add(["a"], TWO, [{}])),
    ("got 2 ids, 2 embeddings and 1 payloads", lambda s: s.add(["a", "b"], TWO, [{}])),
    ("dense vectors are 8 wide, the store's 16", lambda s: _change(s, dense=np.ones((2, 8), np.float32))),
    ("dense vectors hold a value that is not finite", lambda s: _change(s, dense=np.full((2, 16), np.nan))),
    ("multivector vectors are 5 wide, the store's 8",
     lambda s: _change(s, multivector=MultiVector.from_rows([np.ones((1, 5), np.float32)] * 2))),
    ("the batch brings dense, sparse", lambda s: _change(s, multivector=None)),
    ("must ascend, got 5 before 4", lambda s: _change(s, sparse=_sparse([5, 4], [1, 1]))),
    ("must ascend, got 5 before 5", lambda s: _change(s, sparse=_sparse([5, 5], [1, 1]))),
    ("weights must be positive", lambda s: _change(s, sparse=_sparse([5], [0.0]))),
    ("not negative, got weight 1.0 of token -5", lambda s: _change(s, sparse=_sparse([-5], [1.0]))),
    ("payload.x is a set", lambda s: s.add(["a", "b"], TWO, [{}, {"x": set()}])),  # type: ignore[dict-item]
    ("payload.x = nan is not", lambda s: s.add(["a", "b"], TWO, [{}, {"x": float("nan")}])),
    ("does not fit in 64 bits", lambda s: s.add(["a", "b"], TWO, [{}, {"x": 2**63}])),
    ("key that is not a string", lambda s: s.add(["a", "b"], TWO, [{}, {"x": {1: 2}}])),  # type: ignore[dict-item]
    ("must be a dict", lambda s: s.add(["a", "b"], TWO, [{}, "text"])),  # type: ignore[list-item]
]  # fmt: skip


def _change(store: Store, **outputs: object) -> None:
    store.add(["a", "b"], replace(TWO, **outputs), [{}, {}])  # type: ignore[arg-type]


@pytest.mark.parametrize(("message", "add"), WRONG, ids=[message for message, _ in WRONG])
def test_a_wrong_batch_is_refused_whole(store: Store, message: str, add: Callable[[Store], None]) -> None:
    store.add(["a"], DOCUMENTS[9:10], [{"kept": 1}])
    with pytest.raises(TrichromeError, match=message) as caught:
        add(store)
    assert "\n" not in str(caught.value)
    assert_holds(store, ["a"], DOCUMENTS[9:10], [{"kept": 1}])


# folders


def test_creating_refuses_a_folder_in_use(store: Store, kind: str, folder: Path) -> None:
    with pytest.raises(TrichromeError, match="there is a store already; open it"):
        make_store(folder / "store", kind)
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(TrichromeError, match="it is not empty"):
        make_store(folder / "notes", kind)
    assert [f.name for f in (folder / "notes").iterdir()] == ["mine.txt"]
    (folder / "new" / "deep").mkdir(parents=True)
    make_store(folder / "new" / "deep", kind).close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "sqlite"}, "unknown kind of store 'sqlite'"),
        ({"dense_dim": 0}, "dense_dim must be a positive number"),
        ({"multivector_dim": True}, "multivector_dim must be a positive number"),
        ({"multivector_dtype": "int2"}, r"multivector_dtype of the .* store must be float16 or float32"),
        ({"dense_search": "int4"}, r"dense_search of the .* store must be .*int8"),
        ({"dense_dim": None, "sparse": False}, "needs dense or sparse vectors"),
    ],
)
def test_creating_refuses_a_wrong_shape(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrichromeError, match=message):
        make_store(folder / "store", **{"kind": "exact", **changes})
    assert list(folder.iterdir()) == []


def test_no_folder_no_manifest(folder: Path) -> None:
    with pytest.raises(TrichromeError, match="there is no such folder"):
        open_store(folder / "nowhere")
    with pytest.raises(TrichromeError, match="not a store"):
        open_store(folder)
    assert list(folder.iterdir()) == []


def test_the_manifest_says_what_the_store_was_built_with(kind: str, folder: Path) -> None:
    settings = {"max_tokens": 128, "название": ["a", None]}
    with make_store(folder / "store", kind, settings=settings, multivector_dtype="float32") as store:
        manifest = store.manifest
    assert manifest.settings == settings
    assert (manifest.kind, manifest.multivector_dtype, manifest.version) == (kind, "float32", LAYOUT_VERSION)
    assert read_manifest(folder / "store") == manifest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "the manifest is damaged"),
        (lambda text: text[: len(text) // 2], "the manifest is damaged"),
        (lambda text: "[]", "the manifest is damaged"),
        (lambda text: text.replace('"fingerprint"', '"print"'), "missing or unknown: fingerprint, print"),
        (lambda text: text.replace('"sparse": true', '"sparse": 1'), "sparse must be true or false"),
        (lambda text: text.replace('"version": 1', '"version": 0'), "layout version 0.*index the doc"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "layout version 2.*upgrade trichrome"),
    ],
)  # fmt: skip
def test_damaged_or_foreign_manifests(
    store: Store, folder: Path, damage: Callable[[str], str], message: str
) -> None:
    store.add(names(10), DOCUMENTS, [{}] * 10)
    store.close()
    file = folder / "store" / "manifest.json"
    whole = file.read_text()
    file.write_text(damage(whole))
    with pytest.raises(TrichromeError, match=message) as caught:
        open_store(folder / "store")
    assert str(file) in str(caught.value)
    file.write_text(whole)
    with open_store(folder / "store") as again:  # the refusal left no lock and no damage
        assert_holds(again, names(10), DOCUMENTS, [{}] * 10)


def test_damaged_data_is_an_error(store: Store, folder: Path) -> None:
    store.add(names(10), DOCUMENTS, [{}] * 10)
    store.close()
    for file in (folder / "store").rglob("*"):
        if file.is_file() and file.name not in ("manifest.json", "lock"):
            file.write_bytes(file.read_bytes()[:11])
    with pytest.raises(TrichromeError, match="damaged"):
        open_store(folder / "store")


def test_missing_data_is_an_error(store: Store, kind: str, folder: Path) -> None:
    store.close()
    data = folder / "store" / {"exact": "commit.json", "embedded": "shard"}[kind]
    data.rename(folder / "elsewhere")
    with pytest.raises(TrichromeError, match="damaged"):
        open_store(folder / "store")
    (folder / "elsewhere").rename(data)
    open_store(folder / "store").close()


def test_a_killed_creation_leaves_nothing_that_matters(kind: str, folder: Path) -> None:
    (folder / ".store.creating-abc" / "shard").mkdir(parents=True)
    (folder / ".store.creating-abc" / "shard" / "half").write_text("half")
    make_store(folder / "store", kind).close()
    assert [f.name for f in folder.iterdir()] == ["store"]


# locks


def test_a_store_opens_once(store: Store, folder: Path) -> None:
    with pytest.raises(StoreLocked, match="open elsewhere"):
        open_store(folder / "store")


def test_a_second_process_is_refused_until_the_first_closes(store: Store, folder: Path) -> None:
    store.add(names(10), DOCUMENTS, [{}] * 10)
    with processes().Pool(1) as pool:
        name, message = pool.apply(try_to_open, (str(folder / "store"),))
        assert name == "StoreLocked"
        assert "open elsewhere" in message
        store.close()
        assert pool.apply(try_to_open, (str(folder / "store"),)) == ("", "10")


# models


def test_another_models_query_is_refused(kind: str, folder: Path) -> None:
    encoder, other = tiny_encoder(), tiny_encoder(name="other", multivector_dim=None)
    assert encoder.fingerprint != other.fingerprint
    shape = {"dense_dim": 32, "sparse": True, "multivector_dim": 32}
    with create_store(
        folder / "store", kind=kind, model="tiny", fingerprint=encoder.fingerprint, **shape
    ) as store:
        check_model(store.manifest, encoder.fingerprint, "tiny")
        Searcher(encoder, store)
        with pytest.raises(ModelMismatch, match=r"built with model 'tiny' .*, not 'other'"):
            Searcher(other, store)
        with pytest.raises(ModelMismatch, match="the same name but other weights or settings"):
            check_model(store.manifest, other.fingerprint, "tiny")
