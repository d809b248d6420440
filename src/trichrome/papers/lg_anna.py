"""LG-ANNA: mined negatives that come too near the positive, by a margin of each query's own (row 40)."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trichrome.negatives.settings import Rules
from trichrome.papers.pattern.citations import citation
from trichrome.papers.pattern.collection import titles_and_halves
from trichrome.papers.pattern.intervals import of_runs
from trichrome.papers.pattern.mining import drawn
from trichrome.papers.pattern.paper import Expectation, Measured, Paper, Setting
from trichrome.papers.pattern.planted import Judged, Masks, one_label, removed
from trichrome.papers.pattern.training import Plan, Read, fit, quality, search
from trichrome.training.losses import infonce
from trichrome.training.target import Target

NDCG = "nDCG@10"
REGAINED = f"{NDCG}, negatives by the adaptive margin over all that were mined"
FOUND = "share removed by the adaptive margin: of planted answers, less that of other candidates"
TEMPERATURE = 0.05
#: Standard deviations of a query's own candidates; NV-Embed's share of the positive's score.
MARGIN, SHARE = 0.5, 0.95
NONE, ADAPTIVE, RELATIVE, RIGHT = (
    "all mined",
    "adaptive margin",
    f"{SHARE:.0%} of the positive",
    "none planted",
)
#: Candidates a query; those that may be drawn, the best that an arm keeps; those that a step takes.
DEPTH, TOP, EACH = 50, 8, 4

#: Of one training, by test query.
Each = NDArray[np.float64]


def baseline(judged: Judged) -> Masks:
    """Nothing is removed."""
    return judged.removed(Rules())


def treatment(judged: Judged) -> Masks:
    """s > s⁺ − a·σ(q), the rule `--adaptive-margin` of `trichrome mine`."""
    return judged.removed(Rules(adaptive_margin=MARGIN))


def beside(judged: Judged) -> Masks:
    """s > 0.95·s⁺, `--relative-margin`."""
    return judged.removed(Rules(relative_margin=SHARE))


def run(setting: Setting) -> Measured:
    """One label a query, its other answers planted; a tower mines, and goes on with what an arm keeps."""
    collection = titles_and_halves(
        setting.data, train=2000, test=1000, passages=setting.of(6000, 6000, 50000)
    )
    known, seeds = Read.of(collection), setting.of(setting.seeds, 1)
    found: dict[str, list[Each]] = {NONE: [], ADAPTIVE: [], RELATIVE: [], RIGHT: []}
    figures: dict[str, list[float]] = {}
    recall, others = [], []
    for seed in range(seeds):
        labelled, start = one_label(known, seed), known.tower(setting.scale, seed)
        rate = setting.of(3e-3, 2e-4, 2e-5)
        fit(labelled, start, start, Plan(setting.of(100, 200), setting.of(64, 32), rate, seed), loss)
        judged = Judged.by(start, labelled, known, DEPTH)
        gone = {NONE: baseline(judged), ADAPTIVE: treatment(judged), RELATIVE: beside(judged)}
        for arm, masks in (gone | {RIGHT: judged.planted}).items():
            plan = Plan(setting.of(60, 120, 400), setting.of(32, 24, 64), rate, 1000 + seed)
            tower = deepcopy(start)
            fit(labelled, tower, tower, plan, loss, negatives=drawn(judged.kept(masks, TOP), EACH))
            found[arm].append(quality(collection.test, search(known, tower, tower))[NDCG])
        shares = {arm: judged.shares(gone[arm]) for arm in (ADAPTIVE, RELATIVE)}
        for arm in shares:
            for name, share in shares[arm].items():
                figures.setdefault(f"{name}, {arm}", []).append(float(share.mean()))
            figures.setdefault(f"precision, {arm}", []).append(judged.precision(gone[arm]))
        figures.setdefault("planted answers among the candidates", []).append(judged.planted.mean())
        recall.append(shares[ADAPTIVE]["recall"])
        others.append(shares[ADAPTIVE]["removed of the others"])
        setting.tell("seeds", seed + 1, seeds)
    return Measured(
        intervals={REGAINED: of_runs(found[ADAPTIVE], found[NONE]), FOUND: of_runs(recall, others)},
        sources=[collection.source],
        identities=identities(),
        figures={f"{NDCG}, {arm}": float(np.mean(values)) for arm, values in found.items()}
        | {name: float(np.nanmean(values)) for name, values in figures.items()},
    )


def loss(scores: Tensor, target: Target) -> Tensor:
    """Of all arms."""
    return infonce(scores, target, temperature=TEMPERATURE)


def identities() -> dict[str, bool]:
    """What the two margins see of a judge's scores; powers of two keep the arithmetic exact."""
    draw = np.random.default_rng(0)
    scores: NDArray[np.float32] = draw.integers(0, 64, 50).astype(np.float32) / np.float32(64)
    positive = scores[:1]

    def same(scale: float, shift: float, rules: Rules) -> bool:
        moved, above = ((scale * x + shift).astype(np.float32) for x in (scores, positive))
        return bool(np.array_equal(removed(moved, above, rules), removed(scores, positive, rules)))

    adaptive, relative = Rules(adaptive_margin=MARGIN), Rules(relative_margin=SHARE)
    return {
        "the adaptive margin removes the same when scores are multiplied and have a number added": all(
            same(scale, shift, adaptive) for scale in (0.5, 2, 16) for shift in (-1, 0, 4)
        ),
        "the share of the positive removes the same when scores are multiplied": same(2, 0, relative),
        "not when a number is added": not same(1, 4, relative),
    }


PAPER = Paper(
    citation("lg_anna"),
    claim="A margin below the positive's score, of each query's own width, tells passages that answer a "
    "query from other mined candidates, and training without what it removes finds more.",
    expects=(Expectation(REGAINED, "points", "up"), Expectation(FOUND, "points", "up")),
    taken="the judge is a retriever; a candidate is kept if its score is no higher than the positive's less "
    "a margin that depends on the query; NV-Embed's 95 % of the positive beside it",
    reconstructed="the margin is half of the standard deviation of a query's 50 candidates; the tower that "
    "mines is the judge; titles of packages have two answers, the halves of their description: one drawn at "
    "random is the label, the other is planted; tests ask for both; a small tower or four layers of the base",
    run=run,
    tried="the whole base in 40 steps was hardly harmed by planted answers, and on its narrow range of "
    "cosines both margins took a quarter of all candidates: what mines has to have learnt the task",
)
