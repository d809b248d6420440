"""Several devices side by side: one process each, batches handed out as they become free."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

import torch
import torch.multiprocessing  # teaches the process pool to hand tensors over in shared memory

from trichrome.encoder.backend import Backend
from trichrome.encoder.columns import BatchColumns
from trichrome.encoder.tokenizer import Tokens
from trichrome.errors import TrichromeError

_backend: Backend | None = None  # this worker's copy


def _start(backend: Backend, devices: Any, threads: int) -> None:
    global _backend
    torch.set_num_threads(threads)
    backend.to(devices.get())
    _backend = backend


def _forward(tokens: Sequence[Tokens], outputs: Sequence[str]) -> BatchColumns:
    assert _backend is not None  # _start ran before any batch
    return _backend.run(tokens, outputs)


class WorkerPool:
    """One process a device. Its death, or an error in it, reaches the caller as an exception."""

    def __init__(self, backend: Backend, devices: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        names = context.SimpleQueue()
        for device in devices:
            names.put(device)
        self.backend, self.devices = backend, list(devices)
        self.home = str(backend.device)
        backend.to("cpu")  # shared memory is of the CPU; each worker moves its copy to its device
        cpus = sum(d.startswith("cpu") for d in devices)
        threads = max(1, torch.get_num_threads() // max(1, cpus))
        self.pool = ProcessPoolExecutor(
            len(devices), mp_context=context, initializer=_start, initargs=(backend, names, threads)
        )

    def run(
        self, batches: Iterable[tuple[list[int], list[Tokens]]], outputs: tuple[str, ...]
    ) -> Iterator[tuple[list[int], BatchColumns]]:
        """Results as they come; two batches a worker are under way at any moment."""
        waiting: dict[Future[BatchColumns], list[int]] = {}
        remaining = iter(batches)
        try:
            while True:
                for rows, tokens in islice(remaining, 2 * len(self.devices) - len(waiting)):
                    waiting[self.pool.submit(_forward, tokens, outputs)] = rows
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            raise TrichromeError(
                f"an encoding worker died ({', '.join(self.devices)}): out of memory, or killed; "
                "use fewer devices or a smaller token budget"
            ) from error

    def close(self) -> None:
        """Stop the workers."""
        self.pool.shutdown(cancel_futures=True)
        self.backend.to(self.home)
