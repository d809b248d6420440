"""Points between two models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_encoder
from trichrome.encoder import load, save
from trichrome.errors import TrichromeError
from trichrome.training.interpolate import interpolate, main


def test_the_ends_are_the_models_and_the_middle_is_their_mean() -> None:
    def pair() -> tuple:
        start, end = tiny_encoder(), tiny_encoder()
        with torch.no_grad():
            for parameter in end.network.parameters():
                parameter += 1
        return start, end

    before = {n: p.clone() for n, p in tiny_encoder().network.named_parameters()}
    for share in (0.0, 0.5, 1.0):
        made = interpolate(*pair(), share)
        for name, parameter in made.network.named_parameters():
            assert torch.allclose(parameter, before[name] + share, atol=1e-5)
    assert interpolate(*pair(), 0.0).fingerprint == tiny_encoder().fingerprint


def test_other_shapes_and_shares_are_refused() -> None:
    with pytest.raises(TrichromeError, match="different shapes"):
        interpolate(tiny_encoder(), tiny_encoder(multivector_dim=None), 0.5)
    with pytest.raises(TrichromeError, match="between 0 and 1"):
        interpolate(tiny_encoder(), tiny_encoder(), 1.5)


def test_the_command_writes_a_model(tmp_path: Path) -> None:
    save(tiny_encoder(), tmp_path / "start")
    moved = tiny_encoder()
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter += 1
    save(moved, tmp_path / "end")
    main(str(tmp_path / "end"), tmp_path / "half", str(tmp_path / "start"), 0.5)
    before = dict(tiny_encoder().network.named_parameters())
    for name, parameter in load(tmp_path / "half").network.named_parameters():
        assert torch.allclose(parameter, before[name] + 0.5, atol=1e-5)
