"""Hard negatives for training examples: find candidates, throw out the false ones, draw, write."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trichrome import scoring
from trichrome.embeddings import SIGNALS, Embeddings
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import write_examples
from trichrome.negatives.draw import drawn
from trichrome.negatives.filters import (
    Answers,
    PairScorer,
    keys_of,
    known_answers,
    shared_answers,
    too_high,
)
from trichrome.negatives.pool import MiningEncoder, Pool, Progress, Rows, Scores, encode_texts, plain
from trichrome.negatives.report import MineReport
from trichrome.negatives.settings import MineSettings, Source
from trichrome.negatives.sources import Finder, Queries, finder, generator
from trichrome.records import TrainingExample

_NONE = np.empty(0, np.int64)


def mine(
    examples: Sequence[TrainingExample],
    pool: Pool,
    out: str | Path,
    encoder: MiningEncoder | None,
    settings: MineSettings | None = None,
    *,
    rescorer: PairScorer | None = None,
    answers: Mapping[str, Answers] | None = None,
    progress: Progress | None = None,
) -> MineReport:
    """Write the examples with negatives out of a pool (FlagEmbedding JSONL, whole or not at all).

    encoder: None where neither a source nor the judge needs one. rescorer: a second judge, which sees the
    candidates that the first one let pass. answers: what all rows of the data know of a query, where
    `examples` is only a part of them; see shared_answers. progress: called as (stage, done, total).
    TrichromeError: the encoder lacks an output that a source or the judge needs.
    """
    report = MineReport()
    made = mined(
        examples, pool, encoder, settings or MineSettings(), report,
        rescorer=rescorer, answers=answers, progress=progress,
    )  # fmt: skip
    write_examples(out, made)
    return report


def mined(
    examples: Sequence[TrainingExample],
    pool: Pool,
    encoder: MiningEncoder | None,
    settings: MineSettings,
    report: MineReport,
    *,
    rescorer: PairScorer | None = None,
    answers: Mapping[str, Answers] | None = None,
    progress: Progress | None = None,
) -> Iterator[TrainingExample]:
    """The examples with their negatives, in order; `report` is complete when the first one comes."""
    check_encoder(encoder, settings)
    if settings.scores == "rescorer" and rescorer is None:
        raise TrichromeError("there is no rescorer whose scores could be written; give one, or write others")
    report.judge, report.wanted, report.queries = settings.judge, settings.negatives, len(examples)
    work = _Work(examples, pool, encoder, settings, report, rescorer, answers, progress or _silent)
    for example, found in zip(examples, work.all(), strict=True):
        yield _with_negatives(example, found, pool, settings)


def check_encoder(encoder: MiningEncoder | None, settings: MineSettings) -> None:
    """Raise where the sources or the judge need an output that the encoder lacks."""
    held = () if encoder is None else encoder.signals
    if missing := [name for name in settings.signals if name not in held]:
        whose = "there is no model" if encoder is None else f"{encoder.name} has no such output"
        raise TrichromeError(
            f"mining needs {', '.join(missing)}, but {whose}: choose other sources or another judge"
        )


@dataclass
class Negatives:
    """What one query got. rows [n] of the pool; scores [n]; positives: the scores of its positives."""

    rows: Rows
    scores: Scores | None = None
    positives: Scores | None = None


class _Work:
    """One call of mine."""

    def __init__(
        self,
        examples: Sequence[TrainingExample],
        pool: Pool,
        encoder: MiningEncoder | None,
        settings: MineSettings,
        report: MineReport,
        rescorer: PairScorer | None,
        answers: Mapping[str, Answers] | None,
        progress: Progress,
    ) -> None:
        self.examples, self.pool, self.encoder, self.settings = examples, pool, encoder, settings
        self.report, self.rescorer, self.progress = report, rescorer, progress
        self.answers = shared_answers(examples) if answers is None else answers
        texts = [(example.prompt or "") + example.query for example in examples]
        embeddings = Embeddings()
        if settings.signals and encoder is not None:
            with self._timed("encode queries"):
                embeddings = encode_texts(encoder, texts, "query", settings.signals, progress)
        langs = [settings.language(example.lang) for example in examples]
        self.queries = Queries(texts, embeddings, langs, [self._positive_rows(e) for e in examples])
        self.finders: dict[str, Finder] = {
            source.name: finder(source.name, pool, self.queries, encoder, settings)
            for source in (*settings.sources, *settings.fill)
        }

    def all(self) -> list[Negatives]:
        """Every query's negatives, in the order of the queries."""
        groups: dict[str | None, list[int]] = defaultdict(list)
        for i, lang in enumerate(self.queries.langs):
            groups[lang if self.settings.within_language else None].append(i)
        made: list[Negatives] = [Negatives(_NONE)] * len(self.examples)
        done = 0
        for lang, members in groups.items():
            self.report.candidates += len(self.pool.rows(lang))
            for start in range(0, len(members), self.settings.block):
                self.progress("mine", done, len(self.examples))
                block = np.array(members[start : start + self.settings.block], np.int64)
                for i, negatives in zip(block.tolist(), self._block(block, lang), strict=True):
                    made[i] = negatives
                done += len(block)
        self.progress("mine", done, len(self.examples))
        return made

    def _block(self, block: NDArray[np.int64], lang: str | None) -> list[Negatives]:
        """The negatives of some queries [B] whose candidates are of one language."""
        settings, report = self.settings, self.report
        with self._timed("search"):
            found = self._find(settings.sources, block, lang)
            self._prepare(block, found)
        with self._timed("filter"):
            positives = self._positive_scores(block)
            kept = [
                self._allowed(i, rows, of_positives)
                for i, rows, of_positives in zip(block.tolist(), found, positives, strict=True)
            ]
        if settings.fill:
            self._fill(block, lang, found, kept, positives)
        with self._timed("draw"):
            ordered = [self._order(i, *one) for i, one in zip(block.tolist(), kept, strict=True)]
        results = []
        rescored = self._rescore(block, ordered)
        for at, i in enumerate(block.tolist()):
            rows, scores = ordered[at]
            wanted = settings.negatives
            if settings.keep:
                wanted = max(0, wanted - len(self.examples[i].negatives))
                report.kept += len(self.examples[i].negatives)
            own = positives[at]
            if rescored is not None:
                rows, scores, again, own_again = rescored[at]
                report.score("rescored negatives", again[:wanted])
                report.score("rescored positives", own_again)
                if settings.scores == "rescorer":
                    results.append(Negatives(rows[:wanted], again[:wanted], own_again))
            if rescored is None or settings.scores != "rescorer":
                results.append(Negatives(rows[:wanted], scores[:wanted], own))
            if settings.judge != "none":
                report.score("negatives", scores[:wanted])
                report.score("positives", own)
            report.drawn += len(rows[:wanted])
            report.counts[len(rows[:wanted]) + len(self.examples[i].negatives) * settings.keep] += 1
        return results

    def _find(self, sources: Sequence[Source], block: NDArray[np.int64], lang: str | None) -> list[Rows]:
        """Each query's candidates: the windows of all sources, in turn by rank, each row once."""
        windows = []
        for source in sources:
            lists = self.finders[source.name].find(block, source.last, lang)
            windows.append([rows[source.first - 1 : source.last] for rows in lists])
            self.report.found[source.name] += sum(len(rows) for rows in windows[-1])
        return [_in_turn(lists) for lists in zip(*windows, strict=True)]

    def _prepare(self, block: NDArray[np.int64], found: Sequence[Rows]) -> None:
        """Tell the pool what the rules and the judge will look at: candidates, positives, and whatever is
        known to answer the queries."""
        wanted = [*found]
        for i in block.tolist():
            example = self.examples[i]
            known = self.answers.get(plain(example.query), Answers()).keys | keys_of(example)
            wanted += [self.queries.positives[i], self.pool.with_keys(known)]
        self.pool.prepare(np.unique(np.concatenate([*wanted, _NONE])))

    def _allowed(self, i: int, rows: Rows, positives: Scores) -> tuple[Rows, Scores]:
        """The candidates of query i that no rule removes, and their scores by the judge."""
        report, settings = self.report, self.settings
        report.considered += len(rows)
        kept = np.ones(len(rows), np.bool_)
        for rule, mask in known_answers(self.pool, self.examples[i], self.answers, rows):
            report.removed[rule] += int((kept & mask).sum())
            kept &= ~mask
        rows = rows[kept]
        if settings.judge == "none":
            return rows, -np.arange(len(rows), dtype=np.float32)  # the better its rank, the higher
        scores = self._judge(i, rows)
        report.score("candidates", scores)
        report.above += int((scores > positives.min()).sum())
        kept = np.ones(len(rows), np.bool_)
        for rule, mask in too_high(scores, positives, settings.rules):
            report.removed[rule] += int((kept & mask).sum())
            kept &= ~mask
        return rows[kept], scores[kept]

    def _fill(
        self,
        block: NDArray[np.int64],
        lang: str | None,
        found: list[Rows],
        kept: list[tuple[Rows, Scores]],
        positives: list[Scores],
    ) -> None:
        """Ask the fill sources for the queries that are left short; theirs come after the others."""
        few = [at for at, (rows, _) in enumerate(kept) if len(rows) < self.settings.negatives]
        if not few:
            return
        with self._timed("search"):
            more = self._find(self.settings.fill, block[few], lang)
            self._prepare(block, [*found, *more])
        with self._timed("filter"):
            for at, rows in zip(few, more, strict=True):
                new = rows[~np.isin(rows, found[at])]
                new, scores = self._allowed(int(block[at]), new, positives[at])
                if self.settings.judge == "none":
                    scores = scores - len(kept[at][0])
                kept[at] = np.concatenate([kept[at][0], new]), np.concatenate([kept[at][1], scores])

    def _order(self, i: int, rows: Rows, scores: Scores) -> tuple[Rows, Scores]:
        random = generator(self.settings.seed, self.queries.texts[i], "draw")
        order = drawn(scores, self.settings.draw, self.settings.bins, random)
        return rows[order], scores[order]

    def _judge(self, i: int, rows: Rows) -> Scores:
        query = self.queries.embeddings[i]
        parts = {name: self.pool.scores(name, query, rows) for name in self.settings.judged}
        return self._weighted(parts)

    def _weighted(self, parts: Mapping[str, Scores]) -> Scores:
        if self.settings.judge == "hybrid":
            return np.asarray(scoring.weighted(parts, self.settings.weights), np.float32)
        return parts[self.settings.judge]

    def _positive_rows(self, example: TrainingExample) -> Rows:
        ids = example.positive_ids or (None,) * len(example.positives)
        rows = [self.pool.rows_of(t, id)[:1] for t, id in zip(example.positives, ids, strict=True)]
        return np.concatenate(rows)

    def _positive_scores(self, block: NDArray[np.int64]) -> list[Scores]:
        """The judge's scores of each query's positives; those that the pool lacks are encoded now."""
        if self.settings.judge == "none":
            return [np.zeros(0, np.float32)] * len(block)
        made = []
        absent: dict[str, int] = {}
        for i in block.tolist():
            if len(self.queries.positives[i]) < len(self.examples[i].positives):
                for text in self.examples[i].positives:
                    absent.setdefault(text, len(absent))
        encoded = Embeddings()
        if absent:
            assert self.encoder is not None
            encoded = encode_texts(self.encoder, list(absent), "passage", self.settings.judged, _silent)
        for i in block.tolist():
            rows = self.queries.positives[i]
            if len(rows) == len(self.examples[i].positives):
                made.append(self._judge(i, rows))
                continue
            query = self.queries.embeddings[[i]]
            own = encoded[[absent[text] for text in self.examples[i].positives]]
            parts = {
                name: scoring.score(name, query, own)[0] for name in SIGNALS if name in self.settings.judged
            }
            made.append(self._weighted(parts))
        return made

    def _rescore(
        self, block: NDArray[np.int64], ordered: list[tuple[Rows, Scores]]
    ) -> list[tuple[Rows, Scores, Scores, Scores]] | None:
        """(rows, judge's scores, rescorer's scores, rescorer's scores of the positives) of those that the
        rescorer lets pass, in the order drawn."""
        if self.rescorer is None:
            return None
        settings, report = self.settings, self.report
        first = [rows[: settings.rescored] for rows, _ in ordered]
        pairs: list[tuple[str, str]] = []
        for i, rows in zip(block.tolist(), first, strict=True):
            texts = [*self.examples[i].positives, *self.pool.texts(rows)]
            pairs += [(self.queries.texts[i], text) for text in texts]
        with self._timed("rescore"):
            all_scores = self.rescorer.score(pairs)
        made, start = [], 0
        for at, i in enumerate(block.tolist()):
            middle = start + len(self.examples[i].positives)
            end = middle + len(first[at])
            own, scores = all_scores[start:middle], all_scores[middle:end]
            kept = np.ones(len(scores), np.bool_)
            for rule, mask in too_high(scores, own, settings.rescore_rules, "rescored "):
                report.removed[rule] += int((kept & mask).sum())
                kept &= ~mask
            made.append((first[at][kept], ordered[at][1][: len(kept)][kept], scores[kept], own))
            start = end
        return made

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.report.seconds[stage] = self.report.seconds.get(stage, 0.0) + time.perf_counter() - start


