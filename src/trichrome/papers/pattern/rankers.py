"""Rankers: what reads a query and a passage word by word, where a tower has one vector for each.

    B queries · n passages of each · L words of a text · d width of their vectors

A `WordRanker` compares word vectors like those of a `BagTower`, a `TokenRanker` the base's last states. Both
look for the nearest word of the passage for every word of the query (late interaction, arXiv 2004.12832).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome import scoring
from trichrome.encoder.batching import collate, token_budget_batches
from trichrome.papers.pattern.paper import Scale
from trichrome.papers.pattern.towers import BUDGET, BagTower, EncoderTower, Texts, inferred
from trichrome.papers.pattern.training import Negatives, Plan, Read, Rows, Teacher, descend, shuffled
from trichrome.training.encoded import Encoded, concatenate, encode
from trichrome.training.losses import infonce
from trichrome.training.target import Target

Scores: TypeAlias = "NDArray[np.float32]"
#: Rows of queries [B] and of passages [B, n], each query's own → [B, n].
Judge: TypeAlias = "Callable[[Rows, Rows], Scores]"
#: What a mean of cosines is multiplied by before the first step; it is trained.
SCALE = 20.0


class WordRanker(nn.Module):
    """Σ w(t)·max_j cos(v(t), v(p_j)) over a query's words, divided by Σ w(t), times a scale: [B, n]."""

    def __init__(self, known: Sequence[int], seed: int = 0) -> None:
        """known: the token ids that it will meet; others are passed over."""
        super().__init__()
        self.bag = BagTower(known, seed=seed)
        self.scale = nn.Parameter(torch.tensor(SCALE).log())

    def forward(self, queries: Texts, passages: Texts) -> Tensor:
        """B queries, and their B·n passages, those of the first query first → scores [B, n]."""
        (q, q_counts), (p, p_counts) = self._places(queries), self._places(passages)  # [B, Lq], [B·n, Lp]
        table = F.normalize(self.bag.words, dim=1)  # [V, d]
        b, n = len(queries), len(passages) // len(queries)
        of_q, of_p = F.embedding(q, table), F.embedding(p, table)  # repeatable gradients, see `BagTower`
        near = torch.einsum("bqd,bnpd->bnqp", of_q, of_p.view(b, n, *p.shape[1:], -1))
        near = near.masked_fill(~p_counts.view(b, n, 1, -1), -1).amax(3)  # [B, n, Lq]
        weights = F.embedding(q, self.bag.weight[:, None]).squeeze(2)  # [B, Lq]
        weights = (weights.exp() * q_counts)[:, None]  # [B, 1, Lq]
        mean = (near * weights).sum(2) / weights.sum(2).clamp(min=1e-6)
        return mean * self.scale.exp()

    def frozen(self, queries: Texts, passages: Texts) -> Judge:
        """Its scores of rows of these texts, as it is now."""

        def judge(rows: Rows, columns: Rows) -> Scores:
            with torch.no_grad():
                made = self(
                    [queries[i] for i in rows.tolist()], [passages[i] for i in columns.ravel().tolist()]
                )
            return np.asarray(made.numpy(), np.float32)

        return judge

    def _places(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Rows of the table of word vectors [N, L], and which of them count."""
        own = [[i for i, counts in zip(t.ids, t.scored, strict=True) if counts] for t in texts]
        longest = max(map(len, own))
        ids = self.bag.place[torch.tensor([row + [0] * (longest - len(row)) for row in own])]
        there = torch.arange(longest) < torch.tensor([len(row) for row in own])[:, None]
        return ids.clamp(min=0), there & (ids >= 0)


class TokenRanker(nn.Module):
    """The mean over a query's tokens of the largest product with a passage's, of the base's last states
    through a linear layer, times a scale; every layer trained: [B, n]."""

    def __init__(self) -> None:
        super().__init__()
        tower = EncoderTower.of_layers(None)
        self.network, self.config, self.device = tower.network, tower.config, tower.device
        assert self.network.heads.multivector is not None
        self.network.heads.multivector.requires_grad_(True)
        self.scale = nn.Parameter(torch.tensor(SCALE).log())

    def forward(self, queries: Texts, passages: Texts) -> Tensor:
        """As `WordRanker.forward`."""
        q, p = self._encoded(queries), self._encoded(passages)
        assert q.vectors is not None
        assert p.vectors is not None
        scores = scoring.multivector_scores(q.vectors, p.vectors, q.vector_mask, p.vector_mask)  # [B, B·n]
        own = torch.arange(len(passages)).view(len(queries), -1)  # [B, n]
        return scores.cpu().gather(1, own) * self.scale.exp()

    def frozen(self, queries: Texts, passages: Texts) -> Judge:
        """As `WordRanker.frozen`; every text is read once, whatever it is scored against."""
        q, p = (inferred(self.network, self.config, texts, "multivector") for texts in (queries, passages))
        scale = self.scale.exp().item()

        def judge(rows: Rows, columns: Rows) -> Scores:
            each = np.repeat(rows, columns.shape[1])
            made = scoring.score_pairs("multivector", q[each], p[columns.ravel()])
            return np.asarray(scale * made.reshape(columns.shape), np.float32)

        return judge

    def _encoded(self, texts: Texts) -> Encoded:
        parts, order = [], []
        for rows in token_budget_batches([len(t.ids) for t in texts], BUDGET):
            batch = collate([texts[i] for i in rows], self.config.pad_id).to(self.device)
            parts.append(encode(self.network, batch, ("multivector",)))
            order += rows
        whole, back = concatenate(parts), torch.tensor(order, device=self.device).argsort()
        return Encoded(whole.ids[back], whole.vector_mask[back], vectors=whole.tensors()[0][back].float())


Ranker: TypeAlias = "WordRanker | TokenRanker"


def ranker(read: Read, scale: Scale, seed: int) -> Ranker:
    """A ranker that is not trained yet: of word vectors at scale mini, of the base's states otherwise."""
    if scale != "mini":
        return TokenRanker()
    return WordRanker([i for t in read.queries + read.tests + read.passages for i in t.ids], seed)


def fit_ranker(read: Read, model: Ranker, plan: Plan, negatives: Negatives) -> list[float]:
    """Train a ranker to put a query's answer before its negatives: cross-entropy over them; returns the loss
    of each step."""
    train = read.collection.train
    order = shuffled(len(train), plan.rows)

    def value(step: int, draw: np.random.Generator) -> Tensor:
        queries = order(step, draw)  # [B]
        answer = np.array([draw.choice(train.answers[q]) for q in queries])
        rows = np.concatenate([answer[:, None], negatives(queries, draw)], 1)  # [B, n]
        positive = torch.zeros(rows.shape, dtype=torch.bool)
        positive[:, 0] = True
        answers = np.stack([np.isin(row, train.answers[q]) for row, q in zip(rows, queries, strict=True)])
        target = Target(positive, positive | ~torch.from_numpy(answers))
        return infonce(scored(read, model, queries, rows), target, temperature=1)

    return descend(plan, model.parameters(), value)


def scored(read: Read, model: Ranker, queries: Rows, passages: Rows) -> Tensor:
    """Training queries [B] and passages [B, n], each query's own → scores [B, n]."""
    found: Tensor = model([read.queries[i] for i in queries], [read.passages[i] for i in passages.ravel()])
    return found


def teacher(read: Read, model: Ranker) -> Teacher:
    """A ranker's scores of each query's own passages, as `fit` lays them out, by its weights as they are now;
    of others it gives none."""
    judge = model.frozen(read.queries, read.passages)

    def scores(queries: Rows, passages: Rows) -> Scores:
        count = len(queries)
        own = np.arange(count, len(passages)).reshape(count, -1)  # [B, n]
        columns = np.concatenate([np.arange(count)[:, None], own], 1)  # [B, 1 + n]
        made = np.full((count, len(passages)), np.nan, np.float32)
        np.put_along_axis(made, columns, judge(queries, passages[columns]), 1)
        return made

    return scores
