"""What an evaluation found: a Report of one task, a Suite of several; as JSON, Markdown and TREC runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.errors import TrichromeError
from trichrome.evaluation.metrics import METRICS
from trichrome.evaluation.rankings import Rankings
from trichrome.evaluation.significance import Comparison
from trichrome.formats.trec import write_run
from trichrome.records import JSON
from trichrome.storage import write_json

#: System → metric → value, in 0 … 1.
Table = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Report:
    """One encoder on one task. Systems are BM25's two kinds and the retrieval modes, in table order.

    documents, queries: how many were searched and asked. unjudged: queries without a relevant document, left
    out. cut_documents, cut_queries: texts that were longer than the encoder reads (BM25 read them whole).
    means: system → metric → mean over all queries. languages: query language → the same.
    comparisons: every pair of systems by the paired bootstrap. seconds: of each stage that wasn't cached.
    per_query: system → metric → [Q] values in the order of query_ids; empty in a report read without them.
    rankings: system → what it found; not part of the JSON.
    """

    task: str
    model: str
    fingerprint: str
    documents: int
    queries: int
    unjudged: int
    cut_documents: int
    cut_queries: int
    settings: Mapping[str, JSON]
    means: Table
    languages: Mapping[str, Table]
    language_queries: Mapping[str, int]
    comparisons: tuple[Comparison, ...]
    seconds: Mapping[str, float]
    query_ids: tuple[str, ...] = ()
    query_langs: tuple[str | None, ...] = ()
    per_query: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict, compare=False)
    rankings: Mapping[str, Rankings] = field(default_factory=dict, compare=False, repr=False)

    @property
    def systems(self) -> tuple[str, ...]:
        return tuple(self.means)

    def compare(self, a: str, b: str) -> Comparison:
        """System a against system b, whichever way round the pair was computed."""
        for c in self.comparisons:
            if (c.a, c.b) == (a, b):
                return c
            if (c.a, c.b) == (b, a):
                return Comparison(
                    c.metric, a, b, -c.difference, -c.high, -c.low, c.p, c.queries, c.samples, c.confidence
                )
        raise TrichromeError(f"task {self.task}: no comparison of {a!r} and {b!r}; there are {self.systems}")

    def to_json(self, per_query: bool = False) -> dict[str, Any]:
        """JSON values; from_json reads them back. per_query: with every query's values."""
        left_out = {"rankings", "per_query", "comparisons", "query_ids", "query_langs"}
        value = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        value["comparisons"] = [asdict(c) for c in self.comparisons]
        if per_query:
            value["query_ids"], value["query_langs"] = list(self.query_ids), list(self.query_langs)
            value["per_query"] = {
                system: {metric: column.tolist() for metric, column in metrics.items()}
                for system, metrics in self.per_query.items()
            }
        copied: dict[str, Any] = json.loads(json.dumps(value))
        return copied

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Report:
        """A report that to_json gave. TrichromeError where it isn't one."""
        try:
            given = dict(value)
            given["comparisons"] = tuple(Comparison(**c) for c in given["comparisons"])
            given["query_ids"] = tuple(given.get("query_ids", ()))
            given["query_langs"] = tuple(given.get("query_langs", ()))
            given["per_query"] = {
                system: {metric: np.array(column) for metric, column in metrics.items()}
                for system, metrics in given.get("per_query", {}).items()
            }
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            raise TrichromeError(f"not a report of an evaluation ({error}); evaluate again") from None

    def save(self, path: str | Path, per_query: bool = False) -> None:
        """Write the JSON, whole or not at all."""
        write_json(path, self.to_json(per_query))

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read what `save` wrote. TrichromeError names the file where it isn't a report."""
        try:
            return cls.from_json(json.loads(Path(path).read_text("utf-8")))
        except ValueError as error:
            raise TrichromeError(f"{path}: {error}") from None

    def write_runs(self, folder: str | Path) -> list[Path]:
        """One TREC run file a system, named TASK.SYSTEM.trec."""
        paths = []
        for system, rankings in self.rankings.items():
            name = f"{self.task}.{system}.trec".replace("/", "_").replace(":", "_")
            paths.append(Path(folder) / name)
            write_run(paths[-1], rankings, tag=f"trichrome-{system}")
        return paths


