"""What is shipped of a trained `small` gives that model back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from trichrome.encoder import NewHeads, load, save
from trichrome.encoder import small as built_in
from trichrome.encoder.encoder import Encoder
from trichrome.training.prepare import with_positions
from trichrome.training.ship import ship


def test_deltas_and_heads_give_the_trained_model_back(tmp_path: Path) -> None:
    encoder = with_positions(load("small-base", new_heads=NewHeads(seed=5), device="cpu"), 600)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in encoder.network.backbone.layers:
            weight = layer.up.weight
            weight += 0.02 * torch.randn(len(weight), 2, generator=draw) @ torch.randn(2, 384, generator=draw)
    trained = Encoder(encoder.network, encoder.tokenizer.tokenizer, encoder.config, "cpu")
    save(trained, tmp_path / "model")
    kept = ship(tmp_path / "model", tmp_path / "weights", rank=4)
    assert kept > 0.9999
    network, tokenizer, config = built_in.parts(tmp_path / "weights")
    assert config.max_tokens == 512  # by default
    assert config.backbone is not None
    assert config.backbone.max_tokens == 600
    again = Encoder(network, tokenizer, replace(config, max_tokens=600), "cpu")
    texts = ["Wo liegt die Katze?", "the old river " * 150]
    one, other = trained.encode(texts), again.encode(texts)
    assert np.abs(one.dense - other.dense).max() < 2e-3
    assert np.abs(one.sparse.weights - other.sparse.weights).max() < 2e-2
