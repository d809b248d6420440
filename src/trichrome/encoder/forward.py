"""One forward pass over one batch, from token ids to NumPy columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trichrome.embeddings import SIGNALS
from trichrome.encoder.batching import collate
from trichrome.encoder.columns import BatchColumns, to_columns
from trichrome.encoder.heads import Network
from trichrome.encoder.tokenizer import Tokens


def run_batch(
    network: Network, tokens: Sequence[Tokens], outputs: Sequence[str], pad_id: int
) -> BatchColumns:
    """The chosen outputs of B texts, computed on the device where the network is."""
    device = next(network.parameters()).device
    batch = collate(tokens, pad_id).to(device)
    with torch.inference_mode():
        return to_columns(network(batch, **{s: s in outputs for s in SIGNALS}), batch.ids)
