"""Training against an index of codes: the query encoder and the centroids together, the codes as they are.

    B queries of width D · N documents as codes of M bytes · K centroids of w numbers a piece

Product quantisation rounds documents with no regard to what ranks them. Here the scores that search will see,
a query's products with what the codes stand for, are trained: the loss looks at the best documents of the
index as it is at each step, and its gradient moves the query encoder and the centroids, which go back to the
index. Which centroid stands for which document stays, so nothing is encoded again, and there are but K·D
numbers to learn. (JPQ, Zhan et al., arXiv 2108.00644, section 4: ranking-oriented loss, PQ centroid
optimisation, end-to-end negative sampling.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome.index.pq import Codes, ProductQuantiser
from trichrome.training.target import Target

#: Documents that each query sees of the index, as in the paper.
DEPTH = 200
#: Documents that are put together from their codes at once.
_BLOCK = 1 << 15


class CodedIndex(nn.Module):
    """Codes [N, M] whose centroids [M, K, w] are parameters; the rotation [D, M·w] is fixed."""

    def __init__(self, quantiser: ProductQuantiser, codes: Codes) -> None:
        """codes: what `quantiser.encode` made of the documents."""
        super().__init__()
        self.centroids = nn.Parameter(torch.from_numpy(quantiser.centroids.copy()))
        self.register_buffer("rotation", torch.from_numpy(quantiser.rotation.copy()), persistent=False)
        self.register_buffer("codes", torch.from_numpy(np.ascontiguousarray(codes)), persistent=False)
        self.rotation: Tensor
        self.codes: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Queries [B, D] and rows of documents [B, C], each query's own → scores [B, C], with gradients to
        the queries and the centroids."""
        pieces, _, width = self.centroids.shape
        turned = (queries.to(self.rotation.dtype) @ self.rotation).view(-1, pieces, width)  # [B, M, w]
        table = torch.einsum("bmw,mkw->bmk", turned, self.centroids)  # [B, M, K]
        codes = self.codes[documents].long().transpose(1, 2)  # [B, M, C]
        return table.gather(2, codes).sum(1)

    @torch.no_grad()
    def nearest(self, queries: Tensor, k: int) -> Tensor:
        """Rows [B, k] of the documents that score best with queries [B, D] by the centroids as they are now,
        the best first."""
        pieces = torch.arange(len(self.centroids), device=self.codes.device)
        turned = queries.to(self.rotation.dtype) @ self.rotation  # [B, M·w]
        scores, rows = [], []
        for start in range(0, len(self), _BLOCK):
            codes = self.codes[start : start + _BLOCK].long()
            here = turned @ self.centroids[pieces, codes].flatten(1).T  # [B, n]
            values, order = here.topk(min(k, len(codes)), dim=1)
            scores.append(values)
            rows.append(order + start)
        best = torch.cat(scores, 1).topk(min(k, len(self)), dim=1).indices
        return torch.cat(rows, 1).gather(1, best)

    def quantiser(self) -> ProductQuantiser:
        """What the centroids have become."""
        return ProductQuantiser(
            self.rotation.cpu().numpy().copy(), self.centroids.detach().cpu().float().numpy().copy()
        )


def with_answers(found: Tensor, answers: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Target]:
    """What an index gave to queries, rows [B, k], and the rows of each query's answers → rows [B, C] and
    their target.

    Answers that are not among the k are put at the end, C being wide enough for the query with the most of
    them; what fills the others' rows counts for nothing. Every query needs an answer (ValueError).
    """
    rows = found.cpu().numpy()
    missing = [np.setdiff1d(own, row) for own, row in zip(answers, rows, strict=True)]
    widest = max((len(own) for own in missing), default=0)
    wide = np.zeros((len(rows), rows.shape[1] + widest), np.int64)
    wide[:, : rows.shape[1]] = rows
    mask = np.zeros(wide.shape, np.bool_)
    mask[:, : rows.shape[1]] = True
    for i, own in enumerate(missing):
        wide[i, rows.shape[1] : rows.shape[1] + len(own)] = own
        mask[i, rows.shape[1] : rows.shape[1] + len(own)] = True
    positive = np.stack([np.isin(row, own) for row, own in zip(wide, answers, strict=True)]) & mask
    target = Target(torch.from_numpy(positive), torch.from_numpy(mask)).to(found.device)
    return torch.from_numpy(wide).to(found.device), target
