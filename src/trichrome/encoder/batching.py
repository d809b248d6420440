"""Batches of texts of near length under a budget of tokens, padding counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trichrome.encoder.heads import Batch
from trichrome.encoder.tokenizer import Tokens


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of texts in batches: longest first, rows × longest row ≤ budget (or one text alone).

    The longest come first so that memory that does not suffice shows at once, not at the end.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    batches: list[list[int]] = []
    longest = 0
    for i in order:
        if not batches or (len(batches[-1]) + 1) * longest > budget:
            batches.append([])
            longest = max(1, lengths[i])
        batches[-1].append(i)
    return batches


def collate(texts: Sequence[Tokens], pad_id: int) -> Batch:
    """Tokens of B texts → padded tensors [B, L]."""
    lengths = torch.tensor([len(t.ids) for t in texts])
    longest = int(lengths.max())
    ids = torch.tensor([t.ids + [pad_id] * (longest - len(t.ids)) for t in texts])
    scored = torch.tensor([t.scored + [False] * (longest - len(t.ids)) for t in texts])
    return Batch(ids, torch.arange(longest) < lengths[:, None], scored)
