"""Shipped deltas are applied by torch alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import TEXTS, tiny_encoder
from trichrome.encoder.deltas import apply_deltas, base_fingerprint, read_deltas, write_deltas
from trichrome.errors import TrichromeError


def some_deltas() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "layers.1.up.a": torch.randn(2, 32, generator=draw),
        "layers.1.up.b": torch.randn(64, 2, generator=draw),
        "position.a": torch.randn(1, 32, generator=draw),
        "position.b": torch.randn(98, 1, generator=draw),  # 96 tokens, where the base takes 64
    }


def test_the_sum_is_w_plus_b_a_and_the_table_grows_by_tiling() -> None:
    base, backbone, deltas = tiny_encoder().network.backbone, tiny_encoder().network.backbone, some_deltas()
    apply_deltas(backbone, deltas)
    up = base.layers[1].up.weight + deltas["layers.1.up.b"] @ deltas["layers.1.up.a"]
    assert torch.allclose(backbone.layers[1].up.weight, up, atol=1e-6)
    tiled = torch.cat([base.position.weight, base.position.weight[2:34]])
    expected = tiled + deltas["position.b"] @ deltas["position.a"]
    assert torch.allclose(backbone.position.weight, expected, atol=1e-6)
    assert backbone.config.max_tokens == 96


def test_outputs_change_with_the_deltas() -> None:
    encoder = tiny_encoder()
    before = encoder.encode(TEXTS, outputs=("dense",)).dense.copy()
    apply_deltas(encoder.network.backbone, some_deltas())
    assert abs(encoder.encode(TEXTS, outputs=("dense",)).dense - before).max() > 1e-3


def test_peft_is_not_needed(tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    write_deltas(file, some_deltas(), "none")
    program = (
        "import sys; sys.modules['peft'] = None\n"
        "from tests.tiny import tiny_encoder\n"
        "from trichrome.encoder.deltas import apply_deltas, read_deltas\n"
        f"apply_deltas(tiny_encoder().network.backbone, read_deltas({str(file)!r})[0])\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    backbone = tiny_encoder().network.backbone
    file = tmp_path / "d.safetensors"
    file.write_bytes(b"no")
    with pytest.raises(TrichromeError, match="not a safetensors file"):
        apply_deltas(backbone, file)
    diverged = {**some_deltas(), "layers.1.up.b": torch.full((64, 2), 1e6)}
    with pytest.raises(TrichromeError, match=r"layers\.1\.up\.b is not finite in float16"):
        write_deltas(tmp_path / "none", diverged, "none")
    assert not (tmp_path / "none").exists()
    half = {k: v for k, v in some_deltas().items() if k != "position.b"}
    with pytest.raises(TrichromeError, match=r"position needs both position\.a and position\.b"):
        apply_deltas(backbone, half)


def test_metadata_and_float16_on_disk(tmp_path: Path) -> None:
    file, backbone = tmp_path / "d.safetensors", tiny_encoder().network.backbone
    write_deltas(file, some_deltas(), base_fingerprint(backbone, ["layers.1.up"]), 96)
    tensors, metadata = read_deltas(file)
    assert all(t.dtype == torch.float16 for t in tensors.values())
    assert metadata["positions"] == "96"
    with pytest.raises(TrichromeError, match="another base"):  # the base was taken before it grew
        apply_deltas(backbone, file)
    assert torch.equal(backbone.layers[1].up.weight, tiny_encoder().network.backbone.layers[1].up.weight)
