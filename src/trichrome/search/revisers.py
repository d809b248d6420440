"""Query revisers: small networks that turn a query and its feedback documents into a better query.

    B queries · k feedback documents each, best first · D width of dense vectors · T tokens of a query and its
    documents together

Both weigh the documents by what tells those that help from those that don't: their scores, their places, and
how much they agree with each other; a place for "none of them" shares in the weights. With no document the
query stays as it is. They read vectors alone, no text, so they cost a search a few thousandths of a second.
(After differentiable query reformulation, LoL, arXiv 2204.11545, section 3, which encodes the texts of query
and documents anew with a whole encoder.) `trichrome.training.revision` trains them, `feedback` applies them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn

from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import TrichromeError
from trichrome.search.feedback import align, heaviest
from trichrome.storage import atomic_write

_SIGNS = 5  # that weights of documents are made of
_TERM_SIGNS = 5  # and of tokens


class Weigher(nn.Module):
    """Feedback documents → how much each counts: [B, k], no less than 0, at most 1 together."""

    def __init__(self, inner: int = 16) -> None:
        super().__init__()
        self.judge = nn.Sequential(nn.Linear(_SIGNS, inner), nn.Tanh(), nn.Linear(inner, 1))
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, scores: Tensor, alike: Tensor, mask: Tensor, more: Tensor | None = None) -> Tensor:
        """scores [B, k] with the query; alike [B, k, k], cosines between documents; mask [B, k], which are
        there; more [B, k] is added to the logits."""
        there = mask.to(scores.dtype)
        scores = scores * there
        place = torch.arange(1, scores.shape[1] + 1, device=scores.device).to(scores.dtype).log()  # [k]
        others = there[:, None, :] * (1 - torch.eye(scores.shape[1], device=scores.device))  # [B, k, k]
        agreeing = (alike * others).sum(2) / others.sum(2).clamp(min=1)
        best = scores[:, :1] if scores.shape[1] else scores
        count = there.sum(1, keepdim=True).clamp(min=1).log().expand_as(scores)
        signs = torch.stack([scores, scores - best, place.expand_as(scores), agreeing, count], dim=2)
        logits = self.judge(signs)[:, :, 0]
        if more is not None:
            logits = logits + more
        logits = torch.cat([logits.masked_fill(~mask, -torch.inf), self.none.expand(len(scores), 1)], dim=1)
        return logits.softmax(1)[:, :-1]


class DenseReviser(nn.Module):
    """q' = (q + V Σ a_i d_i) / |…|: a_i from `Weigher` and from a product of q with d_i. [B, D] unit vectors.

    It begins as Rocchio's: V is half of the identity.
    """

    def __init__(self, dim: int, inner: int = 32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.weigh = Weigher()
            self.ask = nn.Linear(dim, inner, bias=False)
            self.answer = nn.Linear(dim, inner, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            self.value.weight.copy_(0.5 * torch.eye(dim))

    def forward(self, queries: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
        """Queries [B, D], documents [B, k, D] and which of them are there, mask [B, k] → [B, D]."""
        scores = (documents @ queries[:, :, None])[:, :, 0]  # [B, k]
        alike = documents @ documents.transpose(1, 2)  # [B, k, k]
        more = (self.answer(documents) @ self.ask(queries)[:, :, None])[:, :, 0]
        weights = self.weigh(scores, alike, mask, more)
        mixed = (weights[:, None] @ documents)[:, 0]  # [B, D]
        return F.normalize(queries + self.value(mixed), dim=1)


class SparseReviser(nn.Module):
    """A token's weight from that in the query and in the documents, weighed by `Weigher`: [B, T] ≥ 0.

        w'(t) = |q| · (q(t)/|q| · exp(g(t)) + h(t) · Σ a_i d_i(t)/|d_i|)

    g and h ≥ 0 are a small network's, of the two weights, the largest of any document, the share of documents
    that hold t, and their number. It begins near h = 0.5, g = 0. A token that neither has weighs nothing.
    """

    def __init__(self, inner: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.weigh = Weigher()
            self.judge = nn.Sequential(nn.Linear(_TERM_SIGNS, inner), nn.Tanh(), nn.Linear(inner, 2))
        last = self.judge[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(torch.tensor([0.0, -0.43]))  # softplus(-0.43) = 0.5

    def forward(self, queries: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
        """Weights ≥ 0 of T tokens in queries [B, T] and documents [B, k, T], mask [B, k] → [B, T]."""
        length = queries.norm(dim=1, keepdim=True)
        q, d = F.normalize(queries, dim=1), F.normalize(documents, dim=2)
        scores = (d @ q[:, :, None])[:, :, 0]  # [B, k]
        weights = self.weigh(scores, d @ d.transpose(1, 2), mask)
        d = d * mask[:, :, None]
        mixed = (weights[:, None] @ d)[:, 0]  # [B, T]
        count = mask.sum(1, keepdim=True).to(q.dtype)  # [B, 1]
        share = (d > 0).sum(1) / count.clamp(min=1)
        largest = d.amax(1) if d.shape[1] else torch.zeros_like(q)
        signs = torch.stack([q, mixed, largest, share, count.clamp(min=1).log().expand_as(q)], dim=2)
        own, theirs = self.judge(signs).unbind(2)  # [B, T] each
        none = count == 0  # then the query stays as it is
        own = own.masked_fill(none, 0)
        made: Tensor = length * (q * own.exp() + mixed * F.softplus(theirs))
        return made


class LearnedReviser:
    """A trained reviser of dense vectors, of sparse ones, or both; a `feedback.Reviser`."""

    def __init__(self, dense: DenseReviser | None = None, sparse: SparseReviser | None = None) -> None:
        self.dense, self.sparse = dense, sparse

    def revise(self, query: Embedding, documents: Embeddings) -> Embedding:
        """The query with its dense and sparse parts revised by feedback documents, best first.

        A part stays as it is where there is no reviser for it, and so do token vectors. TrichromeError:
        vectors of another width than the reviser's.
        """
        dense, ids, weights = query.dense, query.token_ids, query.token_weights
        if self.dense is not None and dense is not None and documents.dense is not None:
            dim = self.dense.value.in_features
            if dense.shape[-1] != dim:
                raise TrichromeError(f"the reviser is for vectors of {dim} numbers, not of {dense.shape[-1]}")
            q, d = (torch.from_numpy(np.array(x, np.float32)) for x in (dense, documents.dense))
            with torch.inference_mode():
                mask = torch.ones(1, len(d), dtype=torch.bool)
                dense = self.dense(q[None], d[None], mask)[0].numpy()
        if (
            self.sparse is not None
            and ids is not None
            and weights is not None
            and documents.sparse is not None
        ):
            columns, of_query, of_documents = align(query, documents)
            with torch.inference_mode():
                mask = torch.ones(1, len(of_documents), dtype=torch.bool)
                made = self.sparse(
                    torch.from_numpy(of_query)[None], torch.from_numpy(of_documents)[None], mask
                )
            ids, weights = heaviest(columns, made[0].numpy())
        return Embedding(dense, ids, weights, query.multivector)

    @property
    def name(self) -> str:
        """With a hash of its weights."""
        return f"reviser {hashlib.sha256(self._bytes()).hexdigest():.12}"

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        with atomic_write(path) as file:
            file.write(self._bytes())

    def _bytes(self) -> bytes:
        tensors: dict[str, Tensor] = {}
        for name, module in (("dense", self.dense), ("sparse", self.sparse)):
            if module is not None:
                tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})

    @classmethod
    def load(cls, path: Path) -> LearnedReviser:
        """A file that `save` wrote. TrichromeError where it is missing, damaged or of another kind."""
        try:
            tensors = load_tensors(path.read_bytes())
            parts = {
                name: {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
                for name in ("dense", "sparse")
            }
            if len(tensors) != sum(map(len, parts.values())) or not tensors:
                raise ValueError("it holds something else")
            dense = sparse = None
            if state := parts["dense"]:
                inner, dim = state["ask.weight"].shape
                dense = DenseReviser(dim, inner)
                dense.load_state_dict(state)
            if state := parts["sparse"]:
                sparse = SparseReviser(len(state["judge.0.bias"]))
                sparse.load_state_dict(state)
        except (OSError, ValueError, KeyError, IndexError, RuntimeError, SafetensorError) as error:
            raise TrichromeError(f"{path}: no reviser, or damaged ({error}); train one") from None
        return cls(dense, sparse)
