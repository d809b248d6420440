"""The scores: hand-computed numbers, independence of padding and batch, torch and stored paths agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichrome import scoring
from trichrome.embeddings import Embeddings, MultiVector, Sparse

PAD = 1


def ragged(
    seed: int, n: int, dim: int = 8, longest: int = 7, vocabulary: int = 30
) -> list[dict[str, torch.Tensor]]:
    """Texts as the encoder sees them before padding: token ids, weights (possibly 0), token vectors."""
    g = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(n):
        length = int(torch.randint(1, longest + 1, (), generator=g))
        texts.append(
            {
                "ids": torch.randint(4, vocabulary, (length,), generator=g),
                "weights": torch.rand(length, generator=g).sub(0.2).clamp(min=0),
                "vectors": torch.nn.functional.normalize(torch.randn(length, dim, generator=g), dim=-1),
                "dense": torch.nn.functional.normalize(torch.randn(dim, generator=g), dim=-1),
            }
        )
    return texts


def pad(texts: list[dict[str, torch.Tensor]], extra: int = 0) -> dict[str, torch.Tensor]:
    """[B, L + extra] padded tensors; the vectors at padding are garbage on purpose."""
    length = max(len(t["ids"]) for t in texts) + extra
    dim = texts[0]["vectors"].shape[1]
    out = {
        "ids": torch.full((len(texts), length), PAD),
        "weights": torch.zeros(len(texts), length),
        "vectors": torch.full((len(texts), length, dim), 9.0),
        "mask": torch.zeros(len(texts), length, dtype=torch.bool),
        "dense": torch.stack([t["dense"] for t in texts]),
    }
    for i, t in enumerate(texts):
        n = len(t["ids"])
        out["ids"][i, :n], out["weights"][i, :n], out["vectors"][i, :n] = t["ids"], t["weights"], t["vectors"]
        out["mask"][i, :n] = True
    return out


def stored(texts: list[dict[str, torch.Tensor]]) -> Embeddings:
    rows = []
    for t in texts:
        best: dict[int, float] = {}
        for i, w in zip(t["ids"].tolist(), t["weights"].tolist(), strict=True):
            if w > 0:
                best[i] = max(w, best.get(i, 0))
        ids = sorted(best)
        rows.append((np.array(ids, np.int32), np.array([best[i] for i in ids], np.float32)))
    return Embeddings(
        torch.stack([t["dense"] for t in texts]).numpy(),
        Sparse.from_rows(rows),
        MultiVector.from_rows([t["vectors"].numpy() for t in texts]),
    )


def torch_scores(signal: str, q: dict[str, torch.Tensor], p: dict[str, torch.Tensor]) -> torch.Tensor:
    if signal == "dense":
        return scoring.dense_scores(q["dense"], p["dense"])
    if signal == "sparse":
        return scoring.sparse_scores(q["ids"], q["weights"], p["ids"], p["weights"])
    return scoring.multivector_scores(q["vectors"], p["vectors"], q["mask"], p["mask"])


def torch_pairs(signal: str, q: dict[str, torch.Tensor], p: dict[str, torch.Tensor]) -> torch.Tensor:
    if signal == "dense":
        return scoring.dense_pair_scores(q["dense"], p["dense"])
    if signal == "sparse":
        return scoring.sparse_pair_scores(q["ids"], q["weights"], p["ids"], p["weights"])
    return scoring.multivector_pair_scores(q["vectors"], p["vectors"], q["mask"], p["mask"])


def test_sparse_by_hand() -> None:
    # query {5: .5 (of .2 and .5), 7: .3}, passage {5: 2, 9: 1} → .5·2
    q_ids, q_w = torch.tensor([[5, 5, 7]]), torch.tensor([[0.2, 0.5, 0.3]])
    p_ids, p_w = torch.tensor([[9, 5]]), torch.tensor([[1.0, 2.0]])
    assert scoring.sparse_scores(q_ids, q_w, p_ids, p_w).item() == pytest.approx(1.0)
    assert scoring.sparse_scores(q_ids, q_w, torch.tensor([[8, 6]]), p_w).item() == 0


def test_multivector_by_hand() -> None:
    q = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    p = torch.tensor([[[0.6, 0.8], [-1.0, 0.0]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert scoring.multivector_scores(q, p, mask, mask).item() == pytest.approx((0.6 + 0.8) / 2)


def test_a_negative_maximum_stays_negative_under_padding() -> None:
    """The defect of an unmasked MaxSim: padding (zero vectors) lifts a negative score to 0."""
    q, p = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    q_mask, p_mask = torch.tensor([[True]]), torch.tensor([[True, False]])
    assert scoring.multivector_scores(q, p, q_mask, p_mask).item() == -1.0
    unmasked = torch.einsum("bqd,cpd->bcqp", q, p).amax(-1).mean(-1).item()
    assert unmasked == 0.0


def test_no_token_scores_zero() -> None:
    q, p = torch.ones(1, 1, 2), torch.ones(1, 1, 2)
    yes, no = torch.tensor([[True]]), torch.tensor([[False]])
    assert scoring.multivector_scores(q, p, no, yes).item() == 0
    assert scoring.multivector_scores(q, p, yes, no).item() == 0


@pytest.mark.parametrize("signal", ["dense", "sparse", "multivector"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), extra=st.integers(0, 5))
def test_padding_batch_and_path_do_not_matter(signal: str, seed: int, extra: int) -> None:
    queries, passages = ragged(seed, 3), ragged(seed + 1, 5)
    together = torch_scores(signal, pad(queries), pad(passages))
    padded = torch_scores(signal, pad(queries, extra), pad(passages, 2 * extra))
    torch.testing.assert_close(padded, together, atol=1e-6, rtol=0)
    for i, query in enumerate(queries):
        for j, passage in enumerate(passages):
            alone = torch_scores(signal, pad([query]), pad([passage]))
            torch.testing.assert_close(alone[0, 0], together[i, j], atol=1e-6, rtol=0)
    np.testing.assert_allclose(scoring.score(signal, stored(queries), stored(passages)), together, atol=1e-5)

    pairs = torch_pairs(signal, pad(queries, extra), pad(passages[:3]))
    torch.testing.assert_close(pairs, together.diagonal(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(
        scoring.score_pairs(signal, stored(queries), stored(passages[:3])), pairs, atol=1e-5
    )


@pytest.mark.parametrize("signal", ["dense", "sparse", "multivector"])
def test_gradients_flow_and_are_right(signal: str) -> None:
    q, p = pad(ragged(3, 2)), pad(ragged(4, 3))
    for batch in (q, p):
        for name in ("weights", "vectors", "dense"):
            batch[name] = batch[name].double().requires_grad_()

    names = {"dense": "dense", "sparse": "weights", "multivector": "vectors"}[signal]

    def total(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch_scores(signal, {**q, names: x}, {**p, names: y})

    if signal == "sparse":  # zero weights sit on the kink of the maximum with 0: move them off it
        for batch in (q, p):
            batch["weights"] = (batch["weights"].detach() + 0.1 * batch["mask"]).requires_grad_()
            batch["weights"] = (batch["weights"] + torch.arange(batch["weights"].shape[1]) * 1e-3).detach()
            batch["weights"].requires_grad_()
    assert torch.autograd.gradcheck(total, (q[names], p[names]))


def test_weighted() -> None:
    scores = {"dense": np.array([1.0]), "sparse": np.array([2.0]), "multivector": np.array([3.0])}
    assert scoring.weighted(scores)[0] == pytest.approx(1 + 0.6 + 3)
    assert scoring.weighted(scores, normalise=True)[0] == pytest.approx(4.6 / 2.3)
    assert scoring.weighted({"dense": 1.0, "sparse": 2.0}, (0.2, 0.8, 0.0)) == pytest.approx(1.8)
    with pytest.raises(ValueError, match="no score"):
        scoring.weighted({})


def test_blocks_do_not_change_stored_multivector_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, passages = stored(ragged(1, 2)), stored(ragged(2, 20))
    whole = scoring.score("multivector", queries, passages)
    monkeypatch.setattr(scoring, "_MAXSIM_ELEMENTS", 16)
    np.testing.assert_allclose(scoring.score("multivector", queries, passages), whole, atol=1e-6)


def test_missing_output_is_named() -> None:
    with pytest.raises(ValueError, match="no sparse output"):
        scoring.score("sparse", Embeddings(np.eye(2)), Embeddings(np.eye(2)))
