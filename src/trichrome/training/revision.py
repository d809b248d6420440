"""Training query revisers: each query is revised with less and with more feedback, and the two are compared.

    Q queries, B of a step · N documents that a revised query is to rank · K feedback documents at most
    R = 1 + `compare` revisions of a query in a step

    L = mean over revisions of L_passage + λ_q · L_query  +  λ_c · comparative(L_passage)

L_passage: the answers against all N documents. L_query: of an answer, its query against the others of the
step. λ_c = 0 is plain training on the same revisions. (LoL, arXiv 2204.11545, section 3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from trichrome.embeddings import Embedding, Embeddings, Floats, Sparse
from trichrome.errors import TrichromeError
from trichrome.search.feedback import align
from trichrome.search.revisers import DenseReviser, SparseReviser
from trichrome.training.losses.comparative import comparative
from trichrome.training.losses.infonce import infonce, infonce_each
from trichrome.training.optimiser import rate_share
from trichrome.training.recipe import Optimiser
from trichrome.training.target import Target

Rows: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True)
class Settings:
    """compare: revisions beside the first, each with more documents than the one before. comparative,
    query_loss: λ_c and λ_q. temperature: divides scores before the softmax. steps, rows (B), rate: of AdamW.
    seed: of start and draws."""

    compare: int = 1
    comparative: float = 1.0
    query_loss: float = 1.0
    temperature: float = 0.05
    steps: int = 300
    rows: int = 64
    rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("compare", "steps", "rows"):
            if getattr(self, name) < 1:
                raise TrichromeError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature <= 0 or self.rate <= 0 or min(self.comparative, self.query_loss) < 0:
            raise TrichromeError("temperature and rate must be > 0, comparative and query_loss ≥ 0")


class DensePool:
    """Queries [Q, D], the documents that they are to rank [N, D], and what a first search gave to each query,
    found [Q, ≥ most]: rows of documents, best first. A query is revised with at most `most` of them."""

    def __init__(self, queries: Floats, documents: Floats, found: Rows, most: int) -> None:
        self.queries, self.documents = (
            torch.from_numpy(np.array(x, np.float32)) for x in (queries, documents)
        )
        self.found, self.most = torch.from_numpy(found[:, :most]), most

    def reviser(self, seed: int = 0) -> DenseReviser:
        """One that is not trained yet."""
        return DenseReviser(self.documents.shape[1], seed=seed)

    def scores(self, reviser: nn.Module, rows: Rows, counts: Tensor) -> Tensor:
        """Of queries [B], each revised with the first counts [B] of its documents: [B, N]."""
        mask = torch.arange(self.most) < counts[:, None]
        feedback = self.documents[self.found[rows]]  # [B, K, D]
        made: Tensor = reviser(self.queries[rows], feedback, mask) @ self.documents.T
        return made


class SparsePool:
    """The same of sparse vectors. Scores are divided by the length of the query as it was, and by the mean
    length of the documents: so they are as large as cosines, and one temperature serves both."""

    def __init__(self, queries: Sparse, documents: Sparse, found: Rows, most: int) -> None:
        self.queries, self.found, self.most = queries, found[:, :most], most
        self._every = Embeddings(sparse=documents)
        self.columns, places = np.unique(documents.ids, return_inverse=True)  # the T' tokens that occur
        weights = np.array(documents.weights, np.float32)
        shape = (len(documents), len(self.columns))
        self.matrix = csr_array((weights, places, np.asarray(documents.indptr)), shape)  # [N, T']
        self.turned = self.matrix.T.tocsr()
        lengths = np.sqrt(self.matrix.power(2).sum(1))  # [N]
        self.length = float(lengths.sum() / max(1, int((np.diff(self.matrix.indptr) > 0).sum())))

    def reviser(self, seed: int = 0) -> SparseReviser:
        """One that is not trained yet."""
        return SparseReviser(seed=seed)

    def scores(self, reviser: nn.Module, rows: Rows, counts: Tensor) -> Tensor:
        """Of queries [B], each revised with the first counts [B] of its documents: [B, N]."""
        made = [self._aligned(int(row)) for row in rows]
        widest = max(len(ids) for ids, _, _ in made)
        of_query = torch.zeros(len(rows), widest)
        of_documents = torch.zeros(len(rows), self.most, widest)
        place = torch.full((len(rows), widest), len(self.columns))  # a last column for what no document has
        for i, (ids, q, d) in enumerate(made):
            of_query[i, : len(ids)] = torch.from_numpy(q)
            of_documents[i, :, : len(ids)] = torch.from_numpy(d)
            at = np.searchsorted(self.columns, ids).clip(max=len(self.columns) - 1)
            place[i, : len(ids)] = torch.from_numpy(np.where(self.columns[at] == ids, at, len(self.columns)))
        mask = torch.arange(self.most) < counts[:, None]
        weights = reviser(of_query, of_documents, mask) / of_query.norm(dim=1, keepdim=True).clamp(min=1e-6)
        wide = torch.zeros(len(rows), len(self.columns) + 1).scatter_add(1, place, weights)  # [B, T' + 1]
        scores: Tensor = _Products.apply(wide[:, :-1], self.matrix, self.turned) / self.length  # type: ignore[no-untyped-call]
        return scores

    def _aligned(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        ids, weights = self.queries.row(row)
        return align(Embedding(None, ids, weights), self._every[self.found[row]])


class _Products(torch.autograd.Function):
    """Vectors [B, T'] by sparse rows [N, T'] → [B, N]. torch sorts such a matrix anew for each gradient."""

    @staticmethod
    def forward(ctx: Any, wide: Tensor, matrix: csr_array, turned: csr_array) -> Tensor:
        """turned: the matrix's transpose [T', N]."""
        ctx.turned = turned
        return torch.from_numpy(matrix @ wide.detach().numpy().T).T.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.from_numpy(ctx.turned @ gradients[0].numpy().T).T, None, None


def train_reviser(
    pool: DensePool | SparsePool, answers: Sequence[Rows], settings: Settings
) -> DenseReviser | SparseReviser:
    """A reviser of the pool's vectors. answers: of each query, rows of documents, at least one."""
    if settings.compare > pool.most:
        raise TrichromeError(f"{settings.compare + 1} revisions need more than {pool.most} documents")
    module = pool.reviser(settings.seed)
    draw = np.random.default_rng(settings.seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=settings.rate, weight_decay=0.01)
    schedule = Optimiser(rate=settings.rate)
    for step in range(settings.steps):
        rows = np.sort(draw.choice(len(answers), min(settings.rows, len(answers)), replace=False))  # [B]
        choices = np.stack([draw.permutation(pool.most + 1)[: settings.compare + 1] for _ in rows])
        counts = torch.from_numpy(np.sort(choices, axis=1))  # [B, R], of documents, ascending
        scores = torch.stack([pool.scores(module, rows, column) for column in counts.T], 1)  # [B, R, N]
        total = loss(scores, [answers[row] for row in rows], settings)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * rate_share(step, settings.steps, schedule)
        optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    return module.eval()


def loss(scores: Tensor, answers: Sequence[Rows], settings: Settings) -> Tensor:
    """Scores [B, R, N] of each query's revisions, from less to more feedback, and its answers → scalar."""
    queries, revisions, documents = scores.shape
    positive = torch.zeros(queries, documents, dtype=torch.bool)
    for i, own in enumerate(answers):
        positive[i, torch.from_numpy(own)] = True
    target = Target(positive, torch.ones_like(positive))
    each = [infonce_each(scores[:, r], target, temperature=settings.temperature) for r in range(revisions)]
    losses = torch.stack(each, 1)  # [B, R]
    total = losses.mean()
    if settings.query_loss:
        columns = torch.tensor([int(own[0]) for own in answers])
        itself = torch.eye(queries, dtype=torch.bool)
        others = Target(itself, itself | ~positive[:, columns].T)  # an answer of both may find either
        of_queries = [
            infonce(scores[:, r, columns].T, others, temperature=settings.temperature)
            for r in range(revisions)
        ]
        total = total + settings.query_loss * torch.stack(of_queries).mean()
    if settings.comparative:
        total = total + settings.comparative * comparative(losses)
    return total
