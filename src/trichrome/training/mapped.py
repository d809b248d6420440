"""Files of equal records, looked up through a memory map that does not grow.

Pages that a map has touched count as the process's memory until the system wants them back. Here they are
given back after every 8 MiB, so that a long run over a large file stays as small as it began.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_KEPT = 8 << 20
#: What one look-up may map at most beside what it reads: the system maps the pages around, too.
_AROUND = 64 << 10
_FORGET: int | None = getattr(mmap, "MADV_DONTNEED", None)


class MappedArray:
    """[N] records of one dtype in a file. What is looked up is a copy."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], write: bool = False) -> None:
        """file: may be closed (and an unnamed one lost its name) afterwards; the map stays."""
        size = file.seek(0, 2)
        self._touched = 0
        if size == 0:  # which can't be mapped
            self._map: mmap.mmap | None = None
            self._view: NDArray[Any] = np.zeros(0, dtype)
            return
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        self._map = mmap.mmap(file.fileno(), 0, access=access)
        self._view = np.frombuffer(self._map, dtype, size // dtype.itemsize)

    @classmethod
    def open(cls, path: Path, dtype: np.dtype[Any]) -> MappedArray:
        """Map a file for reading."""
        with path.open("rb") as file:
            return cls(file, dtype)

    def __len__(self) -> int:
        return len(self._view)

    def __getitem__(self, i: int) -> Any:
        found = self._view[i].copy()
        self._touch(_AROUND)
        return found

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The records start … stop - 1."""
        found = self._view[start:stop].copy()
        self._touch(_AROUND + found.nbytes)
        return found

    def take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """The records at some places."""
        found: NDArray[Any] = self._view[places]
        self._touch(_AROUND * len(places))
        return found

    def put(self, places: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write records at ascending places."""
        self._view[places] = values
        self._touch(_AROUND + values.nbytes)

    def _touch(self, size: int) -> None:
        self._touched += size
        if self._touched > _KEPT and self._map is not None and _FORGET is not None:
            self._map.madvise(_FORGET)  # of a shared map, what was written stays in the file
            self._touched = 0
