"""evaluate: BM25 twice and the five modes on one task, through the exact store and the search room."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import TrichromeError
from trichrome.evaluation.cache import Cache, Progress, content_hash
from trichrome.evaluation.metrics import METRICS, METRICS_DEPTH, means, per_query, rows_by_language
from trichrome.evaluation.rankings import Rankings
from trichrome.evaluation.report import Report, Suite
from trichrome.evaluation.significance import SAMPLES, paired_bootstrap
from trichrome.evaluation.task import Task
from trichrome.index.store import Filter, Store
from trichrome.records import JSON
from trichrome.search.bm25 import BM25, words
from trichrome.search.feedback import Feedback
from trichrome.search.modes import LONG_MODES, M3_MODES, Mode, Preset
from trichrome.search.retrieve import ScoreTable, rank, require_signals, retrieve
from trichrome.search.searcher import QueryEncoder
from trichrome.storage import default_cache

#: The baselines: BM25 over the model's tokens (as in the M3 paper), and over words.
BASELINES = ("bm25-tokenizer", "bm25-words")


class EvaluatedEncoder(QueryEncoder, Protocol):
    """What evaluation uses of an encoder."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Options:
    """How to measure.

    preset: "m3", or "long" for the paper's weights on long documents. modes: by default all five that the
    encoder's outputs allow (the report names the others); given modes are taken as they are.
    baselines: which of BASELINES. max_queries, seed: measure on a random part of the queries.
    keep: documents kept of each ranking; the metrics look at 100. samples: of the bootstrap.
    settings: how the encoder was set beyond its fingerprint (say, its precision): part of the cache's keys.
    feedback: every mode searches twice, the second time with the query that its first hits make better.
    cache: its folder, default_cache() where None.
    """

    preset: Preset = "m3"
    modes: tuple[Mode, ...] | None = None
    baselines: tuple[str, ...] = BASELINES
    max_queries: int | None = None
    seed: int = 0
    keep: int = METRICS_DEPTH
    samples: int = SAMPLES
    settings: Mapping[str, JSON] = field(default_factory=dict)
    feedback: Feedback | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.keep < METRICS_DEPTH:
            raise TrichromeError(
                f"keep must be at least {METRICS_DEPTH}, the metrics' depth, got {self.keep}"
            )
        if self.preset not in ("m3", "long"):
            raise TrichromeError(f"unknown preset {self.preset!r}; there are m3 and long")
        if unknown := sorted(set(self.baselines) - set(BASELINES)):
            raise TrichromeError(f"unknown baselines {', '.join(unknown)}; there are {', '.join(BASELINES)}")
        names = [mode.name for mode in self.modes or ()]
        if len(set(names)) < len(names):
            raise TrichromeError(f"two modes have the same name: {', '.join(names)}")


def evaluate(
    encoder: EvaluatedEncoder, task: Task, options: Options | None = None, progress: Progress | None = None
) -> Report:
    """Measure one encoder on one task. progress: called as (stage, done, total).

    Errors: TrichromeError where the extra `eval` is not installed, or a given mode needs an absent output.
    """
    options = options or Options()
    task = task.sample(options.max_queries, options.seed)
    modes, left_out = _modes(encoder, options)
    cache = Cache(options.cache or default_cache(), encoder, options.settings, progress or _silent)
    clock = Clock()

    runs: dict[str, Rankings] = {}
    for name in options.baselines:
        with clock.time(name):
            runs[name] = _baseline(name, encoder, task, cache, options.keep)
    cut_documents = cut_queries = 0
    if modes:
        rankings, (cut_documents, cut_queries) = _modes_rankings(task, cache, modes, options, clock)
        runs |= {mode.name: rankings[mode.name] for mode in modes}
    if not runs:
        raise TrichromeError("nothing to measure: give a baseline or a mode")

    with clock.time("measure"):
        ids = [query.id for query in task.queries]
        values = {system: per_query(task.qrels, run, ids) for system, run in runs.items()}
        main = next(iter(METRICS))
        columns = np.stack([values[system][main] for system in runs], axis=1)  # [Q, S]
        comparisons = paired_bootstrap(main, list(runs), columns, options.samples, options.seed)
    langs = [query.lang for query in task.queries]
    return Report(
        task=task.name,
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        documents=len(task.documents),
        queries=len(task.queries),
        unjudged=task.unjudged,
        cut_documents=cut_documents,
        cut_queries=cut_queries,
        settings=_settings(task, modes, left_out, options),
        means={system: means(values[system]) for system in runs},
        languages={
            lang: {system: means(values[system], rows) for system in runs}
            for lang, rows in rows_by_language(langs).items()
        },
        language_queries={lang: len(rows) for lang, rows in rows_by_language(langs).items()},
        comparisons=tuple(comparisons),
        seconds=clock.seconds,
        query_ids=tuple(ids),
        query_langs=tuple(langs),
        per_query=values,
        rankings=runs,
    )


def evaluate_many(
    encoder: EvaluatedEncoder,
    tasks: Iterable[Task],
    options: Options | None = None,
    presets: Mapping[str, Preset] | None = None,
    progress: Callable[[str, str, int, int], None] | None = None,
) -> Suite:
    """Measure one encoder on several tasks, and average over them.

    tasks: an iterable, so that only one task at a time need be in memory. presets: task name → preset, for
    tasks that don't take that of `options`. progress: called as (task, stage, done, total).
    """
    options = options or Options()
    reports = []
    for task in tasks:
        told = None if progress is None else partial(progress, task.name)
        preset = (presets or {}).get(task.name, options.preset)
        reports.append(evaluate(encoder, task, replace(options, preset=preset), told))
    return Suite(tuple(reports))


