"""Batch sizes by trial: the most rows that fit, less a margin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import tiny_encoder
from trichrome.encoder.heads import Network
from trichrome.errors import TrichromeError
from trichrome.training.batches import BatchSettings
from trichrome.training.recipe import Recipe
from trichrome.training.sizes import groups_up_to, kept_sizes, measured_sizes, network_trial, with_sizes


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


def test_sizes_are_measured_once_and_then_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "sizes.json"
    assert kept_sizes(path, lambda: {64: 9, 128: 4}) == {64: 9, 128: 4}
    assert kept_sizes(path, lambda: {64: 1}) == {64: 9, 128: 4}
    path.write_text("[]")
    with pytest.raises(TrichromeError, match=r"sizes\.json: not measured batch sizes; delete it"):
        kept_sizes(path, lambda: {64: 1})


def test_a_recipe_takes_measured_sizes_for_every_process(tmp_path: Path) -> None:
    batches = BatchSettings(group_size=3, passage_tokens=100, groups=(64, 128, 500))
    recipe = Recipe("small", ("x.jsonl",), tmp_path, batches=batches, measure_sizes=True)
    assert groups_up_to(recipe) == (64, 128)
    made = with_sizes(recipe, {64: 50, 128: 20}, processes=4)
    assert made.batches.sizes == {64: 200, 128: 80}
    assert made.sub_batch_tokens == 50 * 3 * 64  # the largest batch of a process, in one pass
    assert made.batches.rows_of(30, 60, 3) == 200
    with pytest.raises(TrichromeError, match="not even one row with 3 passages of 128 tokens fits"):
        with_sizes(recipe, {64: 50}, processes=1)
    with pytest.raises(TrichromeError, match="given, or measured: not both"):
        replace(recipe, batches=replace(batches, sizes={64: 2}))
