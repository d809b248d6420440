"""ScalingNote: a small tower learns a large one's queries, and the documents stay as they are (row 31)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import trichrome
from trichrome.encoder import Encoder
from trichrome.encoder.checkpoints import NewHeads
from trichrome.encoder.small import BASE
from trichrome.papers.pattern.citations import citation
from trichrome.papers.pattern.collection import titles_and_texts
from trichrome.papers.pattern.following import towards
from trichrome.papers.pattern.intervals import of_runs, over_seeds
from trichrome.papers.pattern.paper import Expectation, Measured, Paper, Setting
from trichrome.papers.pattern.timing import milliseconds_each
from trichrome.papers.pattern.towers import EncoderTower, nearest, tokenize, vectors
from trichrome.papers.pattern.training import Plan, Read, mean, quality
from trichrome.training.losses import embedding_match
from trichrome.training.towers import shortened

NDCG = "nDCG@10"
KEPT = f"{NDCG} of the small tower's queries, less 95 % of that of the large one's"
LEARNT = f"{NDCG} of the small tower, distilled over merely cut short"
COST = "time of a query in the small tower, less half of that in the large one"
#: Of the large tower's 12 layers, how many the small one keeps.
LAYERS = 4
#: Queries that are timed, in turn through both towers.
TIMED = 20


def baseline(large: Encoder) -> Encoder:
    """What makes it small, before it has learnt anything: some of the layers."""
    return shortened(large, LAYERS)


def treatment(made: Tensor, wanted: Tensor) -> Tensor:
    """The loss of stage 2: mean squares, and 1 − cosine, to the frozen tower's vectors."""
    return embedding_match(made, wanted)


def run(setting: Setting) -> Measured:
    """Documents and queries by the large tower once; then queries by the small one, trained and not."""
    test, most = setting.of(300, 1000), setting.of(1900, 12000, 50000)
    collection = titles_and_texts(setting.data, train=1, test=test, passages=most)
    read = Read.of(collection, passage_tokens=setting.of(48, 64))
    # to learn from, any queries but the tests: the same draw has both
    others = titles_and_texts(setting.data, train=setting.of(1500, 40000), test=test, passages=1)
    queries = tokenize(others.train.texts, "query", 32)
    large = trichrome.load(BASE, device="cpu", dtype="float32", new_heads=NewHeads(False, None))
    small = baseline(large)
    drawn = np.random.default_rng(0).permutation(len(collection.test))
    asked = [[collection.test.texts[i] for i in drawn[s * TIMED : (s + 1) * TIMED]] for s in range(5)]
    spent = np.array([milliseconds_each((large, small), texts) for texts in asked])  # [5, 2]
    tower = EncoderTower(large)
    passages, tests, wanted = (vectors(tower, x) for x in (read.passages, read.tests, queries))
    setting.tell("documents", 1, 1)

    def found(queries: NDArray[np.float32]) -> NDArray[np.float64]:
        return quality(collection.test, nearest(queries, passages, 100)[0])[NDCG]  # [Q]

    seeds = setting.of(setting.seeds, 1)
    plan = Plan(setting.of(60, 2500, 10000), setting.of(32, 64), setting.of(5e-4, 1e-3), seed=0)
    best, cut, learnt = found(tests), found(vectors(EncoderTower(small), read.tests)), []
    start = deepcopy({n: v for n, v in small.network.state_dict().items() if n.startswith("backbone.layers")})
    for seed in range(seeds):
        small.network.load_state_dict(start, strict=False)
        student = EncoderTower(small)
        towards(student, queries, wanted, replace(plan, seed=seed), treatment)
        learnt.append(found(vectors(student, read.tests)))
        setting.tell("seeds", seed + 1, seeds)
    made = np.stack(learnt)  # [S, Q]
    half = [float(mine - theirs / 2) for theirs, mine in spent]
    return Measured(
        intervals={
            KEPT: of_runs(made, 0.95 * np.tile(best, (seeds, 1))),
            LEARNT: of_runs(made, np.tile(cut, (seeds, 1))),
            COST: over_seeds(half),
        },
        sources=[collection.source],
        identities=identities(),
        figures={
            f"{NDCG}, large": mean(best) / 100,
            f"{NDCG}, small": mean(made) / 100,
            f"{NDCG}, merely cut short": mean(cut) / 100,
            "share of the large one's nDCG@10": float(made.mean() / best.mean()),
            "milliseconds a query, large": float(spent[:, 0].mean()),
            "milliseconds a query, small": float(spent[:, 1].mean()),
            "share of the large one's time": float(spent[:, 1].sum() / spent[:, 0].sum()),
        },
    )


def identities() -> dict[str, bool]:
    """What the two terms are to each other."""
    draw = torch.Generator().manual_seed(0)
    made, wanted = (torch.randn(8, 16, generator=draw, dtype=torch.float64) for _ in range(2))
    longer = 3 * made / made.norm(dim=1, keepdim=True)
    made, wanted = (x / x.norm(dim=1, keepdim=True) for x in (made, wanted))

    def terms(x: Tensor) -> tuple[float, float]:
        return float(embedding_match(x, wanted, cosine=0)), float(embedding_match(x, wanted, mse=0))

    (squares, cosines), (far, same) = terms(made), terms(longer)
    return {
        "between unit vectors of width d, the mean square is 2/d of 1 − cosine": abs(squares - cosines / 8)
        < 1e-12,
        "the cosine sees no length, the squares do": abs(same - cosines) < 1e-12 and far > squares,
    }


PAPER = Paper(
    citation("scaling_note"),
    claim="A query tower of a third of the layers, distilled to the frozen large tower's query vectors, "
    "keeps 95 % of its nDCG@10 on the documents that the large one encoded, at less than half of a query's "
    "cost.",
    expects=(
        Expectation(KEPT, "points", "up", reported="a 4-layer tower serves queries of a 7-billion one"),
        Expectation(LEARNT, "points", "up"),
        Expectation(COST, "milliseconds", "down", reported="the online latency of the small model"),
    ),
    taken="the second stage: only queries are learnt, by mean squares and 1 − cosine to the frozen tower's "
    "vectors, and the document index is not made again",
    reconstructed="the large tower is the 12-layer base as it comes, trained by others, instead of a "
    "language model after a first stage of our own; the small one starts from 4 of its layers, evenly "
    "spread, words and positions frozen; both terms have weight 1; titles of packages as queries",
    run=run,
    tried="2,000 steps on 12,000 titles at a rate of 3e-4 reached 92 %; on other seeds, among 39,000 texts, "
    "1,500 steps on 38,523 titles reached 86 % at 3e-4 and 93 % at 1e-3: a shortened tower has much to learn "
    "again, at rates that would harm a whole one",
)
