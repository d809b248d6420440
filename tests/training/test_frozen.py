"""An index as training sees it: what it finds, its scores, and which documents answer which query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import tiny_encoder
from trichrome import Document
from trichrome.embeddings import Embeddings, Sparse
from trichrome.errors import TrichromeError
from trichrome.index import create_store, create_store_for, index_documents
from trichrome.records import TrainingExample
from trichrome.training import frozen
from trichrome.training.frozen import FrozenIndex, ReadDocuments, answered, read_index


def test_the_index_finds_and_scores_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((50, 8)).astype(np.float32)
    asked = torch.from_numpy(draw.standard_normal((3, 8)).astype(np.float32)).requires_grad_()
    index = FrozenIndex(vectors)
    products = asked.detach().numpy() @ vectors.T
    for block in (1 << 16, 7):  # at once, and in parts
        monkeypatch.setattr(frozen, "_SCORED", block)
        np.testing.assert_array_equal(index.nearest(asked, 9).numpy(), np.argsort(-products, 1)[:, :9])
        assert index.nearest(asked, 99).shape == (3, 50)
    rows = torch.from_numpy(draw.integers(0, 50, (3, 5)))
    scores = index(asked, rows)
    np.testing.assert_allclose(scores.detach(), np.take_along_axis(products, rows.numpy(), 1), atol=1e-5)
    scores.sum().backward()
    assert asked.grad is not None
    np.testing.assert_allclose(asked.grad, vectors[rows.numpy()].sum(1), atol=1e-5)
    assert not list(index.parameters())


def test_answers_are_known_by_id_or_text_and_shared_by_equal_queries(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    documents = [Document(f"d{i}", f"the old cat sings {i}", title="moon" * (i % 2)) for i in range(10)]
    with create_store_for(encoder, tmp_path / "index", kind="exact") as store:
        index_documents(store, encoder, documents)
        read = read_index(store)
        ids = ["d3", "d7"]
        stored = store.embeddings(store.rows_of(ids)).dense
    assert stored is not None
    np.testing.assert_array_equal(read.vectors[[read.by_id[id] for id in ids]], stored)
    examples = [
        TrainingExample("one", ("elsewhere",), positive_ids=("d3",)),
        TrainingExample("two", (documents[9].content.upper(),)),
        TrainingExample(" ONE", ("elsewhere",), positive_ids=("d7",)),
        TrainingExample("three", ("elsewhere",), positive_ids=("no such document",)),
    ]
    answers = read.answers(examples)
    both = sorted([read.by_id["d3"], read.by_id["d7"]])
    assert [a.tolist() for a in answers] == [both, [read.by_id["d9"]], both, []]
    assert answered(answers, True, "index") == 3
    with pytest.raises(TrichromeError, match=r"index: 1 of 4 rows .* skip_bad"):
        answered(answers, False, "index")
    with pytest.raises(TrichromeError, match="1 of 1 rows"):
        answered(answers[3:], True, "index")


def test_a_store_without_dense_vectors_or_documents_is_refused(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"model": "m", "fingerprint": "f" * 64, "sparse": True, "multivector_dim": None}
    empty = create_store(tmp_path / "empty", kind="exact", dense_dim=8, **shape)
    with empty, pytest.raises(TrichromeError, match="no documents"):
        read_index(empty)
    with create_store(tmp_path / "sparse", kind="exact", dense_dim=None, **shape) as store:
        weights = Sparse.from_rows([(np.array([7], np.int32), np.array([1.0], np.float32))])
        store.add(["a"], Embeddings(None, weights), [{"text": "moon"}])
        with pytest.raises(TrichromeError, match="no dense vectors"):
            read_index(store)


def test_read_index_counts_a_text_that_is_there_twice() -> None:
    read = ReadDocuments({"a": 0, "b": 1, "c": 2}, {hash("same"): [0, 2]})
    assert read.answers([TrainingExample("q", ("Same",))])[0].tolist() == [0, 2]
