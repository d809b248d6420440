"""An encoded corpus as the pool that negatives are mined from; a cluster's processes search and read it.

`search` is one pass over the shards for all queries that it is given; `prepare` is one more, over the shards
that hold what was found, and brings those passages here. So what a pass costs is shared by a block of queries
(MineSettings.block), and what is held here is a block's candidates. The rules, the draws and the report are
those of `trichrome.negatives`, on the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.cluster.connect import Cluster, run_in_tasks
from trichrome.cluster.folder import EncodedCorpus, language_rows
from trichrome.cluster.schema import from_table
from trichrome.cluster.shards import read_rows, read_shard
from trichrome.cluster.topk import Best, best_of, merge
from trichrome.embeddings import Embedding, Embeddings
from trichrome.errors import TrichromeError
from trichrome.index.build import document_of
from trichrome.index.keys import hash_ids
from trichrome.index.maxsim import maxsim
from trichrome.index.sparse_kernel import pair_scores
from trichrome.negatives.pool import Rows, Scores, plain

#: Tasks of a search for each actor: they end at different times, so that the last ones are short.
_TASKS_AN_ACTOR = 4

#: Called as (what is done, tasks done, of how many).
Passed = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Search:
    """Searches some shards for one block of queries. lang: only its passages. threads: of the products."""

    signal: str
    queries: Embeddings
    k: int
    lang: str | None
    threads: int

    def __call__(self, shards: Sequence[tuple[str, int]]) -> Best:
        """(path, row at which it begins) of each shard → their best passages."""
        import torch

        torch.set_num_threads(self.threads)
        chunks = (chunk for path, start in shards for chunk in self._chunks(Path(path), start))
        return best_of(self.signal, self.queries, chunks, self.k)

    def _chunks(self, path: Path, start: int) -> Iterator[tuple[Rows, Embeddings]]:
        allowed = None if self.lang is None else language_rows(path, self.lang)
        first = 0
        for passages in read_shard(path, [self.signal], columns=()):
            made = passages.embeddings
            rows = np.arange(first, first + len(made), dtype=np.int64)
            if allowed is not None:
                rows = rows[np.isin(rows, allowed)]
                made = made[rows - first]
            first += len(passages.embeddings)
            if len(rows):
                yield rows + start, made


@dataclass(frozen=True)
class Gather:
    """Reads passages out of a shard, with some outputs."""

    outputs: tuple[str, ...]

    def __call__(self, item: tuple[str, Rows, int]) -> tuple[Rows, list[str], list[str], Embeddings]:
        """(path, rows within it, row at which it begins) → (rows, ids, texts, outputs)."""
        path, rows, start = item
        found = from_table(read_rows(Path(path), rows, self.outputs, columns=("id", "payload")))
        texts = [document_of("-", payload).content for payload in found.payloads]
        return rows + start, list(found.ids), texts, found.embeddings


class ClusterPool:
    """A `Pool` over the passages of an encoded corpus.

    signals: the outputs whose scores are asked for (`MineSettings.signals`); their vectors are read together
    with the texts. To be used within `cluster.connected()`. Training rows have no keys here, so `row:` keys
    find nothing; a passage is known by its id, and by that of the document that it was cut from. Held here:
    24 bytes a passage of the corpus, and the passages of the latest `prepare`.
    TrichromeError: an output that the corpus was not encoded with, an id that is given twice.
    """

    def __init__(
        self,
        corpus: EncodedCorpus,
        cluster: Cluster,
        signals: Sequence[str],
        *,
        threads: int = 1,
        passed: Passed | None = None,
    ) -> None:
        if missing := [name for name in signals if name not in corpus.encoding.outputs]:
            raise TrichromeError(
                f"{corpus.out}: encoded without {', '.join(missing)}, which mining needs; choose other "
                "sources or another judge, or encode it with that output"
            )
        corpus.check_ids()
        self.corpus, self.cluster, self.signals = corpus, cluster, tuple(signals)
        self._threads, self._passed = threads, passed or _silent
        self._keys = _Lookup(corpus.keys(), np.arange(len(corpus), dtype=np.int64))
        self._documents = _Lookup(*corpus.document_keys())
        self._by_lang: dict[str | None, Rows] = {}
        self._held = _Held(np.empty(0, np.int64), [], [], Embeddings())
        #: Seconds that searching and gathering took, and bytes of shards that were searched.
        self.seconds = {"search": 0.0, "gather": 0.0}

    def rows(self, lang: str | None) -> Rows:
        if lang not in self._by_lang:
            self._by_lang[lang] = (
                np.arange(len(self.corpus), dtype=np.int64)
                if lang is None
                else self.corpus.rows_of_language(lang)
            )
        return self._by_lang[lang]

    def texts(self, rows: Rows) -> list[str]:
        held = self._with(rows)
        return [held.texts[i] for i in held.places(rows)]

    def ids(self, rows: Rows) -> list[str | None]:
        held = self._with(rows)
        return [held.ids[i] for i in held.places(rows)]

    def rows_of(self, text: str, id: str | None) -> Rows:
        return np.empty(0, np.int64) if id is None else self._keys.rows([id])

    def with_keys(self, keys: Iterable[str]) -> Rows:
        documents = [key[4:] for key in keys if key.startswith("doc:")]
        return np.unique(np.concatenate([self._keys.rows(documents), self._documents.rows(documents)]))

    def same_text(self, rows: Rows, texts: Iterable[str]) -> NDArray[np.bool_]:
        wanted = {plain(text) for text in texts}
        held = self._with(rows)
        return np.array([held.plain(i) in wanted for i in held.places(rows)], np.bool_)

    def alike(self, rows: Rows, others: Rows) -> NDArray[np.bool_]:
        if not len(others):
            return np.zeros(len(rows), np.bool_)
        self._with(np.union1d(rows, others))
        return self.same_text(rows, self.texts(others))

    def search(self, signal: str, queries: Embeddings, k: int, lang: str | None) -> list[Rows]:
        """One pass over the shards (that hold the language) for all the queries."""
        shards = [
            (str(path.resolve()), int(start))
            for path, start, info in zip(
                self.corpus.paths, self.corpus.starts[:-1], self.corpus.infos, strict=True
            )
            if info.rows and (lang is None or info.langs.get(lang))
        ]
        work = Search(signal, queries.select(signal), k, lang, self._threads)
        # several shards a task, whose lists are merged there: here it would be one after another
        tasks = min(len(shards), _TASKS_AN_ACTOR * self.cluster.actors)
        parts = [shards[i * len(shards) // tasks : (i + 1) * len(shards) // tasks] for i in range(tasks)]
        began, best = time.perf_counter(), merge([], k)
        for done, found in enumerate(run_in_tasks(self.cluster, work, parts, self._threads), 1):
            best = merge([best, found], k)  # at once, so that only one task's lists wait
            self._passed(f"search {signal}{'' if lang is None else f' ({lang})'}", done, len(parts))
        self.seconds["search"] += time.perf_counter() - began
        return best.lists(len(queries))

    def scores(self, signal: str, query: Embedding, rows: Rows) -> Scores:
        held = self._with(rows)
        at = held.places(rows)
        made = held.embeddings
        if signal == "dense":
            assert made.dense is not None
            assert query.dense is not None
            return np.asarray(np.asarray(made.dense[at], np.float32) @ query.dense, np.float32)
        if signal == "sparse":
            assert made.sparse is not None
            assert query.token_ids is not None
            assert query.token_weights is not None
            stored = made.sparse
            return np.asarray(
                pair_scores(
                    query.token_ids, query.token_weights, stored.indptr, stored.ids, stored.weights, at
                )
            )
        assert made.multivector is not None
        assert query.multivector is not None
        return maxsim(query.multivector, [made.multivector.row(i) for i in at.tolist()])

    def prepare(self, rows: Rows) -> None:
        """Bring these passages here, in one pass over the shards that hold them; others are let go."""
        rows = np.unique(rows)
        missing = rows[~np.isin(rows, self._held.rows)]
        kept = self._held.only(rows)
        items = [
            (str(self.corpus.paths[shard].resolve()), local, int(self.corpus.starts[shard]))
            for shard, local in self.corpus.split(missing)
        ]
        began, parts = time.perf_counter(), [kept] if len(kept.rows) else []
        for found in run_in_tasks(self.cluster, Gather(self.signals), items):
            parts.append(_Held(*found))
            self._passed("read candidates", len(parts), len(items) + bool(len(kept.rows)))
        self.seconds["gather"] += time.perf_counter() - began
        self._held = _Held.joined(parts)

    def _with(self, rows: Rows) -> _Held:
        """What is held, these rows among it."""
        if not np.isin(rows, self._held.rows).all():
            self.prepare(np.union1d(self._held.rows, rows))
        return self._held


class _Held:
    """Passages that are here. rows: [n] ascending."""

    def __init__(self, rows: Rows, ids: list[str], texts: list[str], embeddings: Embeddings) -> None:
        self.rows, self.ids, self.texts, self.embeddings = rows, ids, texts, embeddings
        self._plain: dict[int, str] = {}

    def places(self, rows: Rows) -> NDArray[np.int64]:
        """[n] where rows are that are all here."""
        return np.searchsorted(self.rows, rows)

    def plain(self, i: int) -> str:
        if i not in self._plain:
            self._plain[i] = plain(self.texts[i])
        return self._plain[i]

    def only(self, rows: Rows) -> _Held:
        """Those of the passages that are among rows."""
        at = np.flatnonzero(np.isin(self.rows, rows))
        if len(at) == len(self.rows):
            return self
        made = self.embeddings[at] if self.embeddings.signals else self.embeddings
        return _Held(self.rows[at], [self.ids[i] for i in at], [self.texts[i] for i in at], made)

    @classmethod
    def joined(cls, parts: Sequence[_Held]) -> _Held:
        """The passages of all parts, by row."""
        if not parts:
            return cls(np.empty(0, np.int64), [], [], Embeddings())
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        ids = [id for part in parts for id in part.ids]
        texts = [text for part in parts for text in part.texts]
        made = Embeddings.concatenate([part.embeddings for part in parts])
        if made.signals:
            made = made[order]
        return cls(rows[order], [ids[i] for i in order], [texts[i] for i in order], made)


class _Lookup:
    """Keys to rows; a key may stand for several.

    Keys are 63-bit hashes. That an id which the corpus lacks has the key of one that it holds happens once
    in 10^10 look-ups at 10^8 passages; that two ids of the corpus share one is found by check_ids.
    """

    def __init__(self, keys: NDArray[np.int64], rows: Rows) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order]

    def rows(self, ids: Sequence[str]) -> Rows:
        """The rows of all these ids."""
        keys: Any = hash_ids(ids)
        first, last = (np.searchsorted(self._keys, keys, side=side) for side in ("left", "right"))
        found = [self._rows[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]
        return np.concatenate([*found, np.empty(0, np.int64)])


def _silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""
