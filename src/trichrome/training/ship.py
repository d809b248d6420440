"""Make the files that the package ships of `small` out of a trained model folder.

    python -m trichrome.training.ship --model runs/small-long/model --out src/trichrome/encoder/small_weights

Writes heads.safetensors and deltas.safetensors: what sets the model apart from the public base, at a rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from safetensors.torch import save

from trichrome.encoder import small
from trichrome.encoder.checkpoints import load
from trichrome.encoder.model import Backbone
from trichrome.encoder.positions import extend_positions
from trichrome.errors import TrichromeError
from trichrome.storage import atomic_write
from trichrome.training.interpolate import interpolate
from trichrome.training.lowrank import extract_deltas


def ship(model: Path, out: Path, rank: int = 48, start: str | Path = "small", share: float = 1.0) -> float:
    """Write the two files; returns the share of the change that the rank holds.

    start, share: ship a point between the model that training began from and the trained one.
    """
    trained = load(model, device="cpu")
    if share < 1:
        trained = interpolate(load(start, device="cpu"), trained, share)
    base, _, _ = small.base_parts()
    if not (isinstance(base.backbone, Backbone) and isinstance(trained.network.backbone, Backbone)):
        raise TrichromeError(f"{model}: not of small's architecture")
    positions = trained.network.backbone.config.max_tokens
    if positions > base.backbone.config.max_tokens:
        extend_positions(base.backbone, positions)
    kept = extract_deltas(base.backbone, trained.network.backbone, rank, out / small.DELTAS)
    heads = {k: v.detach().contiguous() for k, v in trained.network.heads.state_dict().items()}
    with atomic_write(out / small.HEADS) as file:
        file.write(save(heads))
    return kept


def main(
    model: Annotated[Path, typer.Option(help="Folder of a trained model that began from small.")],
    out: Annotated[Path, typer.Option(help="Folder to write heads and deltas to.")],
    rank: Annotated[int, typer.Option(min=1, help="Of the deltas.")] = 48,
    start: Annotated[str, typer.Option(help="What training began from.")] = "small",
    share: Annotated[float, typer.Option(min=0, max=1, help="How far from there to the trained.")] = 1.0,
) -> None:
    """Write heads.safetensors and deltas.safetensors."""
    console = Console(stderr=True)
    kept = ship(model, out, rank, start, share)
    size = sum(p.stat().st_size for p in out.glob("*.safetensors")) / 1e6
    console.print(f"wrote {out}: {size:.1f} MB, {100 * kept:.2f} % of the change kept")


if __name__ == "__main__":
    typer.run(main)
