"""Between two models: weights on the straight line from where a training began to where it ended.

Fine-tuning on one domain forgets something of others; a point between start and end often keeps most of the
gain and forgets less (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).

    python -m trichrome.training.interpolate --start small --end runs/own/model --share 0.5 --out runs/half
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from trichrome.encoder.checkpoints import load, save
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.model import Backbone
from trichrome.errors import TrichromeError
from trichrome.training.prepare import with_positions


def interpolate(start: Encoder, end: Encoder, share: float) -> Encoder:
    """start + share · (end − start), for every weight; a new encoder with the settings of `end`.

    share: 0 is the start, 1 the end. Where `end` has more positions, the start's are extended first, in
    place. TrichromeError: encoders of different shapes.
    """
    if not 0 <= share <= 1:
        raise TrichromeError(f"the share must be between 0 and 1, got {share}")
    if isinstance(end.network.backbone, Backbone):
        start = with_positions(start, end.network.backbone.config.max_tokens)
    theirs = dict(start.network.named_parameters())
    mine = dict(end.network.named_parameters())
    if {n: p.shape for n, p in theirs.items()} != {n: p.shape for n, p in mine.items()}:
        raise TrichromeError(f"{start.name} and {end.name} have different shapes; nothing lies between them")
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.lerp_(theirs[name].to(parameter), 1 - share)
    return Encoder(end.network, end.tokenizer.tokenizer, end.config, str(end.device))


def main(
    end: Annotated[str, typer.Option(help="The trained model.")],
    out: Annotated[Path, typer.Option(help="Folder of the model that lies between.")],
    start: Annotated[str, typer.Option(help="What its training began from.")] = "small",
    share: Annotated[float, typer.Option(min=0, max=1, help="How far from there to the trained.")] = 0.5,
) -> None:
    """Write the model between two models."""
    save(interpolate(load(start, device="cpu"), load(end, device="cpu"), share), out)
    Console(stderr=True).print(f"wrote {out}: {share:g} of the way from {start} to {end}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
