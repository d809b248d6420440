"""What a reader gives back beside its records: how many it read, and what it left out, why and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(slots=True)
class ReadReport:
    """read: records yielded so far. skipped: reason → the places (path, or path:line) left out for it."""

    read: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, place: str) -> None:
        """Count one place that was left out."""
        self.skipped.setdefault(reason, []).append(place)

    @property
    def skipped_count(self) -> int:
        """How many places were left out, whatever the reason."""
        return sum(len(places) for places in self.skipped.values())

    def summary(self) -> str:
        """One line for a person: the counts, and for each reason the first place."""
        if not self.skipped:
            return f"{self.read:,} read, none skipped"
        reasons = sorted(self.skipped.items(), key=lambda item: -len(item[1]))
        parts = (
            f"{len(places):,} {reason} ({places[0]}{', …' * (len(places) > 1)})" for reason, places in reasons
        )
        return f"{self.read:,} read, {self.skipped_count:,} skipped: {'; '.join(parts)}"


class Records(Generic[T_co]):
    """A source of records that is read anew, streaming, at each iteration.

    path, format: where they come from and in which format.
    report: of the latest iteration; it grows while that runs, and is complete at its end.
    """

    def __init__(self, path: Path, format: str, read: Callable[[ReadReport], Iterator[T_co]]) -> None:
        self.path = path
        self.format = format
        self.report = ReadReport()
        self._read = read

    def __iter__(self) -> Iterator[T_co]:
        report = self.report = ReadReport()
        for record in self._read(report):
            report.read += 1
            yield record

    def __repr__(self) -> str:
        return f"Records({str(self.path)!r}, format={self.format!r})"
