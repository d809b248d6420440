"""Ray, and nothing else that knows of it: connect, work through items on actors or in tasks, count."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trichrome.errors import TrichromeError
from trichrome.extras import require

#: How often an item is begun. Ray gives it to another process whenever one dies over it, without end, which
#: an item that kills every process (by its size, say) would never come to.
BEGINNINGS = 16

_STARTS = 3  # tries to start Ray here; on a busy machine its processes may miss each other
_STARTING_MS = 300_000  # that Ray's own processes may take to start
_ASKED_EVERY = 0.5  # seconds between two looks at the counts


@dataclass(frozen=True)
class Cluster:
    """Where work is done.

    address: of a running Ray cluster: "ray://HOST:10001" from outside, "auto" on one of its machines; None
    starts one of this machine's processors, for this run alone. actors: how many work side by side.
    gpus: of each actor; 0.5 puts two on one.
    A process that is connected to Ray already stays so, and its connection is used.
    """

    address: str | None = None
    actors: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.actors < 1:
            raise TrichromeError(f"at least one actor is needed, not {self.actors}")

    @contextmanager
    def connected(self, cpus: int = 1) -> Iterator[None]:
        """Connected to Ray within the block. cpus: of each actor. TrichromeError: Ray is not installed, or
        nothing answers at the address."""
        ray = require("ray", "cluster")
        if ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        os.environ.setdefault("RAY_agent_register_timeout_ms", str(_STARTING_MS))  # for a busy machine
        settings: dict[str, Any] = {"address": self.address}
        if self.address is None:
            enough = max(os.cpu_count() or 1, self.actors * cpus)  # or the actors would wait for ever
            settings = {"address": "local", "num_cpus": enough, "include_dashboard": False}
        self._start(ray, settings)
        try:
            yield
        finally:
            ray.shutdown()

    def _start(self, ray: Any, settings: dict[str, Any]) -> None:
        for left in reversed(range(1 if self.address else _STARTS)):
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
                return
            except Exception as error:
                ray.shutdown()
                if left:
                    continue
                if self.address is None:
                    raise TrichromeError(
                        f"Ray did not start on this machine ({_line(error)}); its logs are in "
                        "/tmp/ray/session_latest/logs"
                    ) from error
                raise TrichromeError(
                    f"no Ray cluster at {self.address} ({_line(error)}); check the address, and that Ray and "
                    "Python are of the same versions there"
                ) from error

    @contextmanager
    def tally(self, watch: Callable[[Tally], None]) -> Iterator[Any]:
        """A handle to a Tally for actors to count on; `watch` sees it twice a second and at the end."""
        ray = require("ray", "cluster")
        handle = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tally).remote()
        over = threading.Event()

        def look() -> None:
            while True:
                last = over.wait(_ASKED_EVERY)
                try:
                    watch(ray.get(handle.get.remote()))
                except ray.exceptions.RayError:
                    return  # the cluster is gone; whoever waits for results says so
                if last:
                    return

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield handle
        finally:
            over.set()
            thread.join()


class Tally:
    """How many texts of each item are done, as actors report it, and how often it was begun."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.pids: tuple[int, ...] = ()

    def begin(self, name: str, pid: int) -> int:
        """An actor begins an item: for the how manieth time."""
        self.counts[name] = 0
        self.begun[name] = self.begun.get(name, 0) + 1
        self.pids = tuple(dict.fromkeys((*self.pids, pid)))
        return self.begun[name]

    def put(self, name: str, count: int) -> None:
        """So many of an item are done."""
        self.counts[name] = count

    def get(self) -> Tally:
        return self


def begin(tally: Any, name: str) -> None:
    """Tell the tally, from within an actor, that it begins an item. TrichromeError: too many died over it."""
    number = require("ray", "cluster").get(tally.begin.remote(name, os.getpid()))
    if number > BEGINNINGS:
        raise TrichromeError(
            f"{name}: {BEGINNINGS} processes died over it, out of memory perhaps; use a smaller --chunk or "
            "--token-budget, fewer actors, or look into the cluster's logs"
        )


class _Actor:
    """What Ray Data runs: an actor class of ours, given one item at a time."""

    def __init__(self, make: Callable[..., Callable[[Any], Any]], arguments: Sequence[Any]) -> None:
        self._work = make(*arguments)

    def __call__(self, table: Any) -> Any:
        return _answer(table, self._work)


def _answer(table: Any, work: Callable[[Any], Any]) -> Any:
    """Pickled items → pickled answers. An error that the user can mend is an answer too, so that it reaches
    the caller as it is."""
    pa = require("pyarrow", "cluster")
    answers = []
    for item in table.column("item").to_pylist():
        try:
            answers.append(pickle.dumps(work(pickle.loads(item))))
        except TrichromeError as error:
            answers.append(pickle.dumps(error))
    return pa.table({"answer": pa.array(answers, pa.large_binary())})


def run_on_actors(
    cluster: Cluster,
    make: Callable[..., Callable[[Any], Any]],
    arguments: Sequence[Any],
    items: Sequence[Any],
    cpus: int = 1,
) -> Iterator[Any]:
    """The answers to all items, as they come, from a pool of actors: for work that has something to open.

    make: a class of a module that every machine has; each actor is make(*arguments), called with an item. It
    must give the same answer whenever it is called: an item whose actor dies is given to another. cpus: of
    an actor.
    TrichromeError: one that an actor raised, or that the cluster failed. To be called while connected.
    """
    pool = require("ray.data", "cluster").ActorPoolStrategy(
        size=max(1, min(cluster.actors, len(items))), max_tasks_in_flight_per_actor=1
    )
    settings = {
        "fn_constructor_args": (make, tuple(arguments)),
        "compute": pool,
        "num_gpus": cluster.gpus,
    }
    return _run(_Actor, items, num_cpus=cpus, **settings)


def run_in_tasks(
    cluster: Cluster, work: Callable[[Any], Any], items: Sequence[Any], cpus: int = 1
) -> Iterator[Any]:
    """As `run_on_actors`, for work that has nothing to open: `work` is pickled and called with an item, as
    often side by side as there may be actors. Its processes stay for the next run, which begins at once."""
    size = max(1, min(cluster.actors, len(items)))
    settings = {
        "fn_args": (work,),
        "compute": require("ray.data", "cluster").TaskPoolStrategy(size=size),
    }
    return _run(_answer, items, num_cpus=cpus, **settings)


def _run(work: Any, items: Sequence[Any], **settings: Any) -> Iterator[Any]:
    """One block, and so one task, for each item."""
    if not items:
        return
    ray, data, pa = require("ray", "cluster"), require("ray.data", "cluster"), require("pyarrow", "cluster")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    tables = [pa.table({"item": pa.array([pickle.dumps(item)], pa.large_binary())}) for item in items]
    answers = data.from_arrow(tables).map_batches(work, batch_size=1, batch_format="pyarrow", **settings)
    try:
        for block in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            for answer in block.column("answer").to_pylist():
                made = pickle.loads(answer)
                if isinstance(made, TrichromeError):
                    raise made
                yield made
    except (ray.exceptions.RayError, data.exceptions.SystemException) as error:
        raise TrichromeError(
            f"the cluster failed ({_line(error)}); what is finished is kept, the same command goes on "
            "from there"
        ) from error


def _line(error: BaseException) -> str:
    """The last line that says anything, where Ray puts the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
