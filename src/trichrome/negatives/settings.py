"""How negatives are mined: from where, which are thrown out, how many are drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from trichrome.embeddings import SIGNALS
from trichrome.errors import TrichromeError
from trichrome.scoring import M3_WEIGHTS

SourceName: TypeAlias = Literal["bm25", "bm25-words", "dense", "sparse", "hybrid", "random", "topic"]
Judge: TypeAlias = Literal["dense", "sparse", "multivector", "hybrid", "none"]
Draw: TypeAlias = Literal["top", "random", "bins"]

SOURCES: tuple[SourceName, ...] = ("bm25", "bm25-words", "dense", "sparse", "hybrid", "random", "topic")
JUDGES: tuple[Judge, ...] = ("dense", "sparse", "multivector", "hybrid", "none")
DRAWS: tuple[Draw, ...] = ("top", "random", "bins")

_SOURCE = re.compile(r"([a-z0-9-]*[a-z][a-z0-9]*)(?::(?:(\d+)-)?(\d+))?")


@dataclass(frozen=True)
class Source:
    """One list of candidates, and the window of ranks taken from it.

    name: bm25 (over the model's tokens), bm25-words, dense, sparse, hybrid (the weighted sum of scores over
    the union of the dense and sparse lists), random (any passage), topic (passages that answer queries of
    the same cluster, as in TAS-B, arXiv 2104.06967).
    first, last: ranks from 1, both included, counted before anything is thrown out. The M3 recipe takes
    ranks 10 to 210. random and topic have no order: their window says how many.
    """

    name: SourceName
    first: int = 1
    last: int = 100

    def __post_init__(self) -> None:
        if self.name not in SOURCES:
            raise TrichromeError(f"unknown source {self.name!r}; there are {', '.join(SOURCES)}")
        if not 1 <= self.first <= self.last:
            raise TrichromeError(
                f"source {self.name}: ranks count from 1 and the first comes before the last, "
                f"got {self.first}-{self.last}"
            )

    @classmethod
    def parse(cls, text: str) -> Source:
        """ "dense", "dense:50" (ranks 1 to 50) or "dense:10-210"."""
        found = _SOURCE.fullmatch(text.strip())
        if not found:
            raise TrichromeError(
                f"source {text!r}: write NAME, NAME:LAST or NAME:FIRST-LAST, as dense:10-210"
            )
        name, first, last = found.groups()
        return cls(name, int(first or 1), int(last or 100))  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        return f"{self.name}:{self.first}-{self.last}"


@dataclass(frozen=True)
class Rules:
    """When a candidate's score is too high for a negative. s⁺ is the score of the query's lowest positive.

    absolute_margin m keeps s ≤ s⁺ − m. relative_margin r keeps s ≤ s⁺ − (1 − r)·|s⁺|, which for a positive
    s⁺ is s ≤ r·s⁺ (NV-Retriever, arXiv 2407.15831, takes 0.95). ceiling c keeps s ≤ c. None: not applied.

    adaptive_margin a keeps s ≤ s⁺ − a·σ(q), where σ(q) is the standard deviation of the scores of the query's
    candidates (those that no rule on ids and texts removes; 0 for fewer than two): a margin in each query's
    own units, which stays the same whatever a judge's scores are multiplied with, or have added. After
    LG-ANNA-Embedding (arXiv 2506.07438); that σ is what it adapts to is our reconstruction.
    """

    absolute_margin: float | None = None
    relative_margin: float | None = None
    ceiling: float | None = None
    adaptive_margin: float | None = None

    def __post_init__(self) -> None:
        if self.adaptive_margin is not None and not self.adaptive_margin >= 0:
            raise TrichromeError(
                f"the adaptive margin is a number of standard deviations ≥ 0, got {self.adaptive_margin}"
            )
        if self.relative_margin is not None and not 0 < self.relative_margin <= 1:
            raise TrichromeError(f"the relative margin is a share in (0, 1], got {self.relative_margin}")

    def __bool__(self) -> bool:
        limits = (self.absolute_margin, self.relative_margin, self.adaptive_margin, self.ceiling)
        return any(v is not None for v in limits)


@dataclass(frozen=True)
class MineSettings:
    """How to mine.

    sources: where candidates come from; their windows are joined. fill: sources asked only for queries that
    are left short. negatives: how many a query gets. draw: "top" (the highest scores), "random", or "bins"
    (in turn from `bins` equal parts of the candidates' range of scores).
    judge: the score that the rules and the draw look at; "none" for neither (draws then go by rank).
    weights: of dense, sparse and multivector in hybrid scores, as source and as judge.
    rules: for the judge's scores. rescore_rules: for the scores of a rescorer (a cross-encoder, say), which
    sees at most `rescored` candidates a query, in the order drawn.
    within_language: candidates are of the row's `lang`. pair_tags: `lang` is "A-B", the query's language and
    the passage's, as in bitext; B is then the language that counts. keep: the row's own negatives stay, and
    count towards `negatives`.
    scores: whose scores are written as pos_scores and neg_scores.
    topic_size: queries a topic, about. block: queries searched at a time.
    """

    sources: tuple[Source, ...] = (Source("dense", 10, 210),)
    fill: tuple[Source, ...] = ()
    negatives: int = 7
    draw: Draw = "random"
    bins: int = 5
    judge: Judge = "dense"
    weights: tuple[float, float, float] = M3_WEIGHTS
    rules: Rules = field(default_factory=lambda: Rules(relative_margin=0.95))
    rescore_rules: Rules = field(default_factory=lambda: Rules(relative_margin=0.95))
    rescored: int = 30
    within_language: bool = False
    pair_tags: bool = False
    keep: bool = False
    scores: Literal["none", "judge", "rescorer"] = "none"
    topic_size: int = 200
    block: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise TrichromeError("mining needs at least one source of candidates")
        for name, value, known in (("judge", self.judge, JUDGES), ("draw", self.draw, DRAWS)):
            if value not in known:
                raise TrichromeError(f"unknown {name} {value!r}; there are {', '.join(known)}")
        for name in ("negatives", "bins", "rescored", "topic_size", "block"):
            if getattr(self, name) < 1:
                raise TrichromeError(f"{name} must be at least 1, got {getattr(self, name)}")
        if len(self.weights) != len(SIGNALS) or min(self.weights) < 0 or not sum(self.weights) > 0:
            raise TrichromeError(
                f"weights: one ≥ 0 for each of {', '.join(SIGNALS)}, not all 0: {self.weights}"
            )
        if self.judge == "none" and self.rules:
            raise TrichromeError("margins and ceilings need a judge: choose one, or leave the rules out")
        if self.judge == "none" and self.draw == "bins":
            raise TrichromeError("score bins need a judge: choose one, or draw top or random")
        if self.judge == "none" and self.scores == "judge":
            raise TrichromeError("without a judge there are no scores to write")

    def language(self, lang: str | None) -> str | None:
        """The language of a row's passages."""
        return lang.rpartition("-")[2] if self.pair_tags and lang is not None else lang

    @property
    def judged(self) -> tuple[str, ...]:
        """The signals in the judge's score."""
        return self._signals(self.judge)

    @property
    def signals(self) -> tuple[str, ...]:
        """The encoder's outputs that mining needs, for passages and queries."""
        wanted = set(self.judged)
        for source in (*self.sources, *self.fill):
            wanted |= set(self._signals(source.name))
            wanted |= {"dense", "sparse"} if source.name == "hybrid" else set()
            wanted |= {"dense"} if source.name == "topic" else set()
        return tuple(name for name in SIGNALS if name in wanted)

    def _signals(self, name: str) -> tuple[str, ...]:
        if name == "hybrid":
            return tuple(s for s, w in zip(SIGNALS, self.weights, strict=True) if w)
        return (name,) if name in SIGNALS else ()
