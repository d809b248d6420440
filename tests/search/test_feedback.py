"""Feedback: queries that their first hits make better, in a search, and revisers on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.search.test_searcher import FixedEncoder
from trichrome.embeddings import Embedding, Embeddings, Sparse
from trichrome.errors import TrichromeError
from trichrome.search import Feedback, Rocchio, Searcher, mode_named
from trichrome.search.feedback import align, heaviest
from trichrome.search.revisers import DenseReviser, LearnedReviser, SparseReviser


def sparse(*rows: dict[int, float]) -> Sparse:
    return Sparse.from_rows(
        [(np.array(sorted(r), np.int32), np.array([r[i] for i in sorted(r)], np.float32)) for r in rows]
    )


def test_rocchio_by_hand() -> None:
    query = Embedding(np.array([1.0, 0.0], np.float32), np.array([3, 9]), np.array([3.0, 4.0]))
    documents = Embeddings(np.array([[0, 1], [1, 0]], np.float32), sparse({3: 2.0}, {5: 0.5, 9: 0.0001}))
    made = Rocchio(1.0, 0.5).revise(query, documents)
    expected = np.array([1.25, 0.25]) / np.hypot(1.25, 0.25)
    np.testing.assert_allclose(made.dense, expected, rtol=1e-5)
    # 5 · (q/5 + 0.5 · (d1/2 + d2/0.5) / 2)
    assert made.token_ids.tolist() == [3, 5, 9]
    np.testing.assert_allclose(made.token_weights, [3 + 1.25, 1.25, 4 + 0.00025], rtol=1e-3)
    same = Rocchio(1.0, 0.0).revise(query, documents)
    np.testing.assert_allclose(same.token_weights[same.token_weights > 1e-6], [3, 4], rtol=1e-6)
    assert Feedback(Rocchio(1.0, 0.5), 3).name == "3 documents, rocchio 1 0.5"
    for wrong in ((-1, 1), (0, 0)):
        with pytest.raises(TrichromeError, match="feedback weights"):
            Rocchio(*wrong)


def test_tokens_are_aligned_and_cut() -> None:
    query = Embedding(None, np.array([4, 7], np.int32), np.array([1, 2], np.float32))
    ids, q, d = align(query, Embeddings(sparse=sparse({7: 3.0}, {}, {1: 4.0, 4: 5.0})))
    assert ids.tolist() == [1, 4, 7]
    assert q.tolist() == [0, 1, 2]
    assert d.tolist() == [[0, 0, 3], [0, 0, 0], [4, 5, 0]]
    kept, weights = heaviest(np.array([1, 4, 7, 9]), np.array([0.5, 0.0, 0.7, 0.5], np.float32), most=2)
    assert (kept.tolist(), weights.tolist()) == ([1, 7], pytest.approx([0.5, 0.7]))


def test_a_search_with_feedback_is_a_search_with_the_revised_query(corpus) -> None:
    searcher = Searcher(FixedEncoder(corpus.queries), corpus.store())
    feedback = Feedback(Rocchio(1.0, 1.0), documents=4)
    for mode in ("dense", "sparse", "dense+sparse", "all"):
        first = searcher.search("3", mode, k=4)
        revised = feedback.reviser.revise(
            corpus.queries[3],
            searcher.store.embeddings(searcher.store.rows_of([hit.id for hit in first])),
        )
        found = searcher.search("3", mode, k=6, feedback=feedback)
        assert found == searcher.search(revised, mode, k=6)
        assert found != searcher.search("3", mode, k=6)
    # filters hold in both searches; what finds nothing revises nothing
    hits = searcher.search("3", "dense", feedback=feedback, where={"lang": "sw"})
    assert {hit.lang for hit in hits} == {"sw"}
    asked = corpus.queries[3]
    assert feedback.revised(searcher.store, asked, mode_named("dense"), {"lang": "xx"}) is asked
    with pytest.raises(TrichromeError, match="at least one document"):
        Feedback(Rocchio(), 0)


def test_the_pages_of_hits_do_not_change_the_feedback(corpus) -> None:
    """k = 1 shows one hit, and still 4 documents are read."""
    searcher = Searcher(FixedEncoder(corpus.queries), corpus.store())
    feedback = Feedback(Rocchio(1.0, 1.0), documents=4)
    (one,) = searcher.search("3", "dense", k=1, feedback=feedback)
    assert one == searcher.search("3", "dense", k=6, feedback=feedback)[0]


def units(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """With weights that training could have left."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return module


