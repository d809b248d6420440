"""Towers: what turns texts into unit vectors, small enough to be trained in seconds, or a real encoder.

    B queries · C passages · d width of the vectors

A `BagTower` averages word vectors (those of the built-in model's base, projected to d) with a learned weight
each, all trained: a retriever of one layer, in which losses and negatives act as they do in deep ones, a
thousand times faster. An `EncoderTower` is the base itself, or some of its layers, which have to learn to
retrieve again; all layers are trained, on an accelerator where there is one. What it returns is on the CPU,
where the losses, small beside it, are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import trichrome
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder
from trichrome.encoder.backend import TorchBackend
from trichrome.encoder.batching import collate, token_budget_batches
from trichrome.encoder.checkpoints import NewHeads
from trichrome.encoder.columns import ColumnWriter
from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.small import BASE
from trichrome.encoder.tokenizer import Tokens
from trichrome.training.towers import shortened

Texts: TypeAlias = "Sequence[Tokens]"

#: Width of a bag tower's vectors.
WIDTH = 128
#: Padded tokens that an encoder tower reads at once.
BUDGET = 4096
#: Layers of a tower that has to learn to retrieve.
SHALLOW = 4


@lru_cache(maxsize=1)
def base() -> Encoder:
    """The built-in model's base, untouched by trichrome's training."""
    return trichrome.load(BASE, device="cpu", dtype="float32", new_heads=NewHeads())


def tokenize(texts: Sequence[str], kind: str, most: int) -> list[Tokens]:
    """Texts as the base reads them, cut to `most` tokens. kind: "query" or "passage"."""
    made = base().tokenizer.encode(list(texts), kind)
    return [
        t if len(t.ids) <= most else Tokens(t.ids[:most], t.scored[:most], len(t.ids) - most) for t in made
    ]


class BagTower(nn.Module):
    """Σ w(t)·v(t) over a text's own tokens, through a linear layer, at unit length: [B, d]."""

    def __init__(self, known: Sequence[int], width: int = WIDTH, seed: int = 0) -> None:
        """known: the token ids that it will meet; others are passed over."""
        super().__init__()
        backbone = base().network.backbone
        assert isinstance(backbone, Backbone)
        table = backbone.word.weight.detach()
        ids = torch.tensor(sorted(set(known)))
        vectors = table[ids].float()  # [V, hidden]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            across = torch.empty(vectors.shape[1], width).normal_() / vectors.shape[1] ** 0.5
        self.words = nn.Parameter(F.normalize(vectors - vectors.mean(0)) @ across)  # [V, d]
        self.weight = nn.Parameter(torch.zeros(len(ids)))  # [V], its exponential counts
        self.out = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.out.weight)
        place = torch.full((int(table.shape[0]),), -1)
        place[ids] = torch.arange(len(ids))
        self.register_buffer("place", place, persistent=False)
        self.place: Tensor

    def forward(self, texts: Texts) -> Tensor:
        """Unit vectors [B, d]; a text of unknown words alone has the zero vector."""
        own = [[i for i, counts in zip(t.ids, t.scored, strict=True) if counts] for t in texts]
        lengths = torch.tensor([len(ids) for ids in own])
        flat = self.place[torch.tensor([i for ids in own for i in ids], dtype=torch.long)]  # [ΣL]
        rows = torch.repeat_interleave(torch.arange(len(texts)), lengths)
        rows, flat = rows[flat >= 0], flat[flat >= 0]
        # by `embedding`: gradients of plain indexing are summed in an order that threads decide
        weights = F.embedding(flat, self.weight[:, None]).exp()  # [ΣL, 1]
        weighted = F.embedding(flat, self.words) * weights  # [ΣL, d]
        summed = torch.zeros(len(texts), self.words.shape[1]).index_add(0, rows, weighted)
        return F.normalize(self.out(summed), dim=1)


class EncoderTower(nn.Module):
    """An encoder's dense output, every layer trained: [B, d]."""

    def __init__(self, encoder: Encoder) -> None:
        """encoder: its weights are what is trained."""
        super().__init__()
        self.network, self.config = encoder.network, encoder.config
        self.network.autocast = torch.bfloat16
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith("backbone.layers"))

    @classmethod
    def of_layers(cls, layers: int | None) -> EncoderTower:
        """So many of the base's layers, evenly spread: an encoder that knows words, and not how to retrieve,
        as those are that most papers start from. None: the base."""
        return cls(shortened(trichrome.load(BASE, dtype="float32", new_heads=NewHeads()), layers))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.network.parameters()).device

    def forward(self, texts: Texts) -> Tensor:
        """Unit vectors [B, d]."""
        made: list[Tensor] = []
        order: list[int] = []
        for rows in token_budget_batches([len(t.ids) for t in texts], BUDGET):
            batch = collate([texts[i] for i in rows], self.config.pad_id).to(self.device)
            made.append(self.network(batch, sparse=False, multivector=False).dense.float().cpu())
            order += rows
        return torch.cat(made)[torch.tensor(order).argsort()]

    def read(self, texts: Texts) -> NDArray[np.float32]:
        """[N, d] without gradients: the weights as they are now."""
        made = inferred(self.network, self.config, texts, "dense").dense
        assert made is not None
        return np.asarray(made, np.float32)


def inferred(network: Network, config: EncoderConfig, texts: Texts, output: str) -> Embeddings:
    """One output of a network that is being trained, without gradients: its weights as they are now, in
    bfloat16, laid out for inference."""
    network = deepcopy(network)
    network.autocast = None
    backend = TorchBackend(network, config.pad_id)
    backend.to(precision="bfloat16")
    counts = [sum(t.scored) for t in texts]
    made = ColumnWriter(
        counts, (output,), backend.dense_dim, config.multivector_dim or 0, np.dtype(np.float32)
    )
    for rows in token_budget_batches([len(t.ids) for t in texts], BUDGET):
        made.put(rows, backend.run([texts[i] for i in rows], (output,)))
    return made.finish()


#: Tokens of B texts → unit vectors [B, d], with gradients.
Tower: TypeAlias = "BagTower | EncoderTower"


def vectors(tower: Tower, texts: Texts, at_once: int = 2048) -> NDArray[np.float32]:
    """[N, d] without gradients."""
    if isinstance(tower, EncoderTower):
        return tower.read(texts)
    with torch.inference_mode():
        parts = [tower(texts[i : i + at_once]) for i in range(0, len(texts), at_once)]
    return torch.cat(parts).numpy()


def nearest(
    queries: NDArray[np.float32], passages: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k passages of largest inner product, best first: rows [Q, k] and scores [Q, k]; equal scores in
    the order of the rows."""
    k = min(k, len(passages))
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), 512):
        some = torch.from_numpy(queries[start : start + 512] @ passages.T)
        best, found = some.topk(k, dim=1)
        rows[start : start + len(some)], scores[start : start + len(some)] = found.numpy(), best.numpy()
    return rows, scores
