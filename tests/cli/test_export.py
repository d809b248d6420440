"""export, and what it makes as the model of an index that keeps its vectors in fewer bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.tiny import tiny_encoder
from trichrome.encoder import save
from trichrome.index import read_manifest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(tiny_encoder(), folder)
    return folder


def test_an_exported_model_fills_and_searches_an_index(
    run: Command, model: Path, documents: Path, tmp_path: Path
) -> None:
    made = run("export", model, tmp_path / "int8", "--precision", "int8", "--json")
    assert made.code == 0, made.err
    report = made.json()
    assert report["precision"] == "int8"
    assert 0.9 < report["dense"] < 1
    store = f"{tmp_path}/store"
    compressed = ("--kind", "exact", "--dense-search", "binary", "--multivector-dtype", "int4",
                  "--sparse-search", "seismic")  # fmt: skip
    filled = run("index", documents, "--to", store, "--model", tmp_path / "int8", *compressed, "--json")
    assert filled.code == 0, filled.err
    manifest = read_manifest(store)
    assert (manifest.dense_search, manifest.multivector_dtype) == ("binary", "int4")
    assert manifest.sparse_search == "seismic"
    assert manifest.settings["dtype"] == "int8"
    again = run("index", documents, "--to", store, "--json")  # by the model and the settings that are kept
    assert again.json()["unchanged"] == filled.json()["stored"]
    hits = run("search", store, "password", "--json")
    assert hits.code == 0, hits.err
    other = run("index", documents, "--to", store, "--multivector-dtype", "int8")
    assert other.code == 1
    assert "made with multivector_dtype int4, not int8" in other.err


def test_what_cannot_be_exported_or_kept_is_one_line(
    run: Command, model: Path, documents: Path, tmp_path: Path
) -> None:
    assert "give --precision int8 with it" in run("export", model, tmp_path / "x", "--leave-out", "down").err
    assert run("export", model, tmp_path / "fp32").code == 0
    assert "exists already" in run("export", model, tmp_path / "fp32").err
    assert "load the model that it was made from" in run("export", tmp_path / "fp32", tmp_path / "y").err
    embedded = ("--model", model, "--kind", "embedded", "--multivector-dtype", "int4")
    refused = run("index", documents, "--to", f"{tmp_path}/store", *embedded)
    assert refused.code == 1
    assert "must be float16 or float32, not 'int4'" in " ".join(refused.err.split())
