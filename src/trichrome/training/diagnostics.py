"""The training log: a line of JSON a step, warnings where a number says that something is wrong.

    log = Diagnostics(folder)                       # folder/log.jsonl
    for warning in log.step({"step": 7, "loss/total": 1.2, **observe(...), **gradient_norms(...)}): …
    plot_log(folder / "log.jsonl", folder / "training.png")     # training.plots

A record is a flat JSON object. `step` counts optimiser steps; the other names are

    loss/total, loss/dense, loss/distil_sparse, …    grad/backbone, grad/sparse, …    temperature
    learning_rate    tokens_per_second    padding_share    cut (texts cut)
    and those of `observations.observe`

and an evaluation (`Diagnostics.evaluation`) holds `step`, `kind`: "evaluation", and figures under any name.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

from trichrome.errors import TrichromeError
from trichrome.storage import atomic_write
from trichrome.training.observations import gradient_norms, observe

__all__ = ["LOG", "Diagnostics", "Record", "gradient_norms", "observe", "read_log", "warnings"]

Record: TypeAlias = "dict[str, Any]"

LOG = "log.jsonl"

#: A warning looks at the latest steps: at most so many, and at least so many.
WINDOW, ENOUGH = 20, 5


class Diagnostics:
    """Appends to FOLDER/log.jsonl; one process (rank 0) writes.

    A line is handed to the system at once, so a killed process loses none; a machine that loses its power
    may lose the last ones. After a resume the steps that are done again replace those in the log.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / LOG
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._last: dict[str, int] = {}  # kind → the latest step that was written here
        self._recent: deque[Record] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()

    def step(self, record: Mapping[str, object]) -> list[str]:
        """Append a step's record. Returns what there is to warn of that was not said before.

        The warnings stand in the log too, under `warnings`. Raises ValueError where the step is not
        greater than the one before.
        """
        made = dict(record)
        number = _step_number(made)
        if not self._last:
            earlier = self._before(number, "step")
            self._recent.extend(r for r in earlier if r.get("kind") != "evaluation")
            self._warned = {_subject(w) for r in earlier for w in r.get("warnings", [])}
        self._recent.append(made)
        found = warnings(self._recent)
        new = [w for w in found if _subject(w) not in self._warned]
        self._warned |= {_subject(w) for w in new}
        if new:
            made["warnings"] = new
        self._append(made, number, "step")
        return new

    def evaluation(self, step: int, figures: Mapping[str, object]) -> None:
        """Append what an evaluation after a step found."""
        made = {"step": step, "kind": "evaluation", **figures}
        self._append(made, _step_number(made), "evaluation")

    def _append(self, record: Record, number: int, kind: str) -> None:
        if number <= self._last.get(kind, -1):
            raise ValueError(f"step {number} comes after step {self._last[kind]} in {self.path}")
        if not self._last:
            self._cut_back(number, kind)
        self._last[kind] = number
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def _before(self, number: int, kind: str) -> list[Record]:
        """The records of an earlier run that stay: up to this step, without this kind's record of it."""
        if not self.path.exists():
            return []
        return [
            r
            for r in read_log(self.path)
            if r["step"] < number or (r["step"] == number and r.get("kind", "step") != kind)
        ]

    def _cut_back(self, number: int, kind: str) -> None:
        """Take out of an earlier run's log what is about to be done again, and a line cut short by a kill."""
        if self.path.exists():
            kept = "".join(_line(r) for r in self._before(number, kind)).encode()
            if kept != self.path.read_bytes():
                with atomic_write(self.path) as file:
                    file.write(kept)


def read_log(path: str | Path) -> list[Record]:
    """The records of a log in their order; a last line that a kill cut short is left out.

    Numbers that were not finite are None. A damaged line elsewhere raises TrichromeError with its number.
    """
    path = Path(path)
    if not path.exists():
        raise TrichromeError(f"{path} is missing: no step has been logged")
    text = path.read_bytes()
    lines = text.split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line break is not whole
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise TrichromeError(f"{path}:{number}: not a record of a training log: {line[:60]!r}")
        records.append(record)
    return records


def warnings(history: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the latest steps give reason to warn of; each begins with the number's name and a colon.

    history: records in order; the last 20 count, evaluations aside, and a mean needs at least 5 of them.
    """
    recent = [r for r in history if r.get("kind") != "evaluation"][-WINDOW:]
    names = list(dict.fromkeys(name for r in recent for name in r))
    found = []
    for name in names:
        values = [r[name] for r in recent if name in r]
        if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
            found += _judge(name, [math.nan if v is None else float(v) for v in values])
    return found


def _judge(name: str, values: Sequence[float]) -> list[str]:
    """The warning about one number, if there is one."""
    kind, _, _ = name.partition("/")
    latest = values[-ENOUGH:]
    if kind in ("loss", "grad") and not math.isfinite(values[-1]):
        return [f"{name}: not a finite number; lower the learning rate, or look for empty texts"]
    if len(values) < ENOUGH or not all(map(math.isfinite, values)):
        return []
    mean = fmean(values)
    if kind == "loss" and all(abs(v) < 1e-6 for v in latest):
        return [
            f"{name}: 0 for {ENOUGH} steps; either no passage counts as a negative (in-batch negatives "
            "off and none given?), or the passages give the answer away"
        ]
    if kind == "grad" and all(v == 0 for v in latest):
        return [f"{name}: 0 for {ENOUGH} steps; this part learns nothing"]
    if kind == "zero" and mean > 0.5:
        return [
            f"{name}: {mean:.0%} of the texts have no sparse weight at all; the sparse head collapses "
            "(lower its learning rate or FLOPS weight, or start it anew)"
        ]
    if kind == "alike" and mean > 0.99:
        return [f"{name}: vectors are all alike (mean cosine {mean:.3f}); this head has collapsed"]
    if kind == "harder" and mean < 0.5:
        return [
            f"{name}: for {1 - mean:.0%} of the queries the given negatives are easier than other queries' "
            "passages; mine harder ones, or train with in-batch negatives alone"
        ]
    return []


def _subject(warning: str) -> str:
    return warning.partition(":")[0]


def _step_number(record: Mapping[str, object]) -> int:
    step = record.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ValueError(f"a record needs a step, a whole number from 0, got {step!r}")
    return step


def _line(record: Mapping[str, object]) -> str:
    """One line of strict JSON: numbers that are not finite become null."""
    values = {
        name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in record.items()
    }
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
