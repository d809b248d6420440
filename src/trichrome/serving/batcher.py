"""Texts of many requests in one forward pass: a bounded queue, and one thread that runs the encoder.

The event loop hardly does more than move references: all but short texts are cut into tokens in helper
threads, and encoding is done in the encoder's own. There is no waiting for a batch to fill; while one pass
runs, the next texts gather. Queries and passages share a pass, for their prompts are in their tokens.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from trichrome.embeddings import SIGNALS, Embedding
from trichrome.encoder.tokenizer import Tokens
from trichrome.serving.clients import unless_gone
from trichrome.serving.errors import Refusal
from trichrome.serving.limits import Limits
from trichrome.serving.metrics import Metrics
from trichrome.serving.protocol import ServedEncoder

log = logging.getLogger("trichrome.serving")

#: Of each waiting request so many texts are looked at for the next pass, and of all requests so many.
_OF_ONE, _OF_ALL = 64, 512
#: Characters of a request that are cut into tokens sooner than a helper is reached.
_SHORT = 1000
#: Padding that a text may bring with it whatever its length.
_LITTLE = 16


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one request's texts, in their order. tokens: read; cut: of each text, tokens that did
    not fit (0 unless the request allowed it)."""

    texts: list[Embedding]
    tokens: int
    cut: list[int]

    @property
    def truncated(self) -> int:
        """How many texts were cut."""
        return sum(n > 0 for n in self.cut)


@dataclass(eq=False)
class _Job:
    """One request's texts. waiting: the longest first, as (place in the request, tokens)."""

    waiting: list[tuple[int, Tokens]]
    outputs: tuple[str, ...]
    done: asyncio.Future[None]
    made: list[Embedding | None]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.waiting)


