"""Batches: which rows go together, and the texts of one batch with what they are trained towards.

Rows are grouped by task (and language) and by length, each length group with its own batch size (M3 paper,
3.4); every epoch is shuffled anew. All of it depends on the data, the settings, the seed and the epoch alone:
every process makes the same plan, and a run that stopped goes on by asking for the next step. No list of
rows is ever made: which rows a step has is computed (trichrome.training.shuffle), so memory does not grow
with the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from trichrome.encoder.tokenizer import TextTokenizer
from trichrome.errors import TrichromeError
from trichrome.storage import default_cache
from trichrome.training.batch import TrainingBatch
from trichrome.training.buckets import Bucket, Buckets, Grouping, batch_counts
from trichrome.training.drawing import Drawn, draw, passages_of, target_of
from trichrome.training.examples import Examples
from trichrome.training.lengths import token_lengths
from trichrome.training.mapped import MappedArray
from trichrome.training.segments import shuffle_segments
from trichrome.training.shuffle import permuted, permuted_groups
from trichrome.training.topics import sort_by_topic

By = Literal["task", "language", "any"]

#: Upper bounds of the length groups, in tokens of a row's longest passage (the paper's, finer below 500).
GROUPS = (64, 128, 256, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)
#: What random numbers are for; part of their keys.
_ORDER, _ROWS, _DRAW, _SEGMENTS = range(4)


@dataclass(frozen=True)
class BatchSettings:
    """How rows become batches.

    token_budget: padded tokens of a batch; rows = budget / (query + passages · passage) tokens, by the
    longest and the most of the length group, but at least two. sizes: rows of a batch for some groups, by
    upper bound, instead. max_rows: never more.
    query_tokens, passage_tokens: longer texts are cut there, and counted. group_size: a row's positive and
    its hard negatives; rows with fewer bring what they have. all_positives: take every positive of a row,
    not one drawn at random. groups, grouped: length groups, and whether they are used.
    by: a batch is of one task (one file), of one task and language, or of any. task_by: the same for single
    tasks, such as {bible: task}. in_batch: other queries' passages are negatives too. topic_size: queries are
    clustered once into topics of about so many rows, and a batch takes rows of one topic (and of the next
    where that ends). margin_bins: a row's negatives are drawn evenly over so many bins of the teacher's
    scores that the data carries (`drawing.balanced`). segment_shuffle: how likely a long passage is cut in
    three and shuffled (0.002 in the paper). seed: of everything.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}
    token_budget: int = 16384
    sizes: Mapping[int, int] = field(default_factory=dict)
    max_rows: int | None = None
    query_tokens: int = 64
    passage_tokens: int = 512
    group_size: int = 8
    all_positives: bool = False
    groups: tuple[int, ...] = GROUPS
    grouped: bool = True
    by: By = "task"
    task_by: Mapping[str, By] = field(default_factory=dict)
    in_batch: bool = True
    topic_size: int | None = None
    margin_bins: int = 0
    segment_shuffle: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("token_budget", "query_tokens", "passage_tokens", "group_size"):
            if getattr(self, name) < 1:
                raise TrichromeError(f"batches.{name} must be > 0, got {getattr(self, name)}")
        for name in ("max_rows", "topic_size"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise TrichromeError(f"batches.{name} must be > 0, got {given}")
        if self.margin_bins < 0:
            raise TrichromeError(f"batches.margin_bins must be ≥ 0, got {self.margin_bins}")
        if list(self.groups) != sorted(set(self.groups)) or not self.groups:
            raise TrichromeError(f"batches.groups must ascend, got {list(self.groups)}")
        if unknown := sorted(set(self.sizes) - set(self.groups)):
            raise TrichromeError(f"batches.sizes names {unknown[0]}, which is no group's upper bound")
        if any(size < 1 for size in self.sizes.values()):
            raise TrichromeError("batches.sizes must be > 0")
        for name in ("by", *self.task_by):
            given = self.by if name == "by" else self.task_by[name]
            if given not in ("task", "language", "any"):
                raise TrichromeError(f"batches.by must be task, language or any, got {given!r}")
        if not 0 <= self.segment_shuffle <= 1:
            raise TrichromeError(f"batches.segment_shuffle is a share, got {self.segment_shuffle}")
        if self.seed < 0:
            raise TrichromeError(f"seed must be ≥ 0, got {self.seed}")

    def rows_of(self, query: int, passage: int, passages: int) -> int:
        """Rows of a batch whose longest query and passage have so many tokens, and whose rows bring so many
        passages each."""
        fixed = self.sizes.get(next((g for g in self.groups if passage <= g), self.groups[-1]))
        rows = fixed or max(2, self.token_budget // (query + passages * passage))
        return min(rows, self.max_rows or rows)


@dataclass(frozen=True)
class PlanReport:
    """What a plan does with its data in one epoch.

    rows, batches, buckets: how many. single: batches of one row, which has no other query's passages for
    negatives. repeated: rows that are taken twice, so that every process gets one. queries_cut,
    passages_cut: texts longer than is read. topics: how many batches keep together; 0 where they don't.
    """

    rows: int
    batches: int
    buckets: int
    single: int
    repeated: int
    queries_cut: int
    passages_cut: int
    topics: int = 0


class BatchPlan:
    """The batches of every epoch."""

    def __init__(
        self,
        examples: Examples,
        tokenizer: TextTokenizer,
        settings: BatchSettings,
        cache: str | Path | None = None,
        world: int = 1,
        topics: MappedArray | None = None,
    ) -> None:
        """world: processes that share every batch, which has so many rows at least. topics: of the rows, from
        `topics.query_topics`, where the settings have a topic_size.

        Tokenises what never was; cache: as in Examples.open.
        """
        if (topics is None) != (settings.topic_size is None):
            raise ValueError("topics are given where batches.topic_size is, and only there")
        if unknown := sorted(set(settings.task_by) - {f.task for f in examples.files}):
            raise TrichromeError(f"batches.task_by names {unknown[0]}, which is no file of the data")
        self.examples, self.settings, self.world = examples, settings, world
        self.folder = Path(cache) if cache is not None else default_cache() / "training"
        self.lengths = token_lengths(examples, tokenizer, self.folder)
        self._tokenizer = tokenizer
        self._queries = reading(tokenizer, settings.query_tokens)
        self._passages = reading(tokenizer, settings.passage_tokens)
        grouping = Grouping(
            [settings.task_by.get(file.task, settings.by) for file in examples.files],
            settings.groups[:-1] if settings.grouped else (),
            self._queries.config.max_tokens,
            self._passages.config.max_tokens,
            None if settings.all_positives else 1,
            settings.group_size - 1,
        )
        self.buckets = Buckets.make(self.lengths, grouping, self.folder)
        self._batches = batch_counts(self.buckets.buckets, self._rows_of, max(world, self._least))
        self._ends = np.cumsum(self._batches)
        self._topics = topics
        self._topic_ends = None if topics is None else sort_by_topic(self.buckets, topics)

    @property
    def _least(self) -> int:
        return 1 if self.settings.max_rows == 1 or 1 in self.settings.sizes.values() else 2

    def _rows_of(self, bucket: Bucket) -> int:
        return self.settings.rows_of(bucket.query, bucket.passage, bucket.passages)

    @property
    def key(self) -> str:
        """Of everything that the batches depend on; a resumed run must have the same."""
        parts = [self.examples.key, repr(self.settings), self.world, self.buckets.starts.tolist()]
        if self._topic_ends is not None:
            parts.append([ends.tolist() for ends in self._topic_ends])
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def steps(self, epoch: int = 0) -> int:
        """How many batches an epoch has; all have as many."""
        return int(self._ends[-1])

    def rows(self, epoch: int, step: int) -> list[int]:
        """The row numbers of one batch. Over an epoch every row is in just one, but for `report.repeated`."""
        if not 0 <= step < self.steps(epoch):
            raise IndexError(f"step {step} of {self.steps(epoch)}")
        seed = self.settings.seed
        batch = int(permuted(np.array([step]), self.steps(epoch), (seed, epoch, _ORDER))[0])
        bucket = int(np.searchsorted(self._ends, batch, side="right"))
        number = batch - int(self._ends[bucket] - self._batches[bucket])
        start, n = int(self.buckets.starts[bucket]), self.buckets.buckets[bucket].rows
        first, end = (n * k // int(self._batches[bucket]) for k in (number, number + 1))
        taken, chance = np.arange(first, end), (seed, epoch, _ROWS, bucket)
        if self._topic_ends is None:
            places = permuted(taken, n, chance)
        else:
            places = permuted_groups(taken, self._topic_ends[bucket], chance)
        rows: list[int] = self.buckets.order.take(start + places).tolist()
        return [rows[i % len(rows)] for i in range(max(len(rows), self.world))]

    def epoch(self, epoch: int) -> Epoch:
        """The row numbers of every batch of an epoch, computed as they are asked for."""
        return Epoch(self, epoch)

    def batch(self, epoch: int, step: int) -> TrainingBatch:
        """Step `step` of an epoch, from 0. Which positives and negatives are drawn depends on seed, epoch and
        row alone."""
        rows = self.rows(epoch, step)
        examples = [self.examples[i] for i in rows]
        drawn = [
            passages_of(e, self._drawn(epoch, i, len(e.positives), len(e.negatives), e.negative_scores))
            for i, e in zip(rows, examples, strict=True)
        ]
        unscored = sum(
            e.negative_scores is None and len(e.negatives) > sum(not p.positive for p in ps)
            for e, ps in zip(examples, drawn, strict=True)
        )
        texts = [
            self._segments(p.text, (epoch, i, k))
            for i, ps in zip(rows, drawn, strict=True)
            for k, p in enumerate(ps)
        ]
        queries = self._queries.encode([(e.prompt or "") + e.query for e in examples], "query")
        passages = self._passages.encode(texts, "passage")
        tasks = {self.examples.task(i) for i in rows}
        return TrainingBatch(
            queries,
            passages,
            target_of(examples, drawn, self.settings.in_batch),
            tasks.pop() if len(tasks) == 1 else "mixed",
            rows,
            sum(bool(t.cut) for t in (*queries, *passages)),
            unscored if self.settings.margin_bins else 0,
        )

    def _drawn(
        self, epoch: int, row: int, positives: int, negatives: int, scores: Sequence[float] | None
    ) -> Drawn:
        s, key = self.settings, (self.settings.seed, epoch, _DRAW, row)
        return draw(
            positives, negatives, s.group_size, s.all_positives, key, scores=scores, bins=s.margin_bins
        )

    def _segments(self, text: str, key: tuple[int, ...]) -> str:
        if not self.settings.segment_shuffle:
            return text
        chance = np.random.default_rng([self.settings.seed, _SEGMENTS, *key])
        return shuffle_segments(text, chance) if chance.random() < self.settings.segment_shuffle else text

    @property
    def report(self) -> PlanReport:
        """Counts of one epoch; all epochs have the same."""
        rows = np.array([b.rows for b in self.buckets.buckets])
        small = (self._batches == 1) & (rows < self.world)
        single = np.where(rows // self._batches == 1, self._batches - rows % self._batches, 0)
        return PlanReport(
            int(rows.sum()),
            self.steps(),
            len(rows),
            int(single.sum()),
            int((self.world - rows)[small].sum()),
            *self.buckets.cut,
            len(np.unique(self._topics.read(0, len(self._topics)))) if self._topics is not None else 0,
        )

    def padding_share(self, grouped: bool | None = None, epoch: int = 0, sample: int = 512) -> float:
        """The share of padding among the tokens of an epoch, queries and passages each padded to the longest
        of their batch.

        grouped: with or without length groups, whatever the settings say. sample: of longer epochs, only so
        many batches are looked at (their order is random anyway).
        """
        plan = self
        if grouped is not None and grouped != self.settings.grouped:
            settings = replace(self.settings, grouped=grouped)
            plan = BatchPlan(self.examples, self._tokenizer, settings, self.folder, self.world, self._topics)
        real = padded = 0
        for step in range(min(sample, plan.steps(epoch))):
            for side in plan.batch_lengths(epoch, step):
                real += int(side.sum())
                padded += int(side.max()) * len(side)
        return 1 - real / padded

    def batch_lengths(self, epoch: int, step: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens of a batch's queries [B] and passages [C], from the table of lengths alone; rows are read
        where their draw depends on a teacher's scores."""
        queries, passages = [], []
        for row in self.rows(epoch, step):
            counts = self.lengths[row]
            file, place = self.examples.place(row)
            positives, negatives = file.rows[place][["positives", "negatives"]].tolist()
            scores = self.examples[row].negative_scores if self.settings.margin_bins else None
            drawn = self._drawn(epoch, row, positives, negatives, scores)
            queries.append(int(counts[0]))
            chosen = [*drawn.positives, *(positives + i for i in drawn.negatives)]
            passages += counts[1:][chosen].tolist()
        q, p = (reader.config.max_tokens for reader in (self._queries, self._passages))
        return np.minimum(queries, q).astype(np.int32), np.minimum(passages, p).astype(np.int32)


class Epoch(Sequence[list[int]]):
    """The rows of each batch of an epoch, as a list of lists that is never made."""

    def __init__(self, plan: BatchPlan, epoch: int) -> None:
        self._plan, self._epoch = plan, epoch

    def __len__(self) -> int:
        return self._plan.steps(self._epoch)

    def __getitem__(self, step: int) -> list[int]:  # type: ignore[override]  # one batch at a time
        return self._plan.rows(self._epoch, step)

    def __iter__(self) -> Iterator[list[int]]:
        return (self[step] for step in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epoch) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal by content


def reading(tokenizer: TextTokenizer, tokens: int) -> TextTokenizer:
    """The same tokenizer, cutting at so many tokens."""
    config = replace(tokenizer.config, max_tokens=min(tokens, tokenizer.config.max_tokens))
    return TextTokenizer(tokenizer.tokenizer, config)
