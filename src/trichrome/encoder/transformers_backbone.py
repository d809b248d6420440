"""Encoders outside the BERT family (ModernBERT, …): transformers computes the hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Width:
    """What heads need to know of a backbone."""

    hidden: int
    max_tokens: int


class TransformersBackbone(nn.Module):
    """ids [B, L] and mask [B, L] → last hidden states [B, L, d] of an AutoModel."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = Width(model.config.hidden_size, model.config.max_position_embeddings)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        attention = None if mask is None else mask.long()
        hidden: Tensor = self.model(input_ids=ids, attention_mask=attention).last_hidden_state
        return hidden
