"""Make the next batches while the device is busy with this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """A function of a step number whose next results are made in a thread before they are asked for.

    make: depends on the step alone, so what comes back is what `make(step)` gives, errors included. end: the
    first step that is not asked for. depth: how many are kept ready. Reading and tokenising let go of the
    interpreter, so one thread hides them. Use as a context, or close it.
    """

    def __init__(self, make: Callable[[int], T], end: int, depth: int = 2) -> None:
        self._make, self._end, self._depth = make, end, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._made: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """make(step); those after it are begun."""
        for other in [s for s in self._made if not step <= s <= step + self._depth]:
            self._made.pop(other).cancel()
        for near in range(step, min(step + self._depth + 1, self._end)):
            if near not in self._made:
                self._made[near] = self._thread.submit(self._make, near)
        return self._made.pop(step).result() if step in self._made else self._make(step)

    def close(self) -> None:
        """Forget what is not made yet, and wait for what is being made."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
