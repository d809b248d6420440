"""The comparative loss: by hand, its gradient, and its limits; InfoNCE of each query alone."""

from __future__ import annotations

import pytest
import torch

from trichrome.training.losses.comparative import comparative
from trichrome.training.losses.infonce import infonce, infonce_each
from trichrome.training.target import Target


def test_by_hand() -> None:
    """Pairs (less, more) of the first query: 1→3 costs 2, 1→2 costs 1, 3→2 nothing; the second falls."""
    losses = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 3.0]])
    assert comparative(losses).item() == pytest.approx((2 + 1 + 0 + 0 + 0 + 0) / 6)


def test_limits() -> None:
    assert comparative(torch.tensor([[1.0], [2.0]])).item() == 0  # a single revision
    assert comparative(torch.tensor([[3.0, 2.0, 2.0]])).item() == 0  # never worse
    half = comparative(torch.tensor([[1.0, 1.5]], dtype=torch.bfloat16))
    assert half.dtype == torch.float32


def test_gradient_lowers_the_later_loss_and_raises_the_earlier() -> None:
    losses = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    comparative(losses).backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [[-0.5, 0.5], [0, 0]]
    away = torch.tensor([[1.0, 2.0, 0.5], [2.0, 1.0, 4.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(comparative, (away,))


def test_infonce_of_each_query_is_infonce_of_it_alone() -> None:
    scores = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    positive = torch.zeros(3, 7, dtype=torch.bool)
    positive[0, 1] = positive[1, 2] = positive[1, 3] = positive[2, 0] = True
    mask = torch.ones_like(positive)
    mask[2, 4] = False
    each = infonce_each(scores, Target(positive, mask), temperature=0.5)
    for i, value in enumerate(each):
        alone = Target(positive[i : i + 1], mask[i : i + 1])
        assert value.item() == pytest.approx(infonce(scores[i : i + 1], alone, temperature=0.5).item())
    assert each.mean().item() == pytest.approx(
        infonce(scores, Target(positive, mask), temperature=0.5).item()
    )
