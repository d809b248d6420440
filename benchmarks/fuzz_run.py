"""One reader against damaged files: how many cases, and which it failed.

A reader may answer, or raise a TrichromeError whose message names the file (and, for formats of rows, the
line). Anything else is a failure: another exception, a message that doesn't say where, more than `PATIENCE`
seconds, a process that dies.
"""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import trichrome
from benchmarks.fuzz_cases import cases
from trichrome.errors import TrichromeError

#: Seconds after which a case counts as one that hangs.
PATIENCE = 20.0
_EXAMPLES = 100  # of one run of hypothesis
_PACKAGE = Path(trichrome.__file__).parent
_SHRINKING = 5.0  # seconds that go into making a bad case smaller


@dataclass(frozen=True)
class Target:
    """A reader. make: writes good files into a folder. read: reads all of it. tokens: what may be put into
    damaged files. lines: errors about what stands in a file name the line. damage: which files (a pattern of
    their names). large: the others are too large to be written anew for each case; reading leaves them."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    tokens: Sequence[bytes] = ()
    lines: bool = False
    damage: str = "*"
    large: bool = False


@dataclass
class Outcome:
    """cases: how many were tried. failures: signature → the smallest case, for people."""

    cases: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class Hang(BaseException):
    """A case took too long; no `except Exception` on its way may swallow it."""


def run(
    target: Target, *, seconds: float = 1e9, examples: int = 1 << 60, start: int = 0, keep: Path | None = None
) -> Outcome:
    """Try damaged files until so many seconds are over or so many examples were tried.

    start: the seed of the first hundred. keep: a file that holds each case while it is tried, for a process
    that dies.
    """
    outcome, end = Outcome(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as temporary:
        good, work = Path(temporary) / "good", Path(temporary) / "work"
        good.mkdir()
        target.make(good)
        files = {str(p.relative_to(good)): p.read_bytes() for p in sorted(good.rglob("*")) if p.is_file()}
        _refresh(work, files)
        target.read(work)  # good files must be read
        chosen = {name: data for name, data in files.items() if fnmatch(name, target.damage)}
        chosen = {name: data for name, data in chosen.items() if not name.endswith("lock")}
        strategy = cases(chosen, target.tokens)

        def try_one(case: tuple[str, bytes]) -> None:
            outcome.cases += 1
            name, data = case
            if target.large:
                for good_name, good_data in {**chosen, name: data}.items():
                    (work / good_name).write_bytes(good_data)
            else:
                _refresh(work, {**files, name: data})
            if keep is not None:
                keep.write_bytes(data)
            with _limited():
                check(target, work, outcome.failures)

        number = start
        while time.monotonic() < end and outcome.cases < examples:
            once(try_one, strategy, number, min(_EXAMPLES, examples - outcome.cases), outcome, end)
            number += 1
    return outcome


def once(
    body: Callable[[Any], None],
    strategy: st.SearchStrategy[Any],
    number: int,
    examples: int,
    outcome: Outcome,
    end: float,
) -> None:
    """A run of hypothesis that begins nothing new after `end`; what it finds is written down, in a smaller
    form if that is found soon. What hypothesis itself says (that there is no such case) is raised."""
    failing: dict[str, Any] = {}
    errors: list[BaseException] = []
    until = end

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(strategy)
    def test(case: Any) -> None:
        nonlocal until
        if time.monotonic() > until and repr(case) not in failing:  # what failed must fail again
            return
        try:
            body(case)
        except BaseException as error:
            if not failing:
                until = time.monotonic() + _SHRINKING
            failing[repr(case)] = case
            errors.append(error)
            raise

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            test()
    except BaseException:
        if not errors or isinstance(errors[-1], (KeyboardInterrupt, SystemExit)):
            raise  # not of the reader's making
        found = errors[-1]
        outcome.failures[signature(found)] = (
            f"{_shown(found)} on {[*failing][-1] if failing else None!s:.600}"
        )


def check(target: Target, folder: Path, known: Any = ()) -> None:
    """Read a folder; raises what is a failure, unless its signature is known already."""
    try:
        target.read(folder)
    except TrichromeError as error:
        if (wrong := unplaced(target, folder, error)) is not None:
            wrong.__cause__ = error
            if signature(wrong) not in known:
                raise wrong  # noqa: B904 - its cause is set
    except Exception as error:
        if signature(error) not in known:
            raise


class Unplaced(AssertionError):
    """An error that doesn't say where."""


def unplaced(target: Target, folder: Path, error: TrichromeError) -> Unplaced | None:
    """What is missing in the message: the file, or the line."""
    text = str(error)
    if str(folder) not in text:
        return Unplaced(f"names no file: {text!r:.300}")
    inside = re.search(r"no such f|not a folder|unknown format|no \*|not documents|holds no|both ", text)
    if target.lines and not inside and not re.search(rf"{re.escape(str(folder))}\S*:\d+", text):
        return Unplaced(f"names no line: {text!r:.300}")
    return None


def signature(error: BaseException) -> str:
    """Where an error comes from: its type and the innermost line of ours."""
    if isinstance(error, Unplaced):
        cause = error.__cause__ or error
        return f"{str(error).partition(':')[0]} at {_place(cause)}"
    return f"{type(error).__name__} at {_place(error)}"


def _place(error: BaseException) -> str:
    every = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in every if Path(frame.filename).is_relative_to(_PACKAGE)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else f"{error!s:.80}"


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error!s:.300}"


@contextmanager
def _limited() -> Iterator[None]:
    """Raise Hang in the block after PATIENCE seconds."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Hang(f"longer than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _refresh(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder anew: a reader may have removed or added something."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
