"""Losses on hand-computed numbers; the M3 objective against its equations in float64 NumPy."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trichrome.errors import TrichromeError
from trichrome.evaluation.auc import auc
from trichrome.training.losses import flops, infonce, kl, listwise_kl, mann_whitney, margin_mse, unified
from trichrome.training.target import Target

NAN = float("nan")


def target(positive: list[list[int]], mask: list[list[int]] | None = None, teacher: object = None) -> Target:
    yes = torch.tensor(positive).bool()
    counts = torch.ones_like(yes) if mask is None else torch.tensor(mask).bool()
    return Target(yes, counts, None if teacher is None else torch.tensor(teacher, dtype=torch.float64))


def value(made: Tensor) -> float:
    assert made.shape == ()
    return made.item()


# InfoNCE


def test_infonce_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.4, 0.0]], dtype=torch.float64)
    rows = [
        -log(exp(2) / (exp(2) + exp(0) + exp(1))),
        -log(exp(0.8) / (exp(0.4) + exp(0.8) + exp(0))),
    ]
    made = infonce(scores, target([[1, 0, 0], [0, 1, 0]]), temperature=0.5)
    assert value(made) == pytest.approx(sum(rows) / 2)
    masked = infonce(scores, target([[1, 0, 0], [0, 1, 0]], [[1, 0, 1], [1, 1, 1]]), temperature=0.5)
    assert value(masked) == pytest.approx((-log(exp(2) / (exp(2) + exp(1))) + rows[1]) / 2)


def test_mann_whitney_by_hand() -> None:
    """Two positives, 1.0 and 0.4; the negatives 0, 0.5, 0.2; the last score of row 2 does not count."""
    scores = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.4, 9.0]], dtype=torch.float64)
    marked = target([[1, 0, 0], [0, 1, 0]], [[1, 1, 1], [1, 1, 0]])
    pairs = [log(1 + exp((n - p) / 0.5)) for p in (1.0, 0.4) for n in (0.0, 0.5, 0.2)]
    assert value(mann_whitney(scores, marked, temperature=0.5)) == pytest.approx(sum(pairs) / 6)
    alone = torch.tensor([[1.0]], dtype=torch.float64)
    assert value(mann_whitney(alone, target([[1]]))) == 0


def test_mann_whitney_bounds_the_area_over_the_curve() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 30, generator=draw, dtype=torch.float64)
    marked = target(torch.eye(20, 30).int().tolist())
    own, others = scores[marked.positive].numpy(), scores[~marked.positive].numpy()
    over = 1 - auc(own, others)
    assert 0 < over <= value(mann_whitney(scores, marked, temperature=0.01)) / log(2)


def test_several_positives() -> None:
    scores = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    two = target([[1, 1, 0]])
    each = [-log(exp(1) / (exp(1) + exp(-1))), -log(exp(0) / (exp(0) + exp(-1)))]
    assert value(infonce(scores, two, temperature=1)) == pytest.approx(sum(each) / 2)
    joint = -log((exp(1) + exp(0)) / (exp(1) + exp(0) + exp(-1)))
    assert value(infonce(scores, two, temperature=1, positives="joint")) == pytest.approx(joint)


def test_both_directions() -> None:
    # the third passage is a hard negative: it looks for no query, and is no candidate of the first two
    scores = torch.tensor([[1.0, 0.0, 3.0], [0.5, 2.0, 0.0]], dtype=torch.float64)
    labels = target([[1, 0, 0], [0, 1, 0]])
    there = value(infonce(scores, labels, temperature=1))
    back = (-log(exp(1) / (exp(1) + exp(0.5))) - log(exp(2) / (exp(2) + exp(0)))) / 2
    assert value(infonce(scores, labels, temperature=1, both_directions=True)) == pytest.approx(
        (there + back) / 2
    )


def test_no_negative_gives_no_loss_and_no_nan() -> None:
    scores = torch.tensor([[0.3, 0.1], [0.2, 0.9]], requires_grad=True)
    made = infonce(scores, target([[1, 0], [0, 1]], [[1, 0], [1, 1]]))
    torch.autograd.backward(made)
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [0, 0]
    assert bool(scores.grad[1].isfinite().all())
    assert value(infonce(scores[:1], target([[1, 0]], [[1, 0]]))) == 0


def test_half_precision_scores_are_divided_in_float32() -> None:
    scores = torch.tensor([[0.75, 0.5]], dtype=torch.bfloat16)
    made = infonce(scores, target([[1, 0]]), temperature=0.02)
    assert made.dtype == torch.float32
    assert value(made) == pytest.approx(log(1 + exp(-0.25 / 0.02)), rel=1e-4)


# teachers


def test_listwise_kl_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.0, 9.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    labels = target([[1, 0, 0], [0, 0, 1]], teacher=[[log(3), 0.0, NAN], [NAN, NAN, 1.0]])
    student = exp(1) / (exp(1) + exp(0))  # at temperature 0.5, the third passage has no teacher's score
    expected = 0.75 * log(0.75 / student) + 0.25 * log(0.25 / (1 - student))
    assert value(listwise_kl(scores, labels, temperature=0.5)) == pytest.approx(expected)
    # over all passages that count, the third takes probability away
    everything = exp(1) + exp(0) + exp(18)
    expected = 0.75 * log(0.75 * everything / exp(1)) + 0.25 * log(0.25 * everything / exp(0))
    assert value(kl(scores, labels, temperature=0.5)) == pytest.approx(expected)
    flat = target([[1, 0, 0]], teacher=[[2 * log(3), 0.0, NAN]])
    assert value(listwise_kl(scores[:1], flat, temperature=0.5, teacher_temperature=2)) == pytest.approx(
        value(listwise_kl(scores[:1], target([[1, 0, 0]], teacher=[[log(3), 0.0, NAN]]), temperature=0.5))
    )


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    scores = torch.tensor([[0.5, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    same = target([[1, 0, 0]], teacher=(scores.detach() / 0.02).tolist())
    made = listwise_kl(scores, same) + kl(scores, same) + margin_mse(scores, same, scale=50)
    torch.autograd.backward(made)
    assert scores.grad is not None
    assert value(made) == pytest.approx(0, abs=1e-12)
    assert scores.grad.abs().max() < 1e-9


def test_margin_mse_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.4, 0.1, 7.0]], dtype=torch.float64)
    labels = target([[1, 0, 0, 0]], teacher=[[5.0, 4.0, 1.0, NAN]])
    # student's margins, times 10, are 5 and 8, the teacher's 1 and 4
    assert value(margin_mse(scores, labels, scale=10)) == pytest.approx(((5 - 1) ** 2 + (8 - 4) ** 2) / 2)
    two = target([[1, 1, 0, 0]], teacher=[[5.0, 4.0, 1.0, NAN]])
    assert value(margin_mse(scores, two, scale=10)) == pytest.approx(((8 - 4) ** 2 + (3 - 3) ** 2) / 2)
    masked = target([[1, 0, 0, 0]], [[1, 0, 1, 1]], teacher=[[5.0, 4.0, 1.0, NAN]])
    assert value(margin_mse(scores, masked, scale=10)) == pytest.approx((8 - 4) ** 2)


@pytest.mark.parametrize("loss", [kl, listwise_kl, margin_mse])
def test_without_a_teacher(loss: object) -> None:
    assert callable(loss)
    scores = torch.ones(1, 2, requires_grad=True)
    alone = target([[1, 0]], teacher=[[1.0, NAN]])
    made = loss(scores, alone)
    torch.autograd.backward(made)  # nothing to learn, and still a step that DDP can wait for
    assert value(made) == 0
    with pytest.raises(TrichromeError, match="trichrome score"):
        loss(scores, target([[1, 0]]))


# FLOPS


def test_flops_by_hand() -> None:
    ids = torch.tensor([[7, 9, 7], [9, 8, 1]])
    weights = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]], requires_grad=True)
    made = flops(ids, weights)  # token 7: (3 + 0)/2, token 9: (2 + 4)/2
    torch.autograd.backward(made)
    assert value(made) == pytest.approx(1.5**2 + 3**2)
    assert weights.grad is not None
    assert weights.grad[0].tolist() == [0, 3, 1.5]  # 2 · mean / N, to the largest alone


# the M3 objective


def m3_objective(scores: dict[str, NDArray[np.float64]], positive: NDArray[np.int64]) -> dict[str, float]:
    """arXiv 2402.03216 v4, section 3.3, one positive a query, written from the equations."""
    tau, w, lam = (
        0.02,
        {"dense": 1, "sparse": 0.3, "multivector": 1},
        {"dense": 1, "sparse": 0.1, "multivector": 1},
    )
    s = {name: x / tau for name, x in scores.items()}
    s["inter"] = w["dense"] * s["dense"] + w["sparse"] * s["sparse"] + w["multivector"] * s["multivector"]

    def log_p(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    rows = np.arange(len(positive))
    out = {name: float(np.mean(-log_p(x)[rows, positive])) for name, x in s.items()}
    teacher = np.exp(log_p(s["inter"]))
    for name in lam:
        out[f"distil_{name}"] = float(np.mean(np.sum(-teacher * log_p(s[name]), axis=1)))
    first = (sum(lam[n] * out[n] for n in lam) + out["inter"]) / 4
    second = sum(lam[n] * out[f"distil_{n}"] for n in lam) / 3
    return {**out, "total": (first + second) / 2}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_unified_is_the_papers_objective(dtype: torch.dtype) -> None:
    draw = np.random.default_rng(0)
    b, c = 5, 20
    raw = {
        "dense": draw.uniform(0.3, 0.9, (b, c)),
        "sparse": draw.gamma(1.0, 0.1, (b, c)),
        "multivector": draw.uniform(0.4, 0.8, (b, c)),
    }
    where = np.arange(0, c, c // b)
    positive = torch.zeros(b, c, dtype=torch.bool)
    positive[torch.arange(b), torch.from_numpy(where)] = True
    made = unified(
        {n: torch.from_numpy(x).to(dtype) for n, x in raw.items()},
        Target(positive, torch.ones_like(positive)),
    )
    expected = m3_objective(raw, where)
    assert set(made) == set(expected)
    for name, wanted in expected.items():
        assert value(made[name]) == pytest.approx(wanted, rel=1e-10 if dtype == torch.float64 else 1e-4), name


def test_unified_teaches_the_heads_and_not_the_teacher() -> None:
    """L' reaches a signal only through its own softmax: its gradient is (softmax(s_*) − teacher) · λ."""
    torch.manual_seed(0)
    scores = {n: torch.rand(3, 6, dtype=torch.float64).requires_grad_() for n in ("dense", "sparse")}
    labels = target([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    made = unified(scores, labels, temperature=0.1)
    (found,) = torch.autograd.grad(made["distil_sparse"], scores["sparse"])
    teacher = ((scores["dense"] + 0.3 * scores["sparse"]) / 0.1).softmax(1)
    student = (scores["sparse"] / 0.1).softmax(1)
    torch.testing.assert_close(found, ((student - teacher) / 0.1 / 3).detach())
    assert torch.autograd.grad(made["distil_sparse"], scores["dense"], allow_unused=True) == (None,)


def test_unified_with_masks_equals_the_columns_left_out() -> None:
    torch.manual_seed(0)
    scores = {n: torch.rand(2, 4, dtype=torch.float64) for n in ("dense", "sparse", "multivector")}
    left_out = unified(
        {n: x[:, :3] for n, x in scores.items()}, target([[1, 0, 0], [0, 1, 0]]), temperature=0.3
    )
    masked = unified(
        scores, target([[1, 0, 0, 0], [0, 1, 0, 0]], [[1, 1, 1, 0], [1, 1, 1, 0]]), temperature=0.3
    )
    for name, wanted in left_out.items():
        assert value(masked[name]) == pytest.approx(value(wanted)), name


def test_unified_with_fewer_signals_and_weights() -> None:
    torch.manual_seed(0)
    scores = {n: torch.rand(2, 4, dtype=torch.float64) for n in ("dense", "multivector")}
    labels = target([[1, 0, 0, 0], [0, 1, 0, 0]])
    made = unified(scores, labels, temperature=0.5, mix=(0.2, 9, 0.7), weights=(3, 9, 5), distil=False)
    assert set(made) == {"dense", "multivector", "inter", "total"}
    inter = infonce(0.2 * scores["dense"] + 0.7 * scores["multivector"], labels, temperature=0.5)
    assert value(made["inter"]) == pytest.approx(value(inter))
    total = (3 * made["dense"] + 5 * made["multivector"] + inter) / 3
    assert value(made["total"]) == pytest.approx(value(total))
    taught = unified(scores, labels, temperature=0.5, distil_weights=(2, 9, 4))
    first = (taught["dense"] + taught["multivector"] + taught["inter"]) / 3
    second = (2 * taught["distil_dense"] + 4 * taught["distil_multivector"]) / 2
    assert value(taught["total"]) == pytest.approx(value((first + second) / 2))
    alone = unified({"dense": scores["dense"]}, labels, temperature=0.5)
    assert value(alone["total"]) == pytest.approx(value(infonce(scores["dense"], labels, temperature=0.5)))
    with pytest.raises(ValueError, match="dense, sparse, multivector"):
        unified({"colbert": scores["dense"]}, labels)
