"""Split-batch gives the loss and every gradient of the full batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_config, tiny_encoder
from trichrome.encoder import Encoder
from trichrome.encoder.batching import collate
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.tokenizer import Tokens
from trichrome.errors import TrichromeError
from trichrome.training.batch import TrainingBatch
from trichrome.training.encoded import Encoded, concatenate, encode, score_matrices
from trichrome.training.losses.unified import unified
from trichrome.training.split_batch import split_batch_backward, sub_batches
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


def loss_of(target: Target, queries: Encoded, passages: Encoded) -> Tensor:
    return unified(score_matrices(queries, passages), target)["total"]


def whole(
    encoder: Encoder, batch: TrainingBatch, signals: tuple[str, ...]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one pass over all queries and one over all passages."""
    q, p = (
        encode(encoder.network, collate(t, encoder.config.pad_id), signals)
        for t in (batch.queries, batch.passages)
    )
    loss = loss_of(batch.target, q, p)
    torch.autograd.backward(loss)
    return loss, gradients(encoder)


@pytest.mark.parametrize("signals", [ALL, ("dense",), ("sparse", "multivector")])
@pytest.mark.parametrize("budget", [1, 40, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradients_equal_the_full_batch(
    signals: tuple[str, ...], budget: int, dtype: torch.dtype
) -> None:
    encoder = trainable(dtype=dtype)
    batch = training_batch(encoder)
    loss, expected = whole(encoder, batch, signals)
    assert all(g.norm() > 0 for n, g in expected.items() if "sparse" not in n or "sparse" in signals)

    parts = [sub_batches(t, budget, encoder.config.pad_id) for t in (batch.queries, batch.passages)]
    assert (len({b.ids.shape[1] for b in parts[1]}) > 1) == (budget < 1000)
    split = split_batch_backward(encoder.network, *parts, lambda q, p: loss_of(batch.target, q, p), signals)
    assert abs(loss.item() - split.item()) <= 1e-5 * abs(loss.item())
    assert_same(expected, gradients(encoder))


def test_dropout_is_the_same_in_both_passes() -> None:
    """With one graph of the same sub-batches, drawn from the same state, as the reference."""
    encoder = trainable(dropout=0.2)
    batch = training_batch(encoder)
    parts = [sub_batches(t, 40, encoder.config.pad_id) for t in (batch.queries, batch.passages)]
    torch.manual_seed(7)
    q, p = (concatenate([encode(encoder.network, b, ALL) for b in side]) for side in parts)
    drawn = torch.rand(3)
    loss = loss_of(batch.target, q, p)
    torch.autograd.backward(loss)
    expected = gradients(encoder)

    torch.manual_seed(7)
    split = split_batch_backward(encoder.network, *parts, lambda q, p: loss_of(batch.target, q, p), ALL)
    assert torch.equal(torch.rand(3), drawn)  # the second passes leave the generator where the first did
    torch.testing.assert_close(split, loss.detach())
    assert_same(expected, gradients(encoder))
    torch.manual_seed(8)
    other = split_batch_backward(encoder.network, *parts, lambda q, p: loss_of(batch.target, q, p), ALL)
    assert abs(other.item() - loss.item()) > 1e-3 * loss.item()


@pytest.mark.parametrize("budget", [40, 1000])
def test_gradients_add_up_scaled(budget: int) -> None:
    """As under gradient accumulation, with a `backward` that scales too."""
    encoder = trainable()
    batch = training_batch(encoder)
    loss, expected = whole(encoder, batch, ALL)
    parts = [sub_batches(t, budget, encoder.config.pad_id) for t in (batch.queries, batch.passages)]
    for _ in range(2):
        split = split_batch_backward(
            encoder.network,
            *parts,
            lambda q, p: loss_of(batch.target, q, p),
            ALL,
            scale=0.25,
            backward=lambda value: torch.autograd.backward(3 * value),
        )
    torch.testing.assert_close(split, loss.detach())  # what is returned is not scaled
    assert_same({n: 1.5 * g for n, g in expected.items()}, gradients(encoder))


@pytest.mark.parametrize("budget", [40, 1000])
def test_a_frozen_base_and_an_output_that_the_loss_leaves_out(budget: int) -> None:
    encoder = trainable()
    encoder.network.backbone.requires_grad_(False)
    batch = training_batch(encoder)
    parts = [sub_batches(t, budget, encoder.config.pad_id) for t in (batch.queries, batch.passages)]

    def sparse_alone(q: Encoded, p: Encoded) -> Tensor:
        return unified({"sparse": score_matrices(q, p)["sparse"]}, batch.target)["total"]

    split_batch_backward(encoder.network, *parts, sparse_alone, ALL)
    found = {n: g for n, g in gradients(encoder).items() if g.norm() > 0}
    assert set(found) == {"heads.sparse.weight", "heads.sparse.bias"}


def test_only_one_sub_batch_has_a_graph_at_a_time() -> None:
    """What autograd keeps at any time does not grow with the number of sub-batches."""
    encoder = trainable()
    batch = training_batch(encoder)
    alive = peak = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal alive, peak
            self.tensor = tensor
            alive += tensor.nelement()
            peak = max(peak, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.tensor.nelement()

    def kept(passages: int, budget: int) -> int:
        nonlocal alive, peak
        alive = peak = 0
        target = Target(
            batch.target.positive[:1].repeat(1, passages // 8), batch.target.mask[:1].repeat(1, passages // 8)
        )
        parts = [
            sub_batches(t, budget, encoder.config.pad_id)
            for t in (batch.queries[:1], batch.passages * (passages // 8))
        ]
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda x: x.tensor):
            split_batch_backward(encoder.network, *parts, lambda q, p: loss_of(target, q, p), ("dense",))
        return peak

    assert kept(64, 40) <= 1.2 * kept(16, 40)
    assert kept(64, 10_000) > 3 * kept(16, 10_000)


def test_a_missing_head_is_named() -> None:
    config = tiny_config(sparse=False)
    network = Network(Backbone(config.backbone), Heads(config, 32))  # type: ignore[arg-type]
    with pytest.raises(TrichromeError, match="no head for sparse"):
        encode(network, collate(training_batch(tiny_encoder()).queries, 1), ALL)


def test_sub_batches_keep_order_and_budget() -> None:
    texts = [Tokens([0] * n, [True] * n, 0) for n in (5, 3, 9, 2, 2, 2, 12)]
    made = [list(b.ids.shape) for b in sub_batches(texts, 10, 1)]
    assert made == [[2, 5], [1, 9], [3, 2], [1, 12]]


@pytest.mark.parametrize("budget", [40, 1000])
def test_embedding_tables_are_left_as_they_were(budget: int) -> None:
    """Also by a loss that fails: lookups dense again, earlier gradients kept."""
    encoder = trainable()
    batch = training_batch(encoder)
    parts = [sub_batches(t, budget, encoder.config.pad_id) for t in (batch.queries, batch.passages)]
    table = encoder.network.get_submodule("backbone.word")
    assert isinstance(table, torch.nn.Embedding)
    split_batch_backward(encoder.network, *parts, lambda q, p: loss_of(batch.target, q, p), ALL)
    before = table.weight.grad
    assert before is not None
    assert before.layout == torch.strided
    before = before.clone()

    def failing(q: Encoded, p: Encoded) -> Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        split_batch_backward(encoder.network, *parts, failing, ALL)
    assert not table.sparse
    assert table.weight.grad is not None
    assert torch.equal(table.weight.grad, before)
