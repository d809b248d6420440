"""Low-rank deltas: they start as nothing, train alone, and are the same merged, shipped or in training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder import Encoder
from trichrome.encoder.deltas import apply_deltas
from trichrome.encoder.model import Backbone
from trichrome.encoder.positions import extend_positions
from trichrome.errors import TrichromeError
from trichrome.training.lowrank import (
    LowRank,
    add_lowrank,
    extract_deltas,
    lowrank_state,
    merge_lowrank,
    save_deltas,
)


def hidden(encoder: Encoder, texts: list[str] = TEXTS) -> torch.Tensor:
    """Dense outputs [N, d] of the plain network."""
    return torch.from_numpy(encoder.encode(texts, outputs=("dense",)).dense.copy())


def nudge(encoder: Encoder, steps: int = 3) -> None:
    """A few optimiser steps on what is trainable, so that the deltas are no longer zero."""
    trained = [p for p in encoder.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    torch.manual_seed(0)
    ids = torch.randint(4, 60, (4, encoder.network.backbone.config.max_tokens))
    for _ in range(steps):
        encoder.network.backbone(ids)[:, 0].pow(3).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_fresh_delta_changes_nothing_and_only_thin_matrices_and_heads_train() -> None:
    encoder = tiny_encoder()
    before = hidden(encoder)
    add_lowrank(encoder.network, LowRank(rank=4, position_rank=2))
    assert torch.allclose(hidden(encoder), before, atol=1e-6)
    trained = {n: p for n, p in encoder.network.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.startswith("heads.") or n.endswith((".a", ".b")) for n in trained)
    # 2 layers of d = 32, f = 64: in + out of qkv, out, up, down, at rank 4; 66 positions at rank 2
    thin = 2 * 4 * ((32 + 96) + (32 + 32) + (32 + 64) + (64 + 32)) + 2 * (66 + 32)
    assert sum(p.numel() for n, p in trained.items() if not n.startswith("heads.")) == thin


def test_the_encoder_uses_the_deltas_while_they_are_trained() -> None:
    encoder = tiny_encoder()
    before = hidden(encoder)
    add_lowrank(encoder.network, LowRank(rank=4))
    nudge(encoder)
    assert not torch.allclose(hidden(encoder), before, atol=1e-3)


@pytest.mark.parametrize("positions", [None, 96])
@pytest.mark.parametrize("rank", [0, 3])
def test_merged_shipped_and_in_training_are_one_model(
    tmp_path: Path, positions: int | None, rank: int
) -> None:
    encoder = tiny_encoder()
    if positions:
        extend_positions(encoder.network.backbone, positions)
    add_lowrank(encoder.network, LowRank(rank=4, alpha=8, position_rank=rank))
    nudge(encoder)
    ids = torch.randint(4, 60, (3, encoder.network.backbone.config.max_tokens))
    with torch.no_grad():
        training = encoder.network.backbone(ids)
        file = tmp_path / "deltas.safetensors"
        save_deltas(encoder.network, file)
        merge_lowrank(encoder.network)
        merged = encoder.network.backbone(ids)
        shipped = tiny_encoder().network.backbone
        apply_deltas(shipped, file)
        assert torch.allclose(merged, training, atol=1e-5)
        assert torch.allclose(shipped(ids), training, atol=5e-3)  # float16 on disk
    assert set(encoder.network.state_dict()) == set(tiny_encoder().network.state_dict())
    assert isinstance(shipped, Backbone)
    assert shipped.config == encoder.network.backbone.config
    assert all(p.requires_grad for p in encoder.network.parameters())
    assert file.stat().st_size < 40_000


def test_the_state_alone_gives_the_same_weights() -> None:
    encoder, other = tiny_encoder(), tiny_encoder().network.backbone
    add_lowrank(encoder.network, LowRank(rank=2, targets=("qkv", "down")))
    nudge(encoder)
    apply_deltas(other, lowrank_state(encoder.network))
    merge_lowrank(encoder.network)
    theirs = encoder.network.backbone.state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in other.state_dict().items())
    before = tiny_encoder().network.backbone.state_dict()
    assert {n for n, t in other.state_dict().items() if not torch.equal(t, before[n])} == {
        f"layers.{i}.{x}.weight" for i in range(2) for x in ("qkv", "down")
    }


def test_training_goes_on_after_a_merge_and_the_seed_decides() -> None:
    made = []
    for seed in (0, 0, 1):
        encoder = tiny_encoder()
        add_lowrank(encoder.network, LowRank(rank=2))
        merge_lowrank(encoder.network)
        before = torch.get_rng_state()
        add_lowrank(encoder.network, LowRank(rank=2, position_rank=2, seed=seed))
        assert torch.equal(before, torch.get_rng_state())
        made.append(lowrank_state(encoder.network)["layers.0.qkv.a"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_two_stages_ship_as_one_file(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    for stage in range(2):
        add_lowrank(encoder.network, LowRank(rank=2, position_rank=1, seed=stage))
        nudge(encoder)
        merge_lowrank(encoder.network)
    base, trained, file = (
        tiny_encoder().network.backbone,
        encoder.network.backbone,
        tmp_path / "d.safetensors",
    )
    assert isinstance(base, Backbone)
    assert isinstance(trained, Backbone)
    assert 0.3 < extract_deltas(base, trained, 1, file) < 0.999
    assert extract_deltas(base, trained, 4, file) == pytest.approx(1)
    apply_deltas(base, file)
    for name, weight in trained.named_parameters():
        assert torch.allclose(weight, base.state_dict()[name], atol=2e-4)
    trained.norm.bias.data += 1
    with pytest.raises(TrichromeError, match=r"norm\.bias was trained too"):
        extract_deltas(tiny_encoder().network.backbone, trained, 4, file)  # type: ignore[arg-type]


def test_small_numbers_survive_float16(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    add_lowrank(encoder.network, LowRank(rank=2))
    with torch.no_grad():
        for name, weight in encoder.network.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn_like(weight) * (1e-9 if "lora_B" in name else 10))
    exact = lowrank_state(encoder.network)
    save_deltas(encoder.network, tmp_path / "d.safetensors")
    kept = {n: t.float() for n, t in load_file(tmp_path / "d.safetensors").items()}
    product, stored = (s["layers.1.up.b"] @ s["layers.1.up.a"] for s in (exact, kept))
    assert (product - stored).norm() < 2e-3 * product.norm()


def test_deltas_of_another_base_are_refused(tmp_path: Path) -> None:
    encoder, file = tiny_encoder(), tmp_path / "d.safetensors"
    add_lowrank(encoder.network, LowRank(rank=2))
    save_deltas(encoder.network, file)
    other = tiny_encoder().network.backbone
    other.layers[0].qkv.weight.data += 0.1  # type: ignore[operator, union-attr]
    with pytest.raises(TrichromeError, match="another base"):
        apply_deltas(other, file)
    stretched = tiny_encoder()
    extend_positions(stretched.network.backbone, 96, "interpolate")
    add_lowrank(stretched.network, LowRank(rank=2))
    save_deltas(stretched.network, tmp_path / "stretched.safetensors")
    plain = tiny_encoder().network.backbone
    with pytest.raises(TrichromeError, match="another base"):
        apply_deltas(plain, tmp_path / "stretched.safetensors")
    assert plain.config == tiny_encoder().network.backbone.config
    assert len(plain.position.weight) == 66  # as it was
    half = tiny_encoder().network.backbone.to(torch.bfloat16)
    apply_deltas(half, file)  # the same base in another precision
    with pytest.raises(TrichromeError, match=r"has no weight layers\.7\.qkv"):
        apply_deltas(other, {"layers.7.qkv.a": torch.zeros(1, 32), "layers.7.qkv.b": torch.zeros(96, 1)})
    with pytest.raises(TrichromeError, match=r"layers\.0\.qkv is \[96, 1\]·\[1, 31\]"):
        apply_deltas(other, {"layers.0.qkv.a": torch.zeros(1, 31), "layers.0.qkv.b": torch.zeros(96, 1)})
    with pytest.raises(TrichromeError, match="is missing"):
        apply_deltas(other, tmp_path / "none")


def test_wrong_settings_say_what_to_do() -> None:
    network = tiny_encoder().network
    with pytest.raises(TrichromeError, match="no Linear named query; this backbone has down, out, qkv, up"):
        add_lowrank(network, LowRank(targets=("query",)))
    with pytest.raises(TrichromeError, match="add_lowrank"):
        merge_lowrank(network)
    add_lowrank(network, LowRank(rank=2))
    with pytest.raises(TrichromeError, match="merge_lowrank"):
        add_lowrank(network, LowRank(rank=2))
    with pytest.raises(TrichromeError, match="rank"):
        LowRank(rank=0)
