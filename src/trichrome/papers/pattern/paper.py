"""What a paper is here: a citation, a claim with the direction that it expects, and a run that measures it.

Everything of a `Paper` but its run is declared before anything is measured. A row works when the interval of
every expectation clears its bound in the declared direction; otherwise it fails, and is shown as failing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, get_args

T = TypeVar("T")

Family: TypeAlias = Literal[
    "negative sampler",
    "false-negative filter",
    "loss",
    "teacher",
    "head",
    "batch sampler",
    "index",
    "feedback",
    "generative retrieval",
    "context for a reader",
    "robustness",
    "attack",
    "multimodal",
    "metric",
    "data",
    "synthetic data",
    "stages",
]

#: "up" and "down": the interval clears 0. "not down" and "not up": it clears the margin on that side.
#: "same": it lies within the margin on both.
Direction: TypeAlias = Literal["up", "down", "not down", "not up", "same"]

#: mini: at most a minute on 2 cores, small towers on encodings of real text. small: at most 15 minutes, an
#: encoder's own states. gpu: as much as one accelerator does in an hour.
Scale: TypeAlias = Literal["mini", "small", "gpu"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Citation:
    """Where a row comes from. number: of the row, 0 … 56. name: of its file and in commands. authors: all of
    up to three, else the first and "et al."; empty where they are not known for certain, like link."""

    number: int
    name: str
    title: str
    authors: str
    year: int | None
    link: str
    families: tuple[Family, ...]


@dataclass(frozen=True)
class Expectation:
    """One effect that a claim names, declared before the run.

    measure: what is measured, as treatment minus baseline unless it says otherwise. unit: of the effect.
    direction, margin: what must hold of its interval. reported: the paper's own number, in its words.
    """

    measure: str
    unit: str
    direction: Direction
    margin: float = 0.0
    reported: str = ""

    def __post_init__(self) -> None:
        if self.margin < 0 or (self.margin and self.direction in ("up", "down")):
            raise ValueError(f"{self.measure}: a margin ≥ 0 goes with 'not down', 'not up' and 'same' only")

    def met(self, found: Interval) -> bool:
        """Whether an interval says so."""
        match self.direction:
            case "up":
                return found.low > 0
            case "down":
                return found.high < 0
            case "not down":
                return found.low > -self.margin
            case "not up":
                return found.high < self.margin
            case "same":
                return -self.margin < found.low and found.high < self.margin


@dataclass(frozen=True)
class Interval:
    """An effect with its interval. n: seeds or queries behind it. by: how it was made."""

    effect: float
    low: float
    high: float
    n: int
    by: str
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.effect, self.low, self.high)):
            raise ValueError(f"{self.effect} [{self.low}, {self.high}] is not a finite interval")
        if not self.low <= self.high:
            raise ValueError(f"[{self.low}, {self.high}] is no interval")


@dataclass(frozen=True)
class Source:
    """Real data that a run read."""

    name: str
    licence: str


@dataclass(frozen=True)
class Line:
    """A line of a plot: points (x, y), and a band around y where there is one."""

    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Plot:
    """x, y: what the axes are. lines by name."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Line]


@dataclass(frozen=True)
class Measured:
    """What a run found.

    intervals: one for each expectation of the paper, by its measure. identities: things that must hold
    exactly, by what they say. figures: numbers beside, by name. sources: the data. notes: what this run's
    numbers need to be understood.
    """

    intervals: Mapping[str, Interval]
    sources: Sequence[Source]
    identities: Mapping[str, bool] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Setting:
    """How a row is run. seeds: repetitions of what is drawn or trained; each is the same in baseline and
    treatment. data: a folder of training sets (train/*.jsonl.gz) to take real text from; None is that of a
    package (see `collection`). tell: called with a stage, how much of it is done, and of how much."""

    scale: Scale = "mini"
    seeds: int = 5
    data: Path | None = None
    tell: Callable[[str, int, int], None] = lambda stage, done, total: None

    def of(self, mini: T, small: T, gpu: T | None = None) -> T:
        """A size or a rate, by scale; gpu's is small's where it isn't said."""
        return {"mini": mini, "small": small, "gpu": small if gpu is None else gpu}[self.scale]


@dataclass(frozen=True)
class Paper:
    """A row that can be run.

    claim: the paper's central claim in one sentence. expects: what must come out, the central effect first.
    taken: what is as in the paper. reconstructed: what is not public, or made smaller, and how it was put.
    run: baseline and treatment on the same data and seeds. tried: over several runs, what was tried where
    the claim does not show, and what it would need.
    """

    citation: Citation
    claim: str
    expects: tuple[Expectation, ...]
    taken: str
    reconstructed: str
    run: Callable[[Setting], Measured]
    tried: str = ""

    def __post_init__(self) -> None:
        if not self.expects:
            raise ValueError(f"{self.citation.name}: a claim expects something")
        if len({e.measure for e in self.expects}) < len(self.expects):
            raise ValueError(f"{self.citation.name}: two expectations have one name")

    def works(self, found: Measured) -> bool:
        """Whether every expectation and every identity holds. ValueError where a run left one out."""
        if missing := [e.measure for e in self.expects if e.measure not in found.intervals]:
            raise ValueError(f"{self.citation.name}: the run measured no {missing[0]!r}")
        return all(e.met(found.intervals[e.measure]) for e in self.expects) and all(found.identities.values())
