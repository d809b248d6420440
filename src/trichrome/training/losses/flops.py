"""FLOPS: how many products two sparse vectors cost on average (Paria et al. 2020; SPLADE v2)."""

from __future__ import annotations

import torch
from torch import Tensor

from trichrome.training.losses.infonce import float32_at_least


def flops(ids: Tensor, weights: Tensor) -> Tensor:
    """Σ_v (mean over texts of w_v)² → scalar; ids and weights ≥ 0 [N, L], of a token the largest counts.

    A regulariser that empties the sparse output evenly over the vocabulary; added to a loss with a small
    weight. Only the token ids that occur are looked at, so nothing as wide as the vocabulary is built.
    """
    weights = float32_at_least(weights)
    kinds, places = torch.unique(ids, return_inverse=True)  # [U], [N, L]
    texts = torch.arange(len(ids), device=ids.device)[:, None] * len(kinds) + places  # [N, L]
    cells, where = torch.unique(texts, return_inverse=True)  # one a text and token: [M], [N, L]
    largest = weights.new_zeros(len(cells))
    largest = largest.scatter_reduce(0, where.reshape(-1), weights.reshape(-1), reduce="amax")
    means = weights.new_zeros(len(kinds)).index_add(0, cells % len(kinds), largest) / len(ids)  # [U]
    return means.square().sum()
