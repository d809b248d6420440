"""Between two models: weights on the straight line from where a training began to where it ended.

Fine-tuning on one domain forgets something of others; a point between start and end often keeps most of the
gain and forgets less (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
"""

from __future__ import annotations

import torch

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
