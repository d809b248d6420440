"""Batch sizes by trial: the most rows that fit, less a margin."""

from __future__ import annotations

import pytest

from tests.tiny import tiny_encoder
from trichrome.encoder.heads import Network
from trichrome.training.sizes import measured_sizes, network_trial


def test_the_most_that_fits_is_found() -> None:
    tried: list[tuple[int, int]] = []

    def trial(rows: int, tokens: int) -> None:
        tried.append((rows, tokens))
        if rows * tokens > 100_000:
            raise MemoryError

    sizes = measured_sizes(trial, (64, 512, 8192, 200_000), margin=1.0)
    assert set(sizes) == {64, 512, 8192}
    for tokens, rows in sizes.items():
        assert rows * tokens <= 100_000
        assert rows + max(1, rows // 16) >= 100_000 // tokens
    assert len(tried) < 60
    assert measured_sizes(trial, (64,), most=5, margin=1.0) == {64: 5}
    assert measured_sizes(trial, (8192,), margin=0.5) == {8192: 6}


def test_nothing_that_fits_is_an_error() -> None:
    def trial(rows: int, tokens: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError, match="not even one row of 64 tokens"):
        measured_sizes(trial, (64, 128))


def test_the_trial_runs_a_network_and_leaves_no_gradient() -> None:
    network: Network = tiny_encoder().network
    trial = network_trial(network, 2, 8, 30, ("dense", "sparse", "multivector"))
    assert measured_sizes(trial, (8, 16), most=2, margin=1.0) == {8: 2, 16: 2}
    assert all(p.grad is None for p in network.parameters())
