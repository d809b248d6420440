"""Shards into stores, with nothing encoded; and the commands from a corpus to an index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.cluster.small import some_documents, write_encoded, write_files
from trichrome.cli.main import app
from trichrome.cluster import create_store_of, load_encoded, read_shard
from trichrome.embeddings import Embeddings
from trichrome.errors import ModelMismatch, TrichromeError
from trichrome.formats.flagembedding import read_examples
from trichrome.index import create_store, open_store


@pytest.mark.parametrize("kind", ["exact", "embedded"])
def test_a_store_holds_what_the_shards_hold(tmp_path: Path, kind: str) -> None:
    corpus = write_encoded(tmp_path / "encoded", some_documents(50), 3)
    chunks = [chunk for path in corpus.paths for chunk in read_shard(path)]
    ids = [id for chunk in chunks for id in chunk.ids]
    with create_store_of(corpus, tmp_path / "store", kind=kind) as store:
        told: list[int] = []
        report = load_encoded(store, corpus, batch=4, progress=lambda now: told.append(now.stored))
        assert (report.added, report.skipped, told[-1]) == (50, 0, 50)
        assert store.manifest.settings == {
            "model": "words", "dtype": "float32", "passage_tokens": 100, "overlap": 0,
        }  # fmt: skip
        rows = store.rows_of(ids)
        assert store.payloads(rows) == [payload for chunk in chunks for payload in chunk.payloads]
        wanted = Embeddings.concatenate([chunk.embeddings for chunk in chunks])
        for stored, brought in zip(store.embeddings(rows), wanted, strict=True):
            np.testing.assert_allclose(stored.dense, brought.dense, atol=1e-3)
            np.testing.assert_array_equal(stored.token_ids, brought.token_ids)
            np.testing.assert_allclose(stored.token_weights, brought.token_weights, rtol=1e-6)
            np.testing.assert_allclose(stored.multivector, brought.multivector, atol=1e-3)
        store.delete(ids[10:13])
        report = load_encoded(store, corpus)
        assert (report.added, report.updated, report.skipped) == (3, 0, 47)


def test_a_store_of_another_model_or_other_outputs_is_refused(tmp_path: Path) -> None:
    corpus = write_encoded(tmp_path / "encoded", some_documents(5), 1)
    encoding = corpus.encoding
    for name, fingerprint, sparse, error in (
        ("a", "0" * 64, True, ModelMismatch),
        ("b", encoding.fingerprint, False, TrichromeError),
    ):
        with (
            create_store(
                tmp_path / name, model="words", fingerprint=fingerprint, dense_dim=16, sparse=sparse,
                multivector_dim=16, kind="exact",
            ) as store,
            pytest.raises(error),
        ):  # fmt: skip
            load_encoded(store, corpus)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


@pytest.mark.usefixtures("ray")
def test_from_a_corpus_to_an_index_and_to_negatives(tmp_path: Path, model: Path) -> None:
    files, encoded, index = (
        write_files(tmp_path / "files", 3, 9, words=30),
        tmp_path / "encoded",
        tmp_path / "i",
    )
    options = ("--model", model, "--dtype", "float32", "--passage-tokens", 20)
    command = ("cluster", "encode", files, encoded, *options, "--actors", 2)
    first = json.loads(run(*command, "--json"))
    assert (first["shards"], first["encoded"], first["documents"], first["failed"]) == (3, 3, 27, 0)
    assert first["passages"] > 27
    shown = run(*command)
    assert "0 encoded, 3 were finished" in shown
    assert "another model or" not in shown
    assert "passage_tokens 20, not 12" in run(*command, "--passage-tokens", 12, code=1)
    assert json.loads(run("cluster", "check", encoded, "--json"))["passages"] == first["passages"]

    loaded = json.loads(run("index", encoded, "--to", index, "--kind", "exact", "--json"))
    assert (loaded["added"], loaded["stored"]) == (first["passages"], first["passages"])
    # a plain run over the documents finds all of it done
    again = json.loads(run("index", files, "--to", index, "--json"))
    assert (again["unchanged"], again["added"], again["updated"]) == (first["passages"], 0, 0)
    assert "encoded already" in run("index", encoded, "--to", index, "--prune", code=1)
    with open_store(index) as store:
        assert store.count() == first["passages"]

    rows = tmp_path / "rows.jsonl"
    text = some_documents(1)[0].content
    rows.write_text(json.dumps({"query": "where is the moon", "pos": [text], "neg": []}) + "\n")
    mined = run(
        "cluster", "mine", rows, "--out", tmp_path / "mined.jsonl", "--encoded", encoded,
        "--source", "dense:20", "--judge", "none", "--draw", "top", "-n", 5, "--dtype", "float32", "--json",
    )  # fmt: skip
    assert json.loads(mined)["mined.jsonl"]["drawn"] == 5
    assert len(next(iter(read_examples(tmp_path / "mined.jsonl"))).negatives) == 5
