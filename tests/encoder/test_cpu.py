"""The packed network gives the plain one's numbers, follows its weights, and is used where it can be."""

import pytest
import torch

from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder.batching import collate
from trichrome.encoder.cpu import Packing, filled, pack, packable


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_equals_plain(dtype: str) -> None:
    encoder = tiny_encoder().to(dtype=dtype)
    assert packable(encoder.network)
    batch = collate(encoder.tokenizer.encode(TEXTS, "passage"), 1)
    with torch.inference_mode():
        plain, packed = encoder.network(batch), pack(encoder.network)(batch)
    tolerance = 1e-5 if dtype == "float32" else 5e-2
    torch.testing.assert_close(packed.dense, plain.dense, atol=tolerance, rtol=0)
    torch.testing.assert_close(packed.sparse_weights, plain.sparse_weights, atol=10 * tolerance, rtol=0)
    real = batch.scored
    torch.testing.assert_close(packed.vectors[real], plain.vectors[real], atol=2 * tolerance, rtol=0)


def test_changed_weights_are_packed_anew() -> None:
    encoder = tiny_encoder()
    before = encoder.encode(["the moon"]).dense
    packing = Packing()
    first = packing.of(encoder.network)
    assert packing.of(encoder.network) is first
    with torch.no_grad():  # as an optimiser does
        encoder.network.backbone.layers[0].up.weight.add_(0.5)
    assert packing.of(encoder.network) is not first
    after = encoder.encode(["the moon"]).dense
    assert abs(after - before).max() > 1e-3


def test_training_goes_through_the_plain_network() -> None:
    encoder = tiny_encoder()
    encoder.encode(["the moon"])
    batch = collate(encoder.tokenizer.encode(["the moon"], "query"), 1)
    encoder.network(batch).dense.sum().backward()
    assert encoder.network.backbone.layers[0].qkv.weight.grad is not None
    assert not packable(tiny_encoder().to(dtype="float16").network)


def test_short_batches_are_filled_up_little_and_long_ones_to_few_sizes() -> None:
    sizes = [filled(rows) for rows in range(1, 4097)]
    assert all(0 <= size - rows < max(16, rows // 2) for rows, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 60  # each costs a compilation
