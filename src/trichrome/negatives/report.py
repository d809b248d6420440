"""What mining did: counts by rule, distributions of scores, queries left short."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trichrome.negatives.filters import RULES
from trichrome.records import JSON

#: Width of a histogram's bins; two histograms add up whatever they were made from.
BIN = 0.005


@dataclass
class Histogram:
    """Scores counted in bins of BIN: bins[b] of them lie in [b·BIN, (b + 1)·BIN)."""

    bins: Counter[int] = field(default_factory=Counter)

    def add(self, scores: NDArray[np.float32]) -> None:
        """Count some more; NaN and infinity are not scores."""
        finite = scores[np.isfinite(scores)].astype(np.float64)
        values, counts = np.unique(np.floor(finite / BIN).astype(np.int64), return_counts=True)
        self.bins.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def __len__(self) -> int:
        return self.bins.total()

    @property
    def mean(self) -> float:
        """To within half a bin; NaN where nothing was counted."""
        if not self.bins:
            return float("nan")
        return math.fsum((b + 0.5) * BIN * n for b, n in self.bins.items()) / len(self)

    def quantile(self, share: float) -> float:
        """The score below which that share lies, to within a bin; NaN where nothing was counted."""
        seen = 0
        for b in sorted(self.bins):
            seen += self.bins[b]
            if seen >= share * len(self):
                return (b + 0.5) * BIN
        return float("nan")


@dataclass
class MineReport:
    """queries: mined for. candidates: passages in the pool. found: source → candidates in its windows.
    considered: distinct (query, candidate) pairs. removed: rule → pairs it removed, each pair counted for
    the first rule that does. above: pairs that passed the rules on ids and texts and yet score above the
    query's lowest positive. drawn: negatives given out. kept: the rows' own negatives that stayed.
    counts: how many negatives → queries that got so many. wanted: how many they should get.
    scores: "positives", "candidates" (that passed the rules on ids and texts), "negatives", and, where there
    is a rescorer, "rescored positives" and "rescored negatives". judge: whose scores those are.
    seconds: stage → time. sources: reports of the files that this one adds up.
    """

    judge: str = "none"
    wanted: int = 0
    queries: int = 0
    candidates: int = 0
    considered: int = 0
    above: int = 0
    drawn: int = 0
    kept: int = 0
    found: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    counts: Counter[int] = field(default_factory=Counter)
    scores: dict[str, Histogram] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def score(self, name: str, scores: NDArray[np.float32]) -> None:
        """Count scores under a name."""
        self.scores.setdefault(name, Histogram()).add(scores)

    @property
    def short(self) -> float:
        """The share of queries that got fewer negatives than wanted."""
        few = sum(n for count, n in self.counts.items() if count < self.wanted)
        return few / self.queries if self.queries else 0.0

    @property
    def empty(self) -> float:
        """The share of queries that got none."""
        return self.counts[0] / self.queries if self.queries else 0.0

    def rules(self) -> list[tuple[str, int]]:
        """(rule, pairs removed) in the order of application, rules that removed nothing left out."""
        return [(rule, self.removed[rule]) for rule in RULES if self.removed[rule]]

    @classmethod
    def total(cls, reports: Iterable[MineReport]) -> MineReport:
        """The sums of several files' reports."""
        made = cls()
        for report in reports:
            made.judge, made.wanted = report.judge, max(made.wanted, report.wanted)
            for name in ("queries", "candidates", "considered", "above", "drawn", "kept"):
                setattr(made, name, getattr(made, name) + getattr(report, name))
            made.found += report.found
            made.removed += report.removed
            made.counts += report.counts
            for name, histogram in report.scores.items():
                made.scores.setdefault(name, Histogram()).bins += histogram.bins
            for stage, seconds in report.seconds.items():
                made.seconds[stage] = made.seconds.get(stage, 0.0) + seconds
        return made

    def to_json(self) -> dict[str, JSON]:
        """Everything; `from_json` gives an equal report back."""
        return {
            "judge": self.judge,
            "wanted": self.wanted,
            "queries": self.queries,
            "candidates": self.candidates,
            "considered": self.considered,
            "above": self.above,
            "drawn": self.drawn,
            "kept": self.kept,
            "short": self.short,
            "empty": self.empty,
            "found": dict(self.found),
            "removed": dict(self.removed),
            "counts": {str(k): n for k, n in sorted(self.counts.items())},
            "scores": {
                name: {
                    "count": len(h),
                    "mean": h.mean,
                    **{f"p{round(100 * q):02}": h.quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
                    "bin": BIN,
                    "bins": {str(b): n for b, n in sorted(h.bins.items())},
                }
                for name, h in self.scores.items()
                if len(h)
            },
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, row: dict[str, JSON]) -> MineReport:
        """Read back what to_json made. KeyError, TypeError or ValueError: it is something else."""
        value: dict[str, object] = {n: row[n] for n in ("judge", "wanted", "queries", "candidates")}
        value |= {n: row[n] for n in ("considered", "above", "drawn", "kept")}
        made = cls(**value)  # type: ignore[arg-type]  # as to_json wrote them
        made.found, made.removed = Counter(_numbers(row["found"])), Counter(_numbers(row["removed"]))
        made.counts = Counter({int(k): n for k, n in _numbers(row["counts"]).items()})
        scores = row["scores"]
        if not isinstance(scores, dict):
            raise TypeError("scores must be an object")
        for name, histogram in scores.items():
            if not isinstance(histogram, dict):
                raise TypeError("a histogram must be an object")
            bins = Counter({int(b): n for b, n in _numbers(histogram["bins"]).items()})
            made.scores[name] = Histogram(bins)
        seconds = row["seconds"]
        made.seconds = {k: float(v) for k, v in seconds.items()} if isinstance(seconds, dict) else {}  # type: ignore[arg-type]
        return made


def _numbers(value: JSON) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError("counts must be an object")
    return {name: int(n) for name, n in value.items() if isinstance(n, int)}
