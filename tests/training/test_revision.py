"""Training of query revisers: the loss by hand, scores as search sees them, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trichrome.embeddings import Embeddings, Sparse
from trichrome.errors import TrichromeError
from trichrome.scoring import score
from trichrome.search.revisers import LearnedReviser
from trichrome.training.losses.comparative import comparative
from trichrome.training.losses.infonce import infonce_each
from trichrome.training.revision import DensePool, Settings, SparsePool, loss, train_reviser
from trichrome.training.target import Target

TOPICS, EACH, DIM = 30, 6, 16


def world(seed: int = 0) -> tuple[Embeddings, Embeddings, list[np.ndarray]]:
    """Queries that lie near one document of their topic; all documents of the topic answer them. Documents
    of a topic share tokens, of which a query has but one."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((TOPICS, DIM))
    documents = np.repeat(centres, EACH, 0) + 0.8 * draw.standard_normal((TOPICS * EACH, DIM))
    queries = centres + 1.2 * draw.standard_normal((TOPICS, DIM))
    dense = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (queries, documents)]
    rows = {"queries": [], "documents": []}
    for topic in range(TOPICS):
        words = np.sort(1000 + 10 * topic + draw.permutation(10)[:5])
        rows["queries"].append((words[:1].astype(np.int32), np.ones(1, np.float32)))
        for _ in range(EACH):
            some = np.sort(np.concatenate([draw.permutation(words)[:3], draw.permutation(400)[:4]]))
            rows["documents"].append((some.astype(np.int32), draw.uniform(0.5, 1, 7).astype(np.float32)))
    answers = [np.arange(EACH * t, EACH * t + EACH) for t in range(TOPICS)]
    made = [Embeddings(d, Sparse.from_rows(rows[n])) for d, n in zip(dense, rows, strict=True)]
    return made[0], made[1], answers


QUERIES, DOCUMENTS, ANSWERS = world()


def pool(signal: str) -> DensePool | SparsePool:
    found = np.argsort(-score(signal, QUERIES, DOCUMENTS), axis=1, kind="stable")[:, :8]
    if signal == "dense":
        return DensePool(QUERIES.dense, DOCUMENTS.dense, found, 5)
    return SparsePool(QUERIES.sparse, DOCUMENTS.sparse, found, 5)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    scores = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))
    answers = [np.array([0]), np.array([1, 2]), np.array([0, 4])]
    positive = torch.zeros(3, 6, dtype=torch.bool)
    for i, own in enumerate(answers):
        positive[i, own] = True
    target = Target(positive, torch.ones_like(positive))
    each = torch.stack([infonce_each(scores[:, r], target, temperature=0.5) for r in range(2)], 1)
    plain = loss(scores, answers, Settings(temperature=0.5, query_loss=0, comparative=0))
    assert plain.item() == pytest.approx(each.mean().item())
    compared = loss(scores, answers, Settings(temperature=0.5, query_loss=0, comparative=2))
    assert compared.item() == pytest.approx((each.mean() + 2 * comparative(each)).item())
    # of queries: document 0 answers the first and the last, so neither counts against the other
    whole = loss(scores, answers, Settings(temperature=0.5, query_loss=1, comparative=0))
    of_queries = []
    for r in range(2):
        s = scores[:, r] / 0.5
        for q, (column, others) in enumerate([(0, [1]), (1, [0, 2]), (0, [1])]):
            logits = s[[q, *others], column]
            of_queries.append(-logits.log_softmax(0)[0])
    assert whole.item() == pytest.approx((each.mean() + torch.stack(of_queries).mean()).item(), rel=1e-5)


@pytest.mark.parametrize("signal", ["dense", "sparse"])
def test_scores_are_those_of_the_revised_query_in_a_search(signal: str) -> None:
    made = pool(signal)
    module = made.reviser()
    reviser = LearnedReviser(module, None) if signal == "dense" else LearnedReviser(None, module)
    rows, counts = np.array([3, 7, 11]), torch.tensor([0, 2, 5])
    found = made.scores(module, rows, counts).detach().numpy()
    for i, (row, count) in enumerate(zip(rows, counts.tolist(), strict=True)):
        feedback = DOCUMENTS[np.asarray(made.found)[row, :count]]
        revised = reviser.revise(QUERIES[int(row)], feedback)
        one = Embeddings(revised.dense[None], Sparse.from_rows([(revised.token_ids, revised.token_weights)]))
        wanted = score(signal, one, DOCUMENTS)[0]
        if isinstance(made, SparsePool):
            lengths = [np.linalg.norm(DOCUMENTS.sparse.row(n)[1]) for n in range(len(DOCUMENTS))]
            assert made.length == pytest.approx(np.mean(lengths), rel=1e-5)
            wanted = wanted / (made.length * np.linalg.norm(QUERIES.sparse.row(int(row))[1]))
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)


def recall(made: DensePool | SparsePool, module: torch.nn.Module, count: int) -> float:
    with torch.inference_mode():
        scores = made.scores(module, np.arange(TOPICS), torch.full((TOPICS,), count)).numpy()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :EACH]
    return float(np.mean([np.isin(row, own).mean() for row, own in zip(best, ANSWERS, strict=True)]))


@pytest.mark.parametrize("signal", ["dense", "sparse"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_reviser_learns_and_training_is_repeatable(signal: str, weight: float) -> None:
    made = pool(signal)
    settings = Settings(steps=60, rows=20, rate=5e-3, comparative=weight)
    trained, again = (train_reviser(made, ANSWERS, settings) for _ in range(2))
    for a, b in zip(trained.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    untrained = made.reviser()
    assert recall(made, trained, 5) > recall(made, untrained, 0) + 0.05
    assert recall(made, trained, 5) > recall(made, untrained, 5)
    assert recall(made, trained, 0) == recall(made, untrained, 0)


def test_settings_without_sense_are_refused() -> None:
    for wrong in ({"steps": 0}, {"compare": 0}, {"temperature": 0.0}, {"comparative": -1.0}):
        with pytest.raises(TrichromeError, match="must be"):
            Settings(**wrong)
    with pytest.raises(TrichromeError, match="7 revisions need more than 5 documents"):
        train_reviser(pool("dense"), ANSWERS, Settings(compare=6))


@pytest.mark.parametrize("signal", ["dense", "sparse"])
def test_the_gradient_is_the_slope(signal: str) -> None:
    """Along one direction of the reviser's weights, against a difference of two losses."""
    made, rows, counts = pool(signal), np.arange(8), torch.full((8,), 3)
    reviser = made.reviser(seed=1)
    draw = torch.Generator().manual_seed(0)
    wanted = torch.rand(8, len(DOCUMENTS), generator=draw)

    def value() -> torch.Tensor:
        return (made.scores(reviser, rows, counts) * wanted).sum()

    value().backward()
    way = [torch.randn(p.shape, generator=draw) for p in reviser.parameters()]
    slope = sum(
        float((p.grad * w).sum())
        for p, w in zip(reviser.parameters(), way, strict=True)
        if p.grad is not None
    )
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            for p, w in zip(reviser.parameters(), way, strict=True):
                p += sign * 5e-3 * w
            ends.append(float(value()))
            for p, w in zip(reviser.parameters(), way, strict=True):
                p -= sign * 5e-3 * w
    assert slope != 0
    assert (ends[0] - ends[1]) / 1e-2 == pytest.approx(slope, rel=0.02)
