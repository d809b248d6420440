"""Training against codes: scores as search sees them, gradients to both sides, and centroids that go back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.index.test_pq import correlated
from trichrome.index.pq import ProductQuantiser, train_quantiser
from trichrome.training import coded
from trichrome.training.coded import CodedIndex, with_answers
from trichrome.training.losses import lambda_rank

DIM, DOCUMENTS = 20, correlated(1500, 20)


@pytest.fixture(scope="module")
def quantiser() -> ProductQuantiser:
    return train_quantiser(DOCUMENTS, 3)


def test_scores_and_ranks_are_those_of_search(
    quantiser: ProductQuantiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, queries = quantiser.encode(DOCUMENTS), correlated(5, DIM, seed=1)
    index = CodedIndex(quantiser, codes)
    scores = np.empty((5, 1500), np.float32)
    for query, out in zip(queries, scores, strict=True):
        quantiser.scores(query, codes, out)
    rows = np.random.default_rng(0).integers(0, 1500, (5, 30))
    found = index(torch.from_numpy(queries), torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(found, np.take_along_axis(scores, rows, 1), atol=1e-5)
    for block in (1 << 15, 400):  # at once, and in parts
        monkeypatch.setattr(coded, "_BLOCK", block)
        best = index.nearest(torch.from_numpy(queries), 50).numpy()
        of_best = np.take_along_axis(scores, best, 1)
        np.testing.assert_allclose(of_best, -np.sort(-scores, 1)[:, :50], atol=1e-5)
    assert index.nearest(torch.from_numpy(queries), 9999).shape == (5, 1500)


def test_gradients_against_finite_differences(quantiser: ProductQuantiser) -> None:
    index = CodedIndex(quantiser, quantiser.encode(DOCUMENTS[:40])).double()
    queries = torch.from_numpy(correlated(2, DIM, seed=1)).double().requires_grad_()
    rows = torch.arange(12).view(2, 6)
    few = index.centroids.detach()[:, :4].clone().requires_grad_()

    def scores(q: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
        centroids = torch.cat([some, index.centroids.detach()[:, 4:]], 1)
        return torch.func.functional_call(index, {"centroids": centroids}, (q, rows))

    assert torch.autograd.gradcheck(scores, (queries, few))


def test_missing_answers_are_put_at_the_end() -> None:
    found = torch.tensor([[3, 1, 2], [0, 5, 4]])
    rows, target = with_answers(found, [np.array([1]), np.array([7, 5, 9])])
    assert rows[:, :3].tolist() == found.tolist()
    assert rows[1, 3:].tolist() == [7, 9]
    assert target.mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert target.positive.tolist() == [[False, True, False, False, False], [False, True, False, True, True]]
    rows, target = with_answers(found, [np.array([3]), np.array([0])])
    assert rows.shape == (2, 3)
    with pytest.raises(ValueError, match="positive"):
        with_answers(found, [np.array([3]), np.array([], np.int64)])
    # the row that fills up, 0, is no answer even where 0 answers the query
    rows, target = with_answers(torch.tensor([[0, 1], [2, 3]]), [np.array([0]), np.array([4, 5])])
    assert target.positive[0].tolist() == [True, False, False, False]


def test_centroids_learn_and_codes_stay(quantiser: ProductQuantiser) -> None:
    """Queries whose answers are not the nearest by the codes: training the centroids alone raises them."""
    codes = quantiser.encode(DOCUMENTS)
    index = CodedIndex(quantiser, codes)
    queries = torch.from_numpy(correlated(64, DIM, seed=1))
    answers = [np.array([row]) for row in (queries.numpy() @ DOCUMENTS.T).argmax(1)]

    def first() -> float:
        best = index.nearest(queries, 1)[:, 0].numpy()
        return float(np.mean([b in own for b, own in zip(best, answers, strict=True)]))

    before = first()
    optimiser = torch.optim.Adam(index.parameters(), lr=3e-3)
    for _ in range(40):
        rows, target = with_answers(index.nearest(queries, 100), answers)
        loss = lambda_rank(index(queries, rows), target, temperature=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert first() > before + 0.15
    trained = index.quantiser()
    np.testing.assert_array_equal(trained.rotation, quantiser.rotation)
    np.testing.assert_array_equal(index.codes.numpy(), codes)
    assert not np.array_equal(trained.centroids, quantiser.centroids)
    assert not torch.from_numpy(trained.centroids).requires_grad
