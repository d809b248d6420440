"""The scores: hand-computed numbers, independence of padding and batch, torch and stored paths agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichrome import blockwise, scoring
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


def plain_multivector(
    q: torch.Tensor, p: torch.Tensor, q_mask: torch.Tensor, p_mask: torch.Tensor
) -> torch.Tensor:
    """All [B, C, Lq, Lp] products at once."""
    products = torch.einsum("bqd,cpd->bcqp", q, p).masked_fill(~p_mask[None, :, None], -torch.inf)
    best = torch.where(q_mask[:, None] & p_mask.any(1)[None, :, None], products.amax(-1), 0)
    return best.sum(-1) / q_mask.sum(1).clamp(min=1)[:, None]


def plain_sparse(
    q_ids: torch.Tensor, q_weights: torch.Tensor, p_ids: torch.Tensor, p_weights: torch.Tensor
) -> torch.Tensor:
    """Through [B, V] and [C, V]."""
    sides = [
        w.new_zeros(len(i), 40).scatter_reduce(1, i, w, "amax")
        for i, w in ((q_ids, q_weights), (p_ids, p_weights))
    ]
    return sides[0] @ sides[1].T


@pytest.mark.parametrize("elements", [1, 60, 1 << 20])
@pytest.mark.parametrize("signal", ["sparse", "multivector"])
def test_blocks_change_neither_scores_nor_gradients(
    signal: str, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "_CPU_ELEMENTS", elements)
    q, p = pad(ragged(1, 4)), pad(ragged(2, 9), extra=2)
    p["mask"][3] = q["mask"][1] = False  # a text without a token
    p["weights"][3] = q["weights"][1] = 0
    q["mask"][:, 0] &= q["mask"].sum(1) == 1  # CLS is no token of its text
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    made = []
    for score in (
        (plain_sparse, scoring.sparse_scores)
        if signal == "sparse"
        else (plain_multivector, scoring.multivector_scores)
    ):
        name = "weights" if signal == "sparse" else "vectors"
        x, y = q[name].clone().requires_grad_(), p[name].clone().requires_grad_()
        inputs = (q["ids"], x, p["ids"], y) if signal == "sparse" else (x, y, q["mask"], p["mask"])
        scores = score(*inputs)
        made.append([scores.detach(), *torch.autograd.grad((scores * weight).sum(), (x, y))])
    positive = [q[name] > 0, p[name] > 0] if signal == "sparse" else [q["mask"], p["mask"]]
    for plain, ours, where in zip(*made, (torch.ones(4, 9).bool(), *positive), strict=True):
        torch.testing.assert_close(ours[where], plain[where])
        assert bool((ours[~where] == 0).all())


def test_equal_weights_share_the_gradient() -> None:
    ids, weights = torch.tensor([[5, 5, 7]]), torch.tensor([[0.5, 0.5, 1.0]], requires_grad=True)
    other = torch.tensor([[2.0]])
    torch.autograd.backward(scoring.sparse_scores(ids, weights, torch.tensor([[5]]), other))
    assert weights.grad is not None
    assert weights.grad.tolist() == [[1, 1, 0]]


def test_an_empty_passage_may_hold_anything() -> None:
    q = torch.ones(1, 2, 3, requires_grad=True)
    p = torch.full((2, 2, 3), torch.nan)
    p[0, 0] = 1
    p.requires_grad_()
    mask = torch.tensor([[True, False], [False, False]])
    scores = scoring.multivector_scores(q, p, torch.ones(1, 2, dtype=torch.bool), mask)
    torch.autograd.backward(scores.sum())
    assert scores.tolist() == [[3, 0]]
    assert q.grad is not None
    assert p.grad is not None
    assert q.grad.tolist() == [[[0.5] * 3] * 2]
    assert p.grad.tolist() == [[[1] * 3, [0] * 3], [[0] * 3] * 2]


@pytest.mark.parametrize("signal", ["sparse", "multivector"])
def test_half_precision_is_summed_in_float32(signal: str) -> None:
    q, p = pad(ragged(1, 4)), pad(ragged(2, 9))
    name = {"sparse": "weights", "multivector": "vectors"}[signal]
    for batch in (q, p):
        batch[name] = batch[name].bfloat16()
    exact = torch_scores(signal, *({**b, name: b[name].double()} for b in (q, p)))
    for batch in (q, p):
        batch[name].requires_grad_()
    scores = torch_scores(signal, q, p)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), exact, atol=1e-5, rtol=0)
    torch.autograd.backward(scores.sum())
    assert q[name].grad is not None
    assert q[name].grad.dtype == torch.bfloat16


@pytest.mark.parametrize("signal", ["sparse", "multivector"])
def test_the_backward_pass_keeps_little(signal: str) -> None:
    """Neither [C, V], nor even [C, shared ids], nor [B, C, Lq, Lp]."""
    texts = 24
    q, p = (
        {
            k: v.repeat(texts, *[1] * (v.dim() - 1))
            for k, v in pad(ragged(s, 1, longest=40, vocabulary=9999)).items()
        }
        for s in (1, 2)
    )
    for batch in (q, p):
        g = torch.Generator().manual_seed(0)  # the same tokens everywhere, so that many are shared
        batch["ids"] = torch.randint(4, 200, batch["ids"].shape, generator=g)
        batch["weights"] = torch.rand(batch["ids"].shape, generator=g).requires_grad_()
        batch["vectors"].requires_grad_()
    kept: list[int] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.nelement())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        torch_scores(signal, q, p)
    places = q["ids"].nelement() * texts  # one for each query token and passage
    inputs = max(b["vectors" if signal == "multivector" else "ids"].nelement() for b in (q, p))
    assert kept
    assert max(kept) <= (inputs if signal == "sparse" else max(inputs, places))


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
