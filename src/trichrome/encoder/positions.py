"""More positions: a longer table out of a shorter one."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from trichrome.encoder.config import BackboneConfig
from trichrome.encoder.model import Backbone
from trichrome.errors import TrichromeError


def extend_positions(
    backbone: Backbone, tokens: int, method: Literal["tile", "interpolate"] = "tile"
) -> BackboneConfig:
    """Give a backbone a position table for `tokens` tokens, in place; returns its new config.

    tile: repeat the table, so that every window of the old length keeps the positions it was trained on
    (as Longformer does). interpolate: stretch it linearly. The rows below the first position are kept.
    Either is a start for training; an untrained extension reads long texts less well than short ones.
    """
    old = backbone.config
    if tokens < old.max_tokens:
        raise TrichromeError(f"the table already takes {old.max_tokens} tokens, more than {tokens}")
    table = backbone.position.weight.detach()
    head, body = table[: old.first_position], table[old.first_position :]  # [first, d], [max_tokens, d]
    if method == "tile":
        longer = body.repeat(-(-tokens // len(body)), 1)[:tokens]
    elif method == "interpolate":
        columns = body.float().T[None]  # [1, d, max_tokens]
        longer = F.interpolate(columns, size=tokens, mode="linear", align_corners=True)[0].T.to(body.dtype)
    else:
        raise TrichromeError(f"unknown method {method!r}; there are tile, interpolate")
    made = nn.Embedding(len(head) + tokens, table.shape[1], _weight=torch.cat([head, longer]))
    backbone.position = made
    backbone.config = replace(old, positions=old.first_position + tokens)
    return backbone.config
