"""What one commit of the exact store shows, and how the next one takes its place.

On disk, beside the manifest:
    commit.json                 the segments that count, oldest first, and the file of dead rows
    segments/NAME.safetensors   immutable (see `segments`); rows ascend from segment to segment
    dead-NAME.safetensors       rows that were deleted or replaced but still lie in a segment
A change writes new files and then renames a new commit.json into place, so it is there whole or not at all.
Files that no commit names (a crash left them) are removed when the store is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trichrome.errors import TrichromeError
from trichrome.index.keys import hash_ids
from trichrome.index.segments import Segment
from trichrome.storage import load_arrays, save_arrays, write_json


@dataclass(frozen=True)
class State:
    """All documents of one commit. Never changed: a search that began goes on with the state it took.

    A position counts documents over all segments, dead ones included; a row is the stable number of a
    document. Both ascend together.
    """

    segments: tuple[Segment, ...]
    starts: NDArray[np.int64]  # [S+1] the position of each segment's first document
    rows: NDArray[np.int64]  # [n] rows by position
    live: NDArray[np.bool_]  # [n] false where deleted or replaced
    next_row: int
    serial: int  # number of the newest file
    dead_file: str | None

    def positions_of_ids(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """[n] positions of live documents, -1 where there is none."""
        positions = np.full(len(ids), -1, dtype=np.int64)
        hashes = hash_ids(ids)
        for segment, start in zip(self.segments, self.starts[:-1].tolist(), strict=True):
            for which, local in segment.find(ids, hashes):
                if self.live[start + local]:
                    positions[which] = start + local
        return positions

    def positions_of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n] positions of rows; TrichromeError where a row is not stored."""
        positions = np.searchsorted(self.rows, rows)
        inside = np.minimum(positions, max(0, len(self.rows) - 1))
        if len(rows) and (not len(self.rows) or not (self.rows[inside] == rows).all()):
            raise TrichromeError("a row is not in this store; rows end with the document they stand for")
        return positions

    def locate(self, position: int) -> tuple[Segment, int]:
        """The segment of a position, and the number of the document in it."""
        i = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.segments[i], position - int(self.starts[i])

    def by_segment(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[Segment, NDArray[np.int64], NDArray[np.int64]]]:
        """(segment, numbers in it, places in `rows`) for each segment that holds some of the rows."""
        positions = self.positions_of_rows(rows)
        which = np.searchsorted(self.starts, positions, side="right") - 1
        for i in np.unique(which).tolist():
            places = np.flatnonzero(which == i)
            yield self.segments[i], positions[places] - self.starts[i], places


def assemble(
    segments: tuple[Segment, ...],
    live: NDArray[np.bool_],
    next_row: int,
    serial: int,
    dead_file: str | None = None,
) -> State:
    starts = np.zeros(len(segments) + 1, dtype=np.int64)
    np.cumsum([len(segment) for segment in segments], out=starts[1:])
    rows = np.concatenate([np.empty(0, np.int64), *(segment.rows for segment in segments)])
    return State(segments, starts, rows, live, next_row, serial, dead_file)


def segment_path(folder: Path, serial: int) -> Path:
    return folder / "segments" / f"{serial:08d}.safetensors"


def create(folder: Path) -> None:
    """Write the commit of an empty store."""
    (folder / "segments").mkdir(parents=True)
    write_json(folder / "commit.json", {"segments": [], "dead": None, "next_row": 0, "serial": 0})


def load(folder: Path) -> State:
    """The state that commit.json names; files that it does not name are removed."""
    try:
        commit = json.loads((folder / "commit.json").read_bytes())
        names, dead_name = commit["segments"], commit["dead"]
        if dead_name is not None and not isinstance(dead_name, str):
            raise ValueError("the name of the dead rows is no text")
        numbers = next_row, serial = commit["next_row"], commit["serial"]
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
            raise ValueError("next_row and serial must be whole numbers")
        if any(Path(name).name != name for name in (*names, *([dead_name] if dead_name else []))):
            raise ValueError("a name leads out of the store")
        segments = tuple(Segment.open(folder / "segments" / name) for name in names)
        dead = load_arrays(folder / dead_name)["rows"] if dead_name else np.empty(0, np.int64)
        live = np.ones(sum(len(segment) for segment in segments), dtype=np.bool_)
        state = assemble(segments, live, next_row, serial, dead_name or None)
        if len(state.rows) and ((state.rows[1:] <= state.rows[:-1]).any() or state.rows[-1] >= next_row):
            raise ValueError("the rows of the segments do not ascend")
        live[state.positions_of_rows(np.asarray(dead))] = False
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise TrichromeError(f"{folder}: the store is damaged ({error}); index it again") from error
    named = {*commit["segments"], commit["dead"]}
    strays = [*folder.glob("dead-*"), *folder.glob(".commit.json.*"), *folder.glob(".dead-*")]
    for path in (*strays, *(folder / "segments").iterdir()):
        if path.name not in named:
            remove(path)
    return state


def commit(folder: Path, state: State) -> None:
    """Make a state the one that counts on disk."""
    write_json(
        folder / "commit.json",
        {
            "segments": [segment.path.name for segment in state.segments],
            "dead": state.dead_file,
            "next_row": state.next_row,
            "serial": state.serial,
        },
    )


def write_dead(folder: Path, state: State) -> str | None:
    """Write the rows that are dead in a state; the file's name, None where there are none."""
    dead = state.rows[~state.live]
    if not len(dead):
        return None
    name = f"dead-{state.serial:08d}.safetensors"
    save_arrays(folder / name, {"rows": dead})
    return name


def remove(path: Path) -> None:
    """Remove a file that no commit names any more."""
    with suppress(PermissionError):  # Windows keeps files that are mapped; the next load removes them
        path.unlink(missing_ok=True)