def _with_negatives(
    example: TrainingExample, found: Negatives, pool: Pool, settings: MineSettings
) -> TrainingExample:
    """The example with what was found; its own negatives go first where they are kept."""
    texts, ids = pool.texts(found.rows), pool.ids(found.rows)
    known = [id for id in ids if id is not None]
    scores = None if found.scores is None else tuple(round(float(s), 6) for s in found.scores)
    before = example.negatives if settings.keep else ()
    keeps_ids = not before or example.negative_ids is not None
    before_ids = (example.negative_ids or ()) if before else ()
    write = settings.scores != "none" and not before  # the old negatives have no scores of this judge
    own = None if found.positives is None else tuple(round(float(s), 6) for s in found.positives)
    return replace(
        example,
        negatives=(*before, *texts),
        negative_ids=(*before_ids, *known) if len(known) == len(ids) and ids and keeps_ids else None,
        positive_scores=own if write else None,
        negative_scores=scores if write else None,
    )


def _in_turn(lists: Sequence[Rows]) -> Rows:
    """Rows of several ranked lists: all first ranks, all second ranks and so on, each row once."""
    if len(lists) == 1:
        return lists[0]
    ranks = np.concatenate([np.arange(len(rows)) for rows in lists])
    rows = np.concatenate(lists)[np.argsort(ranks, kind="stable")]
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]


def _silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""
