"""Query revisions trained against each other: more feedback must not make a query worse (row 49)."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trichrome.papers.pattern.citations import citation
from trichrome.papers.pattern.collection import titles_and_translations
from trichrome.papers.pattern.impacts import best, impacts
from trichrome.papers.pattern.intervals import of_runs
from trichrome.papers.pattern.paper import Expectation, Line, Measured, Paper, Plot, Setting
from trichrome.papers.pattern.towers import nearest, vectors
from trichrome.papers.pattern.training import Plan, Read, Rows, fit, quality, shuffled
from trichrome.training.losses import comparative, infonce
from trichrome.training.revision import DensePool, Settings, SparsePool, train_reviser

#: Feedback documents of a measurement; the last number is the largest in training as well.
COUNTS = (0, 1, 2, 3, 5, 10)
MOST = COUNTS[-1]
SIGNALS = ("dense", "sparse")
OVER = {s: f"nDCG@10 with {MOST} feedback documents over plain training, {s}" for s in SIGNALS}
KEPT = {s: f"nDCG@10 with {MOST} feedback documents less that with 1, {s}" for s in SIGNALS}
TEMPERATURE = 0.05
Pool: TypeAlias = "DensePool | SparsePool"
#: nDCG@10 with each number of feedback documents, of each test query: [K, Q].
Each: TypeAlias = "NDArray[np.float64]"


def baseline(pool: Pool, answers: list[Rows], settings: Settings) -> nn.Module:
    """A reviser; each revision of a query has a loss of its own."""
    return train_reviser(pool, answers, replace(settings, comparative=0.0))


def treatment(pool: Pool, answers: list[Rows], settings: Settings) -> nn.Module:
    """The same from the same start and batches; a query's revisions are compared besides."""
    return train_reviser(pool, answers, replace(settings, comparative=1.0))


def run(setting: Setting) -> Measured:
    """Half of the training queries are the first search's, the other half the revisers'."""
    collection = titles_and_translations(
        setting.data,
        train=setting.of(600, 1500, 6000),
        test=setting.of(300, 800),
        passages=setting.of(1000, 2300, 12000),
    )
    read, seeds = Read.of(collection), setting.of(setting.seeds, 1)
    answers = collection.train.answers[len(collection.train) // 2 :]
    found: dict[str, dict[str, list[Each]]] = {s: {"plain": [], "LoL": []} for s in SIGNALS}
    words = _sparse(read)
    for seed in range(seeds):
        for signal in SIGNALS:
            train, test = _dense(setting, read, seed) if signal == "dense" else words
            settings = Settings(steps=setting.of(60, 300), rate=3e-3, temperature=TEMPERATURE, seed=seed)
            for name, arm in (("plain", baseline), ("LoL", treatment)):
                found[signal][name].append(_measured(test, arm(train, answers, settings), read))
        setting.tell("seeds", seed + 1, seeds)
    made = {s: {name: np.stack(rows) for name, rows in of.items()} for s, of in found.items()}  # [S, K, Q]
    last, one = len(COUNTS) - 1, COUNTS.index(1)
    over = {OVER[s]: of_runs(a["LoL"][:, last], a["plain"][:, last]) for s, a in made.items()}
    kept = {KEPT[s]: of_runs(a["LoL"][:, last], a["LoL"][:, one]) for s, a in made.items()}
    return Measured(
        intervals=over | kept,
        sources=[collection.source],
        identities=identities(),
        figures={
            f"nDCG@10, {signal}, {name}, {count} documents": float(values[:, i].mean())
            for signal, arms in made.items()
            for name, values in arms.items()
            for i, count in enumerate(COUNTS)
        },
        plots=[
            Plot(
                f"Feedback, {signal}",
                "feedback documents",
                "nDCG@10",
                {n: Line(list(zip(COUNTS, x.mean((0, 2)).tolist(), strict=True))) for n, x in arms.items()},
            )
            for signal, arms in made.items()
        ],
    )


def _dense(setting: Setting, read: Read, seed: int) -> tuple[DensePool, DensePool]:
    """A dual encoder's vectors: of the revisers' queries, and of the tests."""
    tower, half = read.tower(setting.scale, seed, layers=None), len(read.queries) // 2
    rate = 5e-3 if setting.scale == "mini" else 2e-5
    plan = Plan(setting.of(150, 150), setting.of(64, 24), rate, seed)
    order = shuffled(half, plan.rows)
    fit(read, tower, tower, plan, lambda s, t: infonce(s, t, temperature=TEMPERATURE), order=order)
    documents = vectors(tower, read.passages)
    queries = [vectors(tower, texts) for texts in (read.queries[half:], read.tests)]
    train, test = (DensePool(q, documents, nearest(q, documents, MOST)[0], MOST) for q in queries)
    return train, test


def _sparse(read: Read) -> tuple[SparsePool, SparsePool]:
    """BM25 as sparse vectors, likewise."""
    both = [impacts(texts, read.passages) for texts in (read.queries[len(read.queries) // 2 :], read.tests)]
    train, test = (SparsePool(q, documents, best(q, documents, MOST), MOST) for q, documents in both)
    return train, test


def _measured(pool: Pool, reviser: nn.Module, read: Read) -> Each:
    test = read.collection.test
    values = []
    with torch.inference_mode():
        for count in COUNTS:
            scores = pool.scores(reviser, np.arange(len(test)), torch.full((len(test),), count))
            values.append(quality(test, scores.topk(100).indices.numpy())["nDCG@10"])
    return np.stack(values)


def identities() -> dict[str, bool]:
    """What is compared, and that a query without feedback stays as it is."""
    losses = torch.tensor([[2.0, 1.0, 0.5], [1.0, 1.0, 1.0]])
    pool = DensePool(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), np.zeros((4, 3), np.int64), 3)
    alone = pool.scores(pool.reviser(), np.arange(4), torch.zeros(4, dtype=torch.long))
    return {
        "the comparative loss is 0 where more feedback never loses": float(comparative(losses)) == 0,
        "it is not where more feedback loses": float(comparative(losses.flip(1))) > 0,
        "without feedback a query stays as it is": bool(torch.allclose(alone, torch.eye(4), atol=1e-6)),
    }


PAPER = Paper(
    citation("lol"),
    claim="Penalising a revision that reads more feedback and ranks worse makes queries with much feedback "
    "better, and lets quality not fall as feedback is added, for dense and for sparse vectors.",
    expects=(
        *(Expectation(OVER[s], "points", "up") for s in SIGNALS),
        *(
            Expectation(KEPT[s], "points", "not down", margin=0.5, reported="the more feedback, the better")
            for s in SIGNALS
        ),
    ),
    taken="two revisions of a query a step, of numbers of documents drawn at random; the loss of passages "
    "against all and of queries against those of the step; the hinge between a query's revisions, weight 1",
    reconstructed="small networks over the vectors of query and documents, not an encoder of their texts; "
    "BM25 as sparse vectors; both arms revise each query twice; up to 10 documents; feedback is not reranked",
    run=run,
    tried="shown for dense vectors; BM25's queries gain a point from 1 to 10 documents under both losses, "
    "and training 60 steps instead of 300 (mini) leaves them worse with more feedback under both",
)