def _modes(encoder: QueryEncoder, options: Options) -> tuple[list[Mode], list[str]]:
    """The modes to run, and the names of those that the encoder's outputs don't allow."""
    if options.modes is not None:
        for mode in options.modes:
            require_signals(mode, encoder.signals, f"the encoder {encoder.name}")
        return list(options.modes), []
    all_five = list((LONG_MODES if options.preset == "long" else M3_MODES).values())
    possible = [mode for mode in all_five if set(mode.needed) <= set(encoder.signals)]
    return possible, [mode.name for mode in all_five if mode not in possible]


def _settings(
    task: Task, modes: Sequence[Mode], left_out: Sequence[str], options: Options
) -> dict[str, JSON]:
    """What one needs to know to measure the same again."""
    return {
        "modes": {
            mode.name: {"sources": list(mode.sources), "depth": mode.depth, "weights": list(mode.weights)}
            for mode in modes
        },
        "left_out": list(left_out),
        "within_language": task.within_language,
        "max_queries": options.max_queries,
        "seed": options.seed,
        "keep": options.keep,
        "encode": dict(options.settings),
        **({"feedback": options.feedback.name} if options.feedback else {}),
    }


def _baseline(name: str, encoder: EvaluatedEncoder, task: Task, cache: Cache, keep: int) -> Rankings:
    """BM25's rankings, over the model's tokens or over words; each language's pool is an index of its own."""
    of_model = name == "bm25-tokenizer"
    key = content_hash(name, encoder.fingerprint if of_model else "", task_hash(task), str(keep))
    query_ids, document_ids = [q.id for q in task.queries], [d.id for d in task.documents]

    def tokens(texts: Sequence[str]) -> Sequence[Sequence[Hashable]]:
        return encoder.token_ids(texts) if of_model else [words(text) for text in texts]

    def make() -> tuple[dict[str, Rankings], list[int]]:
        rows: list[tuple[NDArray[Any], NDArray[Any]]] = [(np.empty(0), np.empty(0))] * len(task.queries)
        done = 0
        for _, documents, queries in task.pools():
            cache.progress(name, done, len(task.queries))
            index = BM25(tokens([task.documents[i].content for i in documents]))
            own = np.array(documents)
            for i, query in zip(queries, tokens([task.queries[i].text for i in queries]), strict=True):
                found, scores = index.search(query, keep)
                rows[i] = own[found], scores
                done += 1
                if done % 500 == 0:
                    cache.progress(name, done, len(task.queries))
        cache.progress(name, done, len(task.queries))
        return {name: Rankings.from_rows(query_ids, document_ids, rows)}, []

    return cache.rankings(key, query_ids, document_ids, make)[0][name]


def _modes_rankings(
    task: Task, cache: Cache, modes: Sequence[Mode], options: Options, clock: Clock
) -> tuple[dict[str, Rankings], list[int]]:
    """Each mode's rankings, and how many documents and queries were cut to the encoder's length."""
    query_ids, document_ids = [q.id for q in task.queries], [d.id for d in task.documents]
    how = [repr(mode) for mode in modes], str(options.keep)
    again = () if options.feedback is None else (options.feedback.name,)
    key = content_hash("modes", cache.model(), task_hash(task), *how, *again)

    def make() -> tuple[dict[str, Rankings], list[int]]:
        with clock.time("encode queries"):
            queries, cut_queries = cache.queries([query.text for query in task.queries])
        with clock.time("encode documents"):
            store, cut_documents = cache.store(task.documents)
        with store, clock.time("search"):
            found = _search(store, task, queries, modes, options, cache.progress)
        return found, [cut_documents, cut_queries]

    return cache.rankings(key, query_ids, document_ids, make)


def _search(
    store: Store, task: Task, queries: Embeddings, modes: Sequence[Mode], options: Options, progress: Progress
) -> dict[str, Rankings]:
    """Retrieve once a query, and rank its table in every mode."""
    query_ids, document_ids = [q.id for q in task.queries], [d.id for d in task.documents]
    rows: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {mode.name: [] for mode in modes}
    place = _places(store, document_ids)
    for i, query in enumerate(task.queries):
        if i % 100 == 0:
            progress("search", i, len(task.queries))
        where: Filter | None = {"lang": query.lang} if task.within_language else None
        tables = _tables(store, queries[i], modes, where, options.feedback)
        for mode, table in zip(modes, tables, strict=True):
            ranking = rank(table, mode, options.keep)
            rows[mode.name].append((place[ranking.rows], ranking.scores))
    progress("search", len(task.queries), len(task.queries))
    return {name: Rankings.from_rows(query_ids, document_ids, found) for name, found in rows.items()}


def _tables(
    store: Store, query: Embedding, modes: Sequence[Mode], where: Filter | None, feedback: Feedback | None
) -> list[ScoreTable]:
    """One table a mode."""
    if feedback is None:
        return [retrieve(store, query, modes, where)] * len(modes)
    revised = [feedback.revised(store, query, mode, where) for mode in modes]
    return [retrieve(store, own, [mode], where) for own, mode in zip(revised, modes, strict=True)]


def _places(store: Store, document_ids: Sequence[str]) -> NDArray[np.int32]:
    """[largest row + 1] the position in document_ids of each of the store's rows."""
    rows = store.rows_of(document_ids)
    places = np.full(int(rows.max()) + 1, -1, np.int32)
    places[rows] = np.arange(len(rows))
    return places


def task_hash(task: Task) -> str:
    """A hash of what a task searches and asks; the judgements are not part of it."""
    return content_hash(
        [d.id for d in task.documents],
        [d.content for d in task.documents],
        [d.lang or "" for d in task.documents],
        [q.id for q in task.queries],
        [q.text for q in task.queries],
        [q.lang or "" for q in task.queries],
        str(task.within_language),
    )


class Clock:
    """How many seconds each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def _silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""
