"""Split-batch gives the loss and every gradient of the full batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_encoder
from trichrome.encoder import Encoder
from trichrome.encoder.batching import collate
from trichrome.training.batch import TrainingBatch
from trichrome.training.encoded import Encoded, encode, score_matrices
from trichrome.training.losses.unified import unified
from trichrome.training.split_batch import longest_first, split_batch_backward, sub_batches
from trichrome.training.target import Target

ALL = ("dense", "sparse", "multivector")
QUERIES = ["what is a moon?", "cat", "the old green bird sings", "where is the river?"]
PASSAGES = [
    "the moon is a light over the river",
    "the sun",
    "a cat is a small dog " * 4,
    "dog",
    "the bird sings under the old green moon",
    "old river",
    "the river is under the moon, over the old dog " * 2,
    "a",
]


def training_batch(encoder: Encoder) -> TrainingBatch:
    """Four queries, a positive and a negative each; one false negative is masked."""
    positive = torch.zeros(4, 8, dtype=torch.bool)
    positive[torch.arange(4), 2 * torch.arange(4)] = True
    mask = torch.ones_like(positive)
    mask[1, 3] = False
    return TrainingBatch(
        encoder.tokenizer.encode(QUERIES, "query"),
        encoder.tokenizer.encode(PASSAGES, "passage"),
        Target(positive, mask),
        "tiny",
        [0, 1, 2, 3],
    )


def gradients(encoder: Encoder) -> dict[str, Tensor]:
    made = {n: p.grad.clone() for n, p in encoder.network.named_parameters() if p.grad is not None}
    encoder.network.zero_grad()
    return made


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert set(left) == set(right)
    for name, expected in left.items():
        assert (right[name] - expected).norm() <= 1e-5 * expected.norm(), name


def trainable(dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> Encoder:
    """The tiny encoder, its sparse head lifted so that some tokens have weights."""
    encoder = tiny_encoder()
    network = encoder.network.to(dtype).requires_grad_(True).train(dropout > 0)
    assert isinstance(network.heads.sparse, torch.nn.Linear)
    network.heads.sparse.bias.data += 1.5
    for module in network.modules():
        if hasattr(module, "p"):
            module.p = dropout
    return encoder


def whole_and_split(
    encoder: Encoder, signals: tuple[str, ...], budget: int, sort: bool
) -> tuple[Tensor, dict[str, Tensor], Tensor, dict[str, Tensor]]:
    batch = training_batch(encoder)
    pad = encoder.config.pad_id

    def loss_of(target: Target, q: Encoded, p: Encoded) -> Tensor:
        return unified(score_matrices(q, p), target)["total"]

    q, p = (encode(encoder.network, collate(t, pad), signals) for t in (batch.queries, batch.passages))
    whole = loss_of(batch.target, q, p)
    torch.autograd.backward(whole)
    expected = gradients(encoder)

    batch = longest_first(batch) if sort else batch
    parts = [sub_batches(t, budget, pad) for t in (batch.queries, batch.passages)]
    assert len({b.ids.shape[1] for b in parts[1]}) > 1
    split = split_batch_backward(encoder.network, *parts, lambda q, p: loss_of(batch.target, q, p), signals)
    return whole, expected, split, gradients(encoder)


@pytest.mark.parametrize("signals", [ALL, ("dense",), ("sparse", "multivector")])
@pytest.mark.parametrize(("budget", "sort"), [(1, False), (40, False), (40, True)])
def test_loss_and_gradients_equal_the_full_batch(signals: tuple[str, ...], budget: int, sort: bool) -> None:
    whole, expected, split, found = whole_and_split(trainable(), signals, budget, sort)
    assert abs(whole.item() - split.item()) <= 1e-5 * abs(whole.item())
    assert all(g.norm() > 0 for n, g in expected.items() if "sparse" not in n or "sparse" in signals)
    assert_same(expected, found)
