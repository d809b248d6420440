"""What every command shares: where it prints, progress bars, how errors and interruptions end it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from trichrome.errors import TrichromeError

#: Results go to stdout; progress, notes and errors to stderr, so that stdout can be piped.
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

#: Exit codes besides 0; a wrong option or argument is 2, as everywhere.
FAILED, INTERRUPTED = 1, 130


class Stopped(Exception):
    """Ctrl-C; the message says what was kept."""


def debugging() -> bool:
    """Whether TRICHROME_DEBUG asks for tracebacks."""
    return os.environ.get("TRICHROME_DEBUG", "") not in ("", "0")


def program() -> str:
    """How a shell finds this command: its name, or its path where it is in no folder of PATH."""
    return "trichrome" if shutil.which("trichrome") else os.path.relpath(sys.argv[0])


def describe(error: BaseException) -> str:
    """One line for a person."""
    if isinstance(error, TrichromeError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]} (a defect of trichrome; TRICHROME_DEBUG=1 shows where)"


def note(text: str) -> None:
    """A line on stderr, beside the result."""
    err.print(text, style="dim", markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """The line that ends a command that failed."""
    err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def print_json(value: Any) -> None:
    """The result for machines: one JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


class Rate(ProgressColumn):
    """Texts a second since the bar began, those left out that cost no work."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        speed = (task.completed - task.fields["begun"]) / seconds if seconds else 0.0
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed > 0 else "", style="cyan")


class Bar:
    """One bar on stderr."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def at(self, done: float, free: float = 0, label: str | None = None, total: float | None = None) -> None:
        """Show how many are done; `free` of them cost no work, so the rate leaves them out.

        label, total: instead of those shown.
        """
        self._progress.update(self._task, completed=done, begun=free, description=label, total=total)


@contextmanager
def bar(label: str, total: float | None, unit: str = "texts", quiet: bool = False) -> Iterator[Bar]:
    """A progress bar with its rate and the time left; total None where it isn't known."""
    with _progress(quiet) as progress:
        yield Bar(progress, progress.add_task(label, total=total, unit=unit, begun=0))


@contextmanager
def stages(unit: str = "texts", quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, done, total) that shows one bar a stage, in the order in which they come."""
    with _progress(quiet) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, unit=unit, begun=done)
            progress.update(tasks[stage], completed=done, total=total)

        yield tell


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        _Count(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=err,
        disable=quiet or not err.is_terminal,  # a log has no use for bars
    )


class _Count(ProgressColumn):
    """12/345, or 12 where the total isn't known."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{total}", style="green")


@contextmanager
def counting_cuts() -> Iterator[Callable[[], int]]:
    """Texts that the encoder cut inside of the block are counted, not warned about one batch at a time."""
    from trichrome.encoder import TruncationWarning

    cut = 0
    shown = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **named: Any) -> None:
        nonlocal cut
        if isinstance(message, TruncationWarning):
            cut += message.texts
        else:
            shown(message, *rest, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("always", TruncationWarning)
        warnings.showwarning = show
        yield lambda: cut