@dataclass(frozen=True)
class Suite:
    """One encoder on several tasks."""

    reports: tuple[Report, ...]

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems of any task, in table order."""
        return tuple(dict.fromkeys(system for report in self.reports for system in report.systems))

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """System → metric → mean over the tasks, each counting once; systems that ran on every task only."""
        everywhere = [s for s in self.systems if all(s in report.means for report in self.reports)]
        return {
            system: {
                metric: float(np.mean([report.means[system][metric] for report in self.reports]))
                for metric in METRICS
            }
            for system in everywhere
        }

    def to_json(self, per_query: bool = False) -> dict[str, Any]:
        """JSON values; from_json reads them back."""
        return {"means": self.means, "tasks": [report.to_json(per_query) for report in self.reports]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Suite:
        """A suite that to_json gave."""
        if not isinstance(value.get("tasks"), list):
            raise TrichromeError("not the results of an evaluation (no list of tasks); evaluate again")
        return cls(tuple(Report.from_json(report) for report in value["tasks"]))

    def save(self, path: str | Path, per_query: bool = False) -> None:
        """Write the JSON, whole or not at all."""
        write_json(path, self.to_json(per_query))

    @classmethod
    def load(cls, path: str | Path) -> Suite:
        """Read what `save` wrote. TrichromeError names the file where it isn't that."""
        try:
            return cls.from_json(json.loads(Path(path).read_text("utf-8")))
        except OSError as error:
            raise TrichromeError(f"{path}: can't be read ({error.strerror}); check the path") from None
        except (ValueError, AttributeError) as error:
            raise TrichromeError(f"{path}: {error}") from None

    def write_runs(self, folder: str | Path) -> list[Path]:
        """One TREC run file a task and system."""
        return [path for report in self.reports for path in report.write_runs(folder)]


def markdown(reports: Sequence[Report], metric: str = "nDCG@10") -> str:
    """One table: a row a task, a column a system, in percent, the best in bold; the mean below where there
    are several."""
    suite = Suite(tuple(reports))
    systems = suite.systems
    rows = [(report.task, f"{report.queries:,}", report.means) for report in reports]
    if len(reports) > 1:
        rows.append(("mean", "", suite.means))
    lines = [f"| {metric} | queries | " + " | ".join(systems) + " |", "|---|--:|" + "--:|" * len(systems)]
    lines += [
        f"| {name} | {count} | " + " | ".join(_cells(table, systems, metric)) + " |"
        for name, count, table in rows
    ]
    return "\n".join(lines) + "\n"


def language_table(report: Report, metric: str = "nDCG@10") -> str:
    """One table: a row a language of the queries, a column a system, in percent, the best in bold."""
    lines = [
        f"| {report.task}, {metric} | queries | " + " | ".join(report.systems) + " |",
        "|---|--:|" + "--:|" * len(report.systems),
    ]
    lines += [
        f"| {lang} | {report.language_queries[lang]:,} | "
        + " | ".join(_cells(table, report.systems, metric))
        + " |"
        for lang, table in report.languages.items()
    ]
    return "\n".join(lines) + "\n"


def comparison_table(report: Report) -> str:
    """One table: a row a pair of systems; differences in points with their interval, and p."""
    lines = [
        "| pair | metric | difference | interval | p |",
        "|---|---|--:|---|--:|",
    ]
    lines += [
        f"| {c.a} − {c.b} | {c.metric} | {100 * c.difference:+.1f} | "
        f"{100 * c.low:+.1f} … {100 * c.high:+.1f} | {c.p:.4f} |"
        for c in report.comparisons
    ]
    return "\n".join(lines) + "\n"


def _cells(table: Table, systems: Sequence[str], metric: str) -> list[str]:
    """Percentages of each system, "–" where it didn't run."""
    known = {system: f"{100 * table[system][metric]:.1f}" for system in systems if system in table}
    top = max(known.values(), key=float, default="")
    return [f"**{known[s]}**" if known.get(s) == top else known.get(s, "–") for s in systems]
