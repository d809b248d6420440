"""What the encoder made of a batch of texts, with gradients, and the score matrices of two such batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trichrome import scoring
from trichrome.embeddings import SIGNALS
from trichrome.encoder.heads import Batch
from trichrome.errors import TrichromeError


@dataclass(frozen=True)
class Encoded:
    """N texts. dense [N, d]; ids [N, L] and sparse_weights [N, L] (0 where a token never counts);
    vectors [N, L, d'] and vector_mask [N, L]. None for the outputs that were not computed."""

    ids: Tensor
    vector_mask: Tensor
    dense: Tensor | None = None
    sparse_weights: Tensor | None = None
    vectors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def tensors(self) -> list[Tensor]:
        """The outputs that carry gradients, in the order of the fields."""
        return [t for t in (self.dense, self.sparse_weights, self.vectors) if t is not None]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Encoded:
        """The same texts with other outputs, in the order of `tensors()`."""
        rest = iter(tensors)
        made = [None if getattr(self, n) is None else next(rest) for n in OUTPUTS]
        return Encoded(self.ids, self.vector_mask, *made)


OUTPUTS = tuple(f.name for f in fields(Encoded))[2:]


def encode(network: nn.Module, batch: Batch, signals: Sequence[str]) -> Encoded:
    """One forward pass of a Network (or of what wraps one); signals: any of dense, sparse, multivector."""
    made = network(batch, **{s: s in signals for s in SIGNALS})
    encoded = Encoded(batch.ids, made.vector_mask, made.dense, made.sparse_weights, made.vectors)
    missing = [
        s for s, name in zip(SIGNALS, OUTPUTS, strict=True) if s in signals and getattr(encoded, name) is None
    ]
    if missing or not encoded.tensors():
        raise TrichromeError(
            f"the network has no head for {', '.join(missing) or 'nothing asked for'}: "
            f"add it or train on other signals than {', '.join(signals)}"
        )
    return encoded


def concatenate(parts: Sequence[Encoded]) -> Encoded:
    """Batches of several padded lengths as one, padded to the longest [ΣN, max L]."""
    longest = max(p.ids.shape[1] for p in parts)

    def joined(name: str) -> Tensor | None:
        tensors = [getattr(p, name) for p in parts]
        if tensors[0] is None:
            return None
        if name == "dense":
            return torch.cat(tensors)
        # the last dimensions of [N, L] and [N, L, d'] are padded behind
        return torch.cat([F.pad(t, (0, 0) * (t.dim() - 2) + (0, longest - t.shape[1])) for t in tensors])

    ids, mask = joined("ids"), joined("vector_mask")
    assert ids is not None
    assert mask is not None
    return Encoded(ids, mask, *(joined(name) for name in OUTPUTS))


def score_matrices(queries: Encoded, passages: Encoded) -> dict[str, Tensor]:
    """Raw scores [B, C] of every query against every passage, for each signal that both sides have.

    In float32 or more, whatever the outputs' precision: losses divide them by small temperatures.
    """
    made: dict[str, Tensor] = {}
    if queries.dense is not None and passages.dense is not None:
        kind = torch.promote_types(queries.dense.dtype, torch.float32)
        with torch.autocast(queries.dense.device.type, enabled=False):
            made["dense"] = scoring.dense_scores(queries.dense.to(kind), passages.dense.to(kind))
    if queries.sparse_weights is not None and passages.sparse_weights is not None:
        made["sparse"] = scoring.sparse_scores(
            queries.ids, queries.sparse_weights, passages.ids, passages.sparse_weights
        )
    if queries.vectors is not None and passages.vectors is not None:
        made["multivector"] = scoring.multivector_scores(
            queries.vectors, passages.vectors, queries.vector_mask, passages.vector_mask
        )
    return made