def test_without_documents_the_query_stays() -> None:
    q, none = units(3, 8), torch.zeros(3, 5, dtype=torch.bool)
    torch.testing.assert_close(shaken(DenseReviser(8))(q, units(3, 5, 8, seed=1), none), q)
    torch.testing.assert_close(shaken(DenseReviser(8))(q, units(3, 0, 8), none[:, :0]), q)
    weights, documents = torch.rand(3, 9), torch.rand(3, 5, 9)
    torch.testing.assert_close(shaken(SparseReviser())(weights, documents, none), weights)
    torch.testing.assert_close(shaken(SparseReviser())(weights, documents[:, :0], none[:, :0]), weights)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_masked_documents_change_nothing(kind: str) -> None:
    module = shaken(DenseReviser(8) if kind == "dense" else SparseReviser())
    q, d = (
        (units(2, 8), units(2, 5, 8, seed=1)) if kind == "dense" else (torch.rand(2, 8), torch.rand(2, 5, 8))
    )
    mask = torch.tensor([[True, True, False, False, False], [True] * 4 + [False]])
    found = module(q, d, mask)
    other = torch.where(mask[:, :, None], d, d.flip(0) * 2)
    torch.testing.assert_close(module(q, other, mask), found)
    torch.testing.assert_close(module(q[:1], d[:1, :2], mask[:1, :2]), found[:1])
    assert not torch.allclose(module(q, d, torch.ones_like(mask)), found)


def test_sparse_revisions_are_positive_and_within_the_tokens_met() -> None:
    q, d = torch.rand(2, 6), torch.rand(2, 3, 6)
    q[:, 4:] = d[:, :, 5] = 0
    q[:, :2] = 0
    made = shaken(SparseReviser())(q, d, torch.ones(2, 3, dtype=torch.bool))
    assert (made >= 0).all()
    assert (made[:, 5] == 0).all()  # in none of them
    assert (made[:, :2] > 0).all()  # of the documents alone


def test_gradients_against_finite_differences() -> None:
    mask = torch.tensor([[True, True, False]])
    q, d = units(1, 4).double().requires_grad_(), units(1, 3, 4, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, d: shaken(DenseReviser(4)).double()(q, d, mask), (q, d))
    q, d = (torch.rand(*shape, dtype=torch.float64) + 0.1 for shape in ((1, 4), (1, 3, 4)))
    module = shaken(SparseReviser()).double()
    assert torch.autograd.gradcheck(lambda q: module(q, d, mask), (q.requires_grad_(),))


def test_a_reviser_is_saved_and_revises_as_it_was_trained(tmp_path: Path, corpus) -> None:
    dense, sparse_part = shaken(DenseReviser(corpus.queries.dense.shape[1], inner=5)), shaken(SparseReviser())
    reviser = LearnedReviser(dense, sparse_part)
    reviser.save(tmp_path / "r.safetensors")
    again = LearnedReviser.load(tmp_path / "r.safetensors")
    query, documents = corpus.queries[2], corpus.documents[[4, 1, 9]]
    made, other = reviser.revise(query, documents), again.revise(query, documents)
    np.testing.assert_array_equal(made.dense, other.dense)
    np.testing.assert_array_equal(made.token_weights, other.token_weights)
    assert made.multivector is query.multivector
    assert reviser.name == again.name != LearnedReviser(dense).name
    mask = torch.ones(1, 3, dtype=torch.bool)
    by_batch = dense(torch.tensor(query.dense)[None], torch.tensor(documents.dense)[None], mask)[0]
    np.testing.assert_allclose(made.dense, by_batch.detach(), atol=1e-6)
    ids, q, d = align(query, documents)
    by_batch = sparse_part(torch.from_numpy(q)[None], torch.from_numpy(d)[None], mask)[0].detach()
    np.testing.assert_allclose(made.token_weights, by_batch[by_batch > 0], atol=1e-6)
    assert made.token_ids.tolist() == ids[by_batch.numpy() > 0].tolist()

    alone = LearnedReviser(sparse=sparse_part)
    alone.save(tmp_path / "s.safetensors")
    assert LearnedReviser.load(tmp_path / "s.safetensors").revise(query, documents).dense is query.dense
    with pytest.raises(TrichromeError, match="the reviser is for vectors of 7 numbers"):
        LearnedReviser(DenseReviser(7)).revise(query, documents)


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_a_file_that_is_no_reviser_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrichromeError, match="no reviser, or damaged"):
        LearnedReviser.load(path)
    documents = Embeddings(np.eye(2, dtype=np.float32))
    documents.save(path)
    with pytest.raises(TrichromeError, match="it holds something else"):
        LearnedReviser.load(path)
