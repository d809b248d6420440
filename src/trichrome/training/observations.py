"""What a step shows of its heads besides the loss: how full, how alike, how much of one mind, how hard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from trichrome.embeddings import SIGNALS
from trichrome.encoder.heads import Heads, Network
from trichrome.training.encoded import Encoded
from trichrome.training.target import Target


@torch.no_grad()
def observe(
    queries: Encoded, passages: Encoded, scores: Mapping[str, Tensor], target: Target
) -> dict[str, float]:
    """What B queries and C passages show, for the log. scores: raw ones [B, C] by signal.

    nonzeros/query, nonzeros/passage    distinct token ids with a sparse weight, a text
    zero/query, zero/passage            share of texts without any
    alike/dense, alike/multivector      mean cosine between passages (between passage tokens): 1 = collapsed
    agreement/dense-sparse, …           mean rank correlation (Spearman) of the passages, two signals a time
    accuracy/dense, …                   share of queries that put a positive before all other passages
    harder/dense, …                     share of queries whose own negatives score more, on average, than
                                        other queries' passages; absent where there are no own negatives

    What a signal's head did not compute is absent. One transfer from the device.
    """
    made: dict[str, Tensor] = {}
    for side, texts in (("query", queries), ("passage", passages)):
        if texts.sparse_weights is not None:
            filled = distinct(texts.ids, texts.sparse_weights > 0)  # [N]
            made[f"nonzeros/{side}"] = filled.float().mean()
            made[f"zero/{side}"] = (filled == 0).float().mean()
    if passages.dense is not None:
        made["alike/dense"] = mean_cosine(passages.dense[:, None], passages.ids.new_ones(len(passages), 1))
    if passages.vectors is not None:
        made["alike/multivector"] = mean_cosine(passages.vectors, passages.vector_mask)

    given = {name: scores[name].detach().float() for name in SIGNALS if name in scores}
    ranks = {name: average_ranks(values, target.mask) for name, values in given.items()}
    for one, other in combinations(given, 2):
        made[f"agreement/{one}-{other}"] = correlation(ranks[one], ranks[other], target.mask).mean()
    own, others = negative_kinds(target)
    compared = own.any(1) & others.any(1)  # [B]
    for name, values in given.items():
        best = values.masked_fill(~target.positive, -torch.inf).amax(1)  # [B]
        rival = values.masked_fill(target.positive | ~target.mask, -torch.inf).amax(1)
        made[f"accuracy/{name}"] = (best > rival).float().mean()
        if bool(compared.any()):
            harder = masked_mean(values, own) > masked_mean(values, others)  # [B]
            made[f"harder/{name}"] = harder[compared].float().mean()
    if not made:
        return {}
    return dict(zip(made, torch.stack([v.double().cpu() for v in made.values()]).tolist(), strict=True))


@torch.no_grad()
def gradient_norms(module: nn.Module) -> dict[str, float]:
    """The Euclidean norms of the gradients, for the log, before clipping.

    Of a Network: grad/backbone and grad/HEAD; of a module that holds one (RetroMAE), its other parts too.
    """
    norms: dict[str, Tensor] = {}
    for name, part in _parts(module):
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        if gradients:
            norms[f"grad/{name}"] = torch.nn.utils.get_total_norm(gradients)
    if not norms:
        return {}
    return dict(zip(norms, torch.stack([v.double().cpu() for v in norms.values()]).tolist(), strict=True))


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, Network | Heads):
            yield from _parts(child)
        else:
            yield name, child


def distinct(ids: Tensor, chosen: Tensor) -> Tensor:
    """[N, L] ids and which of them count → [N]: how many different ones."""
    ordered = ids.masked_fill(~chosen, -1).sort(1).values  # [N, L], those that don't count before all others
    first = torch.ones_like(chosen)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (first & (ordered >= 0)).sum(1)


def mean_cosine(vectors: Tensor, mask: Tensor) -> Tensor:
    """[N, L, d] unit vectors, those of the mask [N, L] count → the mean inner product of two different ones.

    0 where there are no two. Σ_{i≠j} v_i·v_j = (Σ v)² - n, so nothing larger than d is built.
    """
    n = mask.sum()
    total = torch.einsum("nld,nl->d", vectors, mask.to(vectors.dtype)).float()  # [d]
    return torch.where(n > 1, (total.square().sum() - n) / (n * (n - 1)).clamp(min=1), 0)


def average_ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """[B, C] scores → ranks among the columns of the mask, lowest first; equal scores share a rank."""
    values = scores.masked_fill(~mask, -torch.inf)
    ordered = values.sort(1).values
    below, through = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + through).float() / 2


def correlation(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """[B, C] twice → [B]: Pearson's r over the columns of the mask; 0 where one of them is constant."""
    x, y = (torch.where(mask, v - masked_mean(v, mask)[:, None], 0) for v in (x, y))
    power = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(power > 0, (x * y).sum(1) / power.clamp(min=1e-12), 0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, C] → [B]: the mean over the columns of the mask, 0 where there are none."""
    return torch.where(mask, values, 0).sum(1) / mask.sum(1).clamp(min=1)


def negative_kinds(target: Target) -> tuple[Tensor, Tensor]:
    """Which passages are a query's own negatives, and which are other queries' passages: [B, C] bool twice.

    Passages stand in the order of the queries, each query's first positive in front of its own. Passages that
    the target masks count for neither, except where it masks all of other queries (in-batch negatives off).
    """
    queries, columns = target.mask.shape
    first = target.positive.int().argmax(1)  # [B] the first positive's column
    none = torch.zeros_like(target.mask)
    if not bool((first[1:] > first[:-1]).all()):  # laid out otherwise: nothing can be told
        return none, none
    owner = torch.searchsorted(first, torch.arange(columns, device=first.device), right=True) - 1  # [C]
    mine = owner[None] == torch.arange(queries, device=first.device)[:, None]  # [B, C]
    own = mine & target.mask & ~target.positive
    others = ~mine & target.mask & ~target.positive
    return own, torch.where(others.any(), others, ~mine & ~target.positive)
