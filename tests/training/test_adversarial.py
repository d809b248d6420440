"""The adversarial loss: by hand, with a ranker that is sure, against finite differences, in the limits."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from trichrome.errors import TrichromeError
from trichrome.training.losses import adversarial, infonce
from trichrome.training.target import Target

NAN = float("nan")


def target(positive: list[list[int]], teacher: list[list[float]] | None) -> Target:
    yes = torch.tensor(positive).bool()
    known = None if teacher is None else torch.tensor(teacher, dtype=torch.float64)
    return Target(yes, torch.ones_like(yes), known)


def surely(positive: float, other: float) -> float:
    """At the teacher's temperature 2."""
    return -log(1 + exp((other - positive) / 2))


def test_by_hand() -> None:
    """The ranker scores the positive 3, the others 1 and 4; the last passage it does not know."""
    scores = torch.tensor([[0.5, 0.2, 0.8, 9.0]], dtype=torch.float64)
    made = adversarial(
        scores, target([[1, 0, 0, 0]], [[3, 1, 4, NAN]]), temperature=0.5, teacher_temperature=2
    )
    whole = sum(exp(s / 0.5) for s in (0.5, 0.2, 0.8))
    logs = [s / 0.5 - log(whole) for s in (0.5, 0.2, 0.8)]
    weights = [-log(2), surely(3, 1), surely(3, 4)]
    assert made.item() == pytest.approx(sum(w * p for w, p in zip(weights, logs, strict=True)))


def test_the_best_of_several_positives_is_what_the_ranker_holds_against() -> None:
    scores = torch.tensor([[0.5, 0.2, 0.8]], dtype=torch.float64)
    two = adversarial(scores, target([[1, 1, 0]], [[1, 3, 2]]), temperature=1)
    logs = scores.log_softmax(1)[0].tolist()
    weights = [-log(1 + exp(t - 3)) for t in (1, 3, 2)]
    assert two.item() == pytest.approx(sum(w * p for w, p in zip(weights, logs, strict=True)))


def test_a_ranker_that_is_sure_leaves_infonce() -> None:
    """Only the positive has a weight, log 2."""
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    positive = torch.eye(4, 6).int().tolist()
    sure = (1000 * torch.eye(4, 6)).tolist()
    made = adversarial(scores, target(positive, sure), temperature=0.3)
    assert made.item() == pytest.approx(
        log(2) * infonce(scores, target(positive, None), temperature=0.3).item()
    )


def test_what_the_ranker_takes_for_better_gains_probability() -> None:
    """A step down the gradient raises the negative that it puts above the positive and lowers the other."""
    scores = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(adversarial(scores, target([[1, 0, 0]], [[0, 5, -5]]), temperature=1))
    assert scores.grad is not None
    assert scores.grad[0, 1] < 0 < scores.grad[0, 2]


def test_gradients_are_those_of_finite_differences() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, generator=draw, dtype=torch.float64).requires_grad_()
    known = [[1.0, 2.0, NAN, 0.5], [0.1, 0.2, 0.3, 0.4], [NAN, 1.0, 2.0, 3.0]]
    marked = target([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], known)  # of the third the positive is unknown
    assert torch.autograd.gradcheck(lambda s: adversarial(s, marked, temperature=0.7), scores)


def test_limits() -> None:
    scores = torch.ones(1, 3, requires_grad=True)
    for known in ([[NAN, 1.0, 2.0]], [[1.0, NAN, NAN]]):  # no positive, or nothing else, has a score
        made = adversarial(scores, target([[1, 0, 0]], known))
        torch.autograd.backward(made)
        assert made.item() == 0
    far = torch.tensor([[-1e4, 1e4]], dtype=torch.bfloat16, requires_grad=True)
    made = adversarial(far, target([[1, 0]], [[-1e3, 1e3]]))
    torch.autograd.backward(made)
    assert made.isfinite()
    assert far.grad is not None
    assert far.grad.isfinite().all()
    with pytest.raises(TrichromeError, match="trichrome score"):
        adversarial(scores, target([[1, 0, 0]], None))