def choose(lengths: Sequence[int], first: int, budget: int) -> list[int]:
    """Which texts share a pass with text `first`: its neighbours in length, on both sides, as long as
    texts × longest ≤ budget and little of them is padding."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    low = high = order.index(first)
    while True:
        sides = []
        if low > 0:
            sides.append((lengths[first] - lengths[order[low - 1]], low - 1, high))
        if high + 1 < len(order):
            sides.append((lengths[order[high + 1]] - lengths[first], low, high + 1))
        for _, start, end in sorted(sides):
            shortest, longest = lengths[order[start]], lengths[order[end]]
            padded = (end - start + 1) * longest
            if padded <= budget and longest - shortest <= max(_LITTLE, longest // 8):
                low, high = start, end
                break
        else:
            return order[low : high + 1]


class Batcher:
    """Encodes for many requests at once; made, started and closed within one event loop."""

    def __init__(
        self, encoder: ServedEncoder, limits: Limits, metrics: Metrics, *, token_budget: int, helpers: int = 2
    ) -> None:
        """token_budget: padded tokens of one forward pass. helpers: threads that tokenise."""
        self.encoder, self.limits, self.budget = encoder, limits, token_budget
        self._metrics = metrics
        self._jobs: list[_Job] = []  # in turn: the first gives the text that the next pass is built around
        self._tokens = 0  # that wait
        self._arrived = asyncio.Event()
        self._helpers = ThreadPoolExecutor(helpers, "tokenize")
        self._worker = ThreadPoolExecutor(1, "encode")
        self._task: asyncio.Task[None] | None = None
        self._speed = 0.0  # tokens a second, of late

    def start(self) -> None:
        """Begin to take texts from the queue."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="batcher")
        self._task.add_done_callback(self._ended)

    @property
    def running(self) -> bool:
        """Whether texts are taken from the queue."""
        return self._task is not None and not self._task.done()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A defect here must not leave requests waiting for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the batcher broke", exc_info=error)
            for job in list(self._jobs):
                self._drop(job)
                if not job.done.done():
                    job.done.set_exception(error)

    async def close(self) -> None:
        """Encode what was accepted, then stop."""
        if self._task is not None:
            while self._jobs:
                await asyncio.wait([job.done for job in self._jobs])
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._worker.shutdown)
        await asyncio.to_thread(self._helpers.shutdown)

    async def encode(
        self,
        texts: Sequence[tuple[str, str]],
        outputs: Sequence[str] | None = None,
        *,
        truncate: bool = False,
        param: str = "input",
    ) -> Encoded:
        """The outputs of (text, kind) pairs, in their order; kind is "query" or "passage".

        outputs: all of the encoder's by default. truncate: cut what is too long, and count it; else that is
        refused. param: what the texts are called in the request.
        Refusal: 422 for an output that the encoder lacks, 413 for more texts or tokens than allowed, 429
        where too many tokens wait already, 408 where the client leaves meanwhile: what it still waits for is
        not encoded.
        """
        wanted = self._outputs(outputs)
        if len(texts) > self.limits.texts:
            message = (
                f"{len(texts)} texts, at most {self.limits.texts} are taken at once: send several requests"
            )
            raise Refusal(413, message, param=param)
        if not self.running:
            raise Refusal(503, "the server is stopping", retry_after=5)
        self._refuse_if_full(1)
        loop = asyncio.get_running_loop()
        if sum(len(text) for text, _ in texts) <= _SHORT:
            tokens = self._tokenize(texts)
        else:
            tokens = await loop.run_in_executor(self._helpers, self._tokenize, texts)
        cut = [t.cut for t in tokens]
        if any(cut) and not truncate:
            where = next(i for i, n in enumerate(cut) if n)
            has, most = len(tokens[where].ids) + cut[where], self.encoder.config.max_tokens
            raise Refusal(
                413,
                f"text {where} has {has} tokens, the model reads {most}: shorten or split it, or allow "
                "truncation",
                param=param,
            )
        count = sum(len(t.ids) for t in tokens)
        if count > self.limits.tokens:
            message = f"the texts have {count} tokens, at most {self.limits.tokens} are taken at once"
            raise Refusal(413, message, param=param)
        self._metrics.cut(sum(n > 0 for n in cut))
        if not tokens:
            return Encoded([], 0, [])
        self._refuse_if_full(count)
        waiting = sorted(enumerate(tokens), key=lambda item: -len(item[1].ids))
        job = _Job(waiting, wanted, loop.create_future(), [None] * len(tokens))
        self._jobs.append(job)
        self._count(count)
        self._arrived.set()
        try:
            await unless_gone(job.done)
        finally:
            if job in self._jobs:  # the client went away: nobody wants the rest
                self._drop(job)
                job.done.cancel()
        return Encoded([made for made in job.made if made is not None], count, cut)

    def _outputs(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        if outputs is None:
            return self.encoder.signals
        for name in outputs:
            if name not in self.encoder.signals:
                there = ", ".join(self.encoder.signals)
                raise Refusal(
                    422, f"{self.encoder.name} has no output {name!r}, only {there}", param="outputs"
                )
        return tuple(name for name in SIGNALS if name in outputs)

    def _tokenize(self, texts: Sequence[tuple[str, str]]) -> list[Tokens]:
        found: list[Tokens | None] = [None] * len(texts)
        for kind in ("query", "passage"):
            places = [i for i, (_, k) in enumerate(texts) if k == kind]
            if places:
                made = self.encoder.tokenizer.encode([texts[i][0] for i in places], kind)
                for i, tokens in zip(places, made, strict=True):
                    found[i] = tokens
        return [tokens for tokens in found if tokens is not None]

    # the queue

    def _refuse_if_full(self, tokens: int) -> None:
        if self._tokens and self._tokens + tokens > self.limits.queue_tokens:
            wait = math.ceil(self._tokens / self._speed) if self._speed else 1
            message = f"{self._tokens} tokens wait for the encoder already: try again in a while"
            raise Refusal(429, message, retry_after=min(max(wait, 1), 60))

    def _count(self, tokens: int) -> None:
        self._tokens += tokens
        self._metrics.waiting(self._tokens)

    def _drop(self, job: _Job) -> None:
        self._jobs.remove(job)
        self._count(-sum(len(tokens.ids) for _, tokens in job.waiting))
        job.waiting = []

    def _take(self) -> list[tuple[_Job, int, Tokens]]:
        """The texts of the next pass. The requests take turns at giving its first one, so that a query
        never waits for all of a large request."""
        seen = [(job, *item) for job in self._jobs for item in job.waiting[:_OF_ONE]][:_OF_ALL]
        chosen = [seen[i] for i in choose([len(t.ids) for _, _, t in seen], 0, self.budget)]
        taken = {(id(job), place) for job, place, _ in chosen}
        for job in {id(job): job for job, _, _ in chosen}.values():
            job.waiting = [item for item in job.waiting if (id(job), item[0]) not in taken]
        self._count(-sum(len(tokens.ids) for _, _, tokens in chosen))
        self._jobs.append(self._jobs.pop(0))
        return chosen

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not any(job.waiting for job in self._jobs):
                self._arrived.clear()
                await self._arrived.wait()
                continue
            while not self._jobs[0].waiting:  # its last texts are in no pass any more only after their pass
                self._jobs.append(self._jobs.pop(0))
            chosen = self._take()
            outputs = tuple(s for s in SIGNALS if any(s in job.outputs for job, _, _ in chosen))
            made = await loop.run_in_executor(self._worker, self._forward, [t for *_, t in chosen], outputs)
            for (job, place, _), result in zip(chosen, made, strict=True):
                self._deliver(job, place, result)

    def _deliver(self, job: _Job, place: int, result: Embedding | Exception) -> None:
        if job.done.done():
            return
        if isinstance(result, Exception):
            self._drop(job)
            job.done.set_exception(result)
            return
        job.made[place] = _only(result, job.outputs)
        job.left -= 1
        if not job.left:
            self._jobs.remove(job)
            job.done.set_result(None)

    def _forward(self, tokens: list[Tokens], outputs: tuple[str, ...]) -> list[Embedding | Exception]:
        """In the encoder's thread. Where a pass fails its halves are tried, so that one request's text
        can't fail another's."""
        start = time.perf_counter()
        try:
            made = self.encoder.encode_tokens(tokens, outputs)
        except Exception as error:  # noqa: BLE001 - it belongs to the requests, not to this thread
            if len(tokens) == 1:
                return [error]
            log.warning("a pass over %d texts failed (%r); trying its halves", len(tokens), error)
            half = len(tokens) // 2
            return self._forward(tokens[:half], outputs) + self._forward(tokens[half:], outputs)
        seconds = time.perf_counter() - start
        count = sum(len(t.ids) for t in tokens)
        self._metrics.passed(len(tokens), count, len(tokens) * max(len(t.ids) for t in tokens), seconds)
        self._speed += 0.2 * (count / max(seconds, 1e-6) - self._speed) if self._speed else count / seconds
        return list(made)


def _only(made: Embedding, outputs: Sequence[str]) -> Embedding:
    """Without what another request of the same pass asked for."""
    return Embedding(
        made.dense if "dense" in outputs else None,
        made.token_ids if "sparse" in outputs else None,
        made.token_weights if "sparse" in outputs else None,
        made.multivector if "multivector" in outputs else None,
    )
