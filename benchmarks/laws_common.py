"""What the laws share: intervals, parts of tasks and data, a smaller sibling of a model, and their sizes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from tokenizers import Tokenizer

from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone
from trichrome.errors import TrichromeError
from trichrome.evaluation import Task
from trichrome.evaluation.significance import SAMPLES, resampled_means
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.records import TrainingExample

#: nDCG's values are in 0 … 1, effects are told in points.
POINTS = 100


@dataclass(frozen=True)
class Sizes:
    """How much each law takes.

    queries, documents: at most, of each task; None for all documents. long_documents: of the long tasks.
    rows: training rows of a file and language. steps: of (a)'s two runs. dense_steps: of (d)'s.
    retromae_steps, contrastive_steps, tuning_steps: of (e)'s stages. batch_tokens: of (f)'s batches.
    seeds: repetitions of (f) and (g).
    """

    queries: int = 1500
    documents: int | None = None
    long_documents: int | None = None
    trained_queries: int = 300
    rows: int = 1000
    steps: int = 120
    dense_steps: int = 120
    retromae_steps: int = 160
    contrastive_steps: int = 100
    tuning_steps: int = 60
    batch_tokens: int = 8192
    padding_rows: int = 3000
    seeds: int = 5


QUICK = Sizes(
    queries=30,
    documents=60,
    long_documents=20,
    trained_queries=30,
    rows=40,
    steps=3,
    dense_steps=3,
    retromae_steps=3,
    contrastive_steps=3,
    tuning_steps=3,
    batch_tokens=1024,
    padding_rows=60,
)


@dataclass(frozen=True)
class Room:
    """Where a law works. data: the folder with train/ and eval/. work: a folder for what it makes.
    tell: called with a line about what is being done."""

    data: Path
    work: Path
    sizes: Sizes
    tell: Callable[[str], None]

    def train(self, name: str) -> Path:
        """A training file of the shared data."""
        return self.data / "train" / f"{name}.jsonl.gz"

    def task(self, name: str) -> Path:
        """An evaluation task of the shared data."""
        return self.data / "eval" / name


@dataclass(frozen=True)
class Interval:
    """An effect and where it lies with a confidence of 95 %."""

    effect: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"effect": round(self.effect, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True)
class Law:
    """What became of one law. what: the law, and what the effect is, in words. details: all else."""

    what: str
    interval: Interval
    holds: bool
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.interval.to_json(),
            "holds": self.holds,
            "what": self.what,
            "details": dict(self.details),
        }


# intervals


class Paired:
    """Systems on the same queries of several tasks, by the paired bootstrap over each task's queries.

    Every task counts the same, however many queries it has.
    """

    def __init__(self, tasks: Sequence[Mapping[str, NDArray[np.float64]]], samples: int = SAMPLES) -> None:
        """tasks: of each, system → [Q] values of a metric in 0 … 1."""
        if not tasks:
            raise ValueError("no task to compare on")
        self.systems = list(tasks[0])
        columns = [np.stack([task[s] for s in self.systems], axis=1) for task in tasks]  # [Q, S] each
        drawn = [resampled_means(values, samples, seed) for seed, values in enumerate(columns)]
        self._observed = np.mean([values.mean(axis=0) for values in columns], axis=0)  # [S]
        self._sampled = np.mean(drawn, axis=0)  # [samples, S]

    def mean(self, system: str) -> float:
        """In points."""
        return float(POINTS * self._observed[self.systems.index(system)])

    def difference(self, a: str, b: str) -> Interval:
        """Mean of a minus mean of b, in points, with its percentile interval."""
        i, j = self.systems.index(a), self.systems.index(b)
        low, high = np.percentile(self._sampled[:, i] - self._sampled[:, j], [2.5, 97.5])
        effect = self._observed[i] - self._observed[j]
        return Interval(POINTS * float(effect), POINTS * float(low), POINTS * float(high))


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of independent repetitions and Student's interval; at least two."""
    column = np.array(values, np.float64)
    if len(column) < 2:
        raise ValueError("an interval needs at least two repetitions")
    half = float(student.ppf(0.975, len(column) - 1) * column.std(ddof=1) / len(column) ** 0.5)
    mean = float(column.mean())
    return Interval(mean, mean - half, mean + half)


def smallest(steps: Mapping[str, Interval]) -> Interval:
    """The weakest of several differences that a law wants above 0."""
    return min(steps.values(), key=lambda interval: interval.effect)


def all_above_zero(steps: Mapping[str, Interval]) -> bool:
    """Whether the whole interval of each lies above 0."""
    return all(interval.low > 0 for interval in steps.values())


# data


def part_of(task: Task, queries: int | None, documents: int | None, seed: int = 0) -> Task:
    """At most so many queries, drawn at random, and the documents that answer them, with others up to
    `documents` (all where None)."""
    task = task.sample(queries, seed)
    if documents is None or documents >= len(task.documents):
        return task
    judged = {d for query in task.queries for d in task.qrels[query.id]}
    langs = {query.lang for query in task.queries} if task.within_language else None
    others = [d.id for d in task.documents if d.id not in judged and (langs is None or d.lang in langs)]
    room = max(0, documents - len(judged))
    kept = judged | set(random.Random(seed).sample(others, min(room, len(others))))
    return replace(task, documents=[d for d in task.documents if d.id in kept])


def spoken(task: Task, langs: Sequence[str]) -> Task:
    """The part of a task whose queries and documents are in some languages."""
    documents = [d for d in task.documents if d.lang in langs]
    queries = [q for q in task.queries if q.lang in langs]
    return Task.of(task.name, documents, queries, task.qrels, task.within_language)


def drawn_rows(path: Path, rows: int, to: Path, seed: int = 0) -> Path:
    """Write rows of a training file, drawn at random, in their order; left as it is where it exists."""
    if not to.is_file():
        examples = list(read_examples(path))
        chosen = random.Random(seed).sample(range(len(examples)), min(rows, len(examples)))
        write_examples(to, [examples[i] for i in sorted(chosen)])
    return to


def all_texts(paths: Sequence[Path]) -> list[str]:
    """Every query and passage of training files."""
    rows = [row for path in paths for row in read_examples(path)]
    return [text for row in rows for text in (row.query, *row.positives, *row.negatives)]


def sentence_pair(text: str, chance: random.Random, shortest: int = 10) -> TrainingExample | None:
    """A sentence of a text as the query, the rest as its passage (inverse cloze, Lee et al. 2019); None where
    there is no such sentence. For scripts whose sentences end with 。！？ or a line's end."""
    ends = [i + 1 for i, c in enumerate(text) if c in "。！？\n"]
    bounds = sorted({0, *ends, len(text)})
    spans = [(a, b) for a, b in pairwise(bounds) if len(text[a:b].strip()) >= shortest]
    if not spans:
        return None
    start, end = chance.choice(spans)
    rest = text[:start] + text[end:]
    if len(rest.strip()) < shortest:
        return None
    return TrainingExample(text[start:end].strip(), (rest.strip(),))


# a smaller sibling


def sibling(encoder: Encoder, texts: Sequence[str], layers: int | None = None, most: int | None = None,
            **changes: Any) -> Encoder:  # fmt: skip
    """An encoder of the first layers and of the words that some texts have; its other weights are copied.

    layers: all where None. most: keep only so many words (the most frequent), and every single character,
    out of which other words are then made; where None the texts are cut into tokens as before. changes: of
    the settings (EncoderConfig); heads are copied where the settings have them.
    """
    backbone = encoder.network.backbone
    if not isinstance(backbone, Backbone):
        raise TrichromeError(f"{encoder.name} is no BERT, so a smaller sibling can't be made of it")
    old = encoder.config
    prompted = [*texts, *old.prompts.values()]
    tokenizer, kept = cut_vocabulary(encoder.tokenizer.tokenizer, prompted, old.unscored_ids, most)
    place = {token: i for i, token in enumerate(kept)}
    shape = replace(backbone.config, vocab_size=len(kept), layers=layers or backbone.config.layers)
    ids = {name: place[getattr(old, name)] for name in ("cls_id", "eos_id", "pad_id")}
    settings: dict[str, Any] = {**ids, **changes}
    unscored = tuple(sorted(place[i] for i in old.unscored_ids))
    config: EncoderConfig = replace(
        old, name=f"{old.name}-sibling", backbone=shape, unscored_ids=unscored, **settings
    )
    made = Backbone(shape)
    state = {k: v for k, v in backbone.state_dict().items() if k in made.state_dict()}
    made.load_state_dict({**state, "word.weight": backbone.word.weight.detach()[kept]})
    heads = Heads(config, shape.hidden)
    theirs = encoder.network.heads.state_dict()
    heads.load_state_dict({k: theirs[k] for k in heads.state_dict()})
    return Encoder(Network(made, heads), tokenizer, config, str(encoder.device))


def cut_vocabulary(
    tokenizer: Tokenizer, texts: Sequence[str], special: Sequence[int], most: int | None = None
) -> tuple[Tokenizer, list[int]]:
    """A unigram tokenizer with fewer pieces, and which of the old ids they had, ascending.

    Kept are the pieces of the texts (the `most` frequent, and those of one character), the special ids and
    the mask.
    """
    state = json.loads(tokenizer.to_str())
    if state["model"]["type"] != "Unigram":
        raise TrichromeError(f"only unigram vocabularies can be cut, not {state['model']['type']}")
    pieces = state["model"]["vocab"]
    counts = np.zeros(len(pieces), np.int64)
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(counts, encoding.ids, 1)
    used = np.flatnonzero(counts)
    kept = set(used.tolist() if most is None else used[np.argsort(-counts[used])][:most].tolist())
    if most is not None:
        characters = {tokenizer.token_to_id(c) for c in {*"".join(texts), "▁"}}
        kept |= {i for i in characters if i is not None}
    added = state["added_tokens"]
    ids = sorted(kept | set(special) | {token["id"] for token in added})
    place = {token: i for i, token in enumerate(ids)}
    state["model"]["vocab"] = [pieces[i] for i in ids]
    state["model"]["unk_id"] = place[state["model"]["unk_id"]]
    state["added_tokens"] = [{**token, "id": place[token["id"]]} for token in added]
    state["post_processor"] = None  # encoders put the special tokens in place themselves
    return Tokenizer.from_str(json.dumps(state)), ids
