"""Teachers: scores of (query, passage) pairs that a student is trained towards, added to example files."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trichrome import scoring
from trichrome.embeddings import Embedding, Embeddings, MultiVector, Sparse
from trichrome.encoder.backend import CPU_TOKENS, GPU_TOKENS
from trichrome.encoder.batching import token_budget_batches
from trichrome.encoder.encoder import Encoder, TruncationWarning
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.formats.report import ReadReport
from trichrome.negatives.filters import PairScorer
from trichrome.negatives.report import Histogram
from trichrome.records import TrainingExample
from trichrome.scoring import M3_WEIGHTS

Scores = NDArray[np.float32]


class CrossEncoder:
    """A transformers sequence classifier that reads query and passage together.

    One label: its logit is the score. Two labels: the log-odds of the second. Scores are raw, not squashed.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, max_tokens: int, device: str | None = None
    ) -> None:
        labels = int(model.config.num_labels)
        if labels > 2:
            raise TrichromeError(f"{name}: a classifier of {labels} labels; a teacher needs one or two")
        self.name, self._labels, self._max_tokens = name, labels, max_tokens
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model, self._tokenizer = model.eval().to(self._device), tokenizer

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """[n] one score a (query, passage). Pairs longer than the model reads are cut, the longer text
        first, with a TruncationWarning that counts them."""
        if not pairs:
            return np.empty(0, np.float32)
        queries, passages = map(list, zip(*pairs, strict=True))
        whole = self._tokenizer(queries, passages, verbose=False)["input_ids"]
        lengths = [min(len(ids), self._max_tokens) for ids in whole]
        if over := [len(ids) - self._max_tokens for ids in whole if len(ids) > self._max_tokens]:
            warning = TruncationWarning(len(over), len(pairs), sum(over), self._max_tokens)
            warnings.warn(warning, stacklevel=2)
        scores = np.empty(len(pairs), np.float32)
        budget = CPU_TOKENS if self._device.type == "cpu" else GPU_TOKENS
        with torch.inference_mode():
            for rows in token_budget_batches(lengths, budget):
                batch = self._tokenizer(
                    [queries[i] for i in rows],
                    [passages[i] for i in rows],
                    truncation="longest_first",
                    max_length=self._max_tokens,
                    padding=True,
                    return_tensors="pt",
                ).to(self._device)
                logits = self._model(**batch).logits.float()  # [B, labels]
                made = logits[:, 0] if self._labels == 1 else logits[:, 1] - logits[:, 0]
                scores[rows] = made.cpu().numpy()
        return scores


class HybridTeacher:
    """Our own encoder: the weighted sum of its raw dense, sparse and multi-vector scores.

    weights: of the three; one of weight 0 is not computed. kept: passages whose outputs stay in memory, since
    one passage is often a negative of many queries.
    """

    def __init__(
        self, encoder: Encoder, weights: tuple[float, float, float] = M3_WEIGHTS, kept: int = 20_000
    ) -> None:
        names = zip(("dense", "sparse", "multivector"), weights, strict=True)
        self._signals = tuple(name for name, weight in names if weight)
        if missing := [name for name in self._signals if name not in encoder.signals]:
            raise TrichromeError(f"{encoder.name} has no output {', '.join(missing)}: give it weight 0")
        if not self._signals:
            raise TrichromeError("a hybrid teacher needs a weight above 0")
        self.name = f"hybrid of {encoder.name} {encoder.fingerprint[:12]} {weights}"
        self._encoder, self._weights, self._kept = encoder, weights, kept
        self._passages: OrderedDict[str, Embedding] = OrderedDict()

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """[n] one score a (query, passage)."""
        by_query: dict[str, list[int]] = {}
        for i, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(i)
        passages = self._known(list(dict.fromkeys(passage for _, passage in pairs)))
        queries = self._encoder.encode(list(by_query), kind="query", outputs=self._signals)
        scores = np.empty(len(pairs), np.float32)
        for q, rows in enumerate(by_query.values()):
            batch = _batch([passages[pairs[i][1]] for i in rows])
            parts = {name: scoring.score(name, queries[[q]], batch)[0] for name in self._signals}
            scores[rows] = scoring.weighted(parts, self._weights)
        return scores

    def _known(self, texts: list[str]) -> dict[str, Embedding]:
        """Outputs of distinct passages; those not in memory are encoded now."""
        found = {text: self._passages.pop(text) for text in texts if text in self._passages}
        if missing := [text for text in texts if text not in found]:
            made = self._encoder.encode(
                missing, kind="passage", outputs=self._signals, multivector_dtype="float16"
            )
            found |= {text: _copied(one) for text, one in zip(missing, made, strict=True)}
        self._passages |= found  # the latest used at the end
        while len(self._passages) > self._kept:
            self._passages.popitem(last=False)
        return found


def _copied(one: Embedding) -> Embedding:
    """A text's outputs by themselves, so that those of its whole batch can be let go."""
    return Embedding(
        dense=None if one.dense is None else one.dense.copy(),
        token_ids=None if one.token_ids is None else one.token_ids.copy(),
        token_weights=None if one.token_weights is None else one.token_weights.copy(),
        multivector=None if one.multivector is None else one.multivector.copy(),
    )


def _batch(rows: Sequence[Embedding]) -> Embeddings:
    first = rows[0]
    sparse = [(r.token_ids, r.token_weights) for r in rows if r.token_ids is not None]
    vectors = [r.multivector for r in rows if r.multivector is not None]
    return Embeddings(
        None if first.dense is None else np.stack([r.dense for r in rows if r.dense is not None]),
        None if first.token_ids is None else Sparse.from_rows([(i, w) for i, w in sparse if w is not None]),
        MultiVector.from_rows(vectors) if vectors else None,
    )


def open_teacher(
    name: str,
    *,
    encoder: Encoder | None = None,
    weights: tuple[float, float, float] = M3_WEIGHTS,
    dtype: str | None = None,
    max_tokens: int | None = None,
) -> PairScorer:
    """A teacher by name: "hybrid" (of `encoder`), or the folder or hub id of a cross-encoder.

    max_tokens: of a pair; by default what the model's tokenizer or positions allow.
    TrichromeError: no encoder for "hybrid"; no such model; a model that is no classifier.
    """
    if name == "hybrid":
        if encoder is None:
            raise TrichromeError("the hybrid teacher needs an encoder")
        return HybridTeacher(encoder, weights)
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name)
        if not any("SequenceClassification" in kind for kind in config.architectures or ()):
            raise TrichromeError(
                f"{name}: not a sequence classifier ({', '.join(config.architectures or ['unknown'])}), its "
                "head would be random; give a cross-encoder such as BAAI/bge-reranker-v2-m3"
            )
        model = AutoModelForSequenceClassification.from_pretrained(name, dtype=dtype or "float32")
        tokenizer = AutoTokenizer.from_pretrained(name)
    except TrichromeError:
        raise
    except (OSError, ValueError) as error:
        raise TrichromeError(
            f"{name}: no cross-encoder could be opened: {str(error).splitlines()[0]}"
        ) from None
    return CrossEncoder(model, tokenizer, name, max_tokens or _longest(config, tokenizer))


def _longest(config: Any, tokenizer: Any) -> int:
    """Tokens that a model reads: RoBERTa's kind keeps pad_id + 1 positions for itself."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 512)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))


@dataclass
class ScoreReport:
    """rows: examples written; scored: those that the teacher scored now. pairs: scores made. agree: rows
    whose best negative the teacher puts below every positive, out of `judged` rows that have negatives.
    positives, negatives: the scores. read: the reader's report."""

    teacher: str
    rows: int = 0
    scored: int = 0
    pairs: int = 0
    agree: int = 0
    judged: int = 0
    positives: Histogram = field(default_factory=Histogram)
    negatives: Histogram = field(default_factory=Histogram)
    read: ReadReport = field(default_factory=ReadReport)


def score_file(
    path: str | Path,
    out: str | Path,
    teacher: PairScorer,
    *,
    missing_only: bool = False,
    skip_bad: bool = False,
    block: int = 256,
    progress: Callable[[int], None] | None = None,
) -> ScoreReport:
    """Write a file's examples with the teacher's pos_scores and neg_scores, whole or not at all.

    missing_only: rows that have both kinds of scores keep them. block: rows scored at a time, all that is in
    memory. progress: called with the number of rows done.
    TrichromeError: a bad row; a score that is NaN or infinite; an output that is the input.
    """
    path, out = Path(path), Path(out)
    if out.resolve() == path.resolve():
        raise TrichromeError(f"{out}: is the input; write to another file")
    report = ScoreReport(teacher.name)
    rows = read_examples(path, skip_bad=skip_bad)

    def scored() -> Iterator[TrainingExample]:
        stream = iter(rows)
        while some := list(islice(stream, block)):
            yield from _scored(some, teacher, missing_only, report)
            if progress is not None:
                progress(report.rows)

    write_examples(out, scored())
    report.read = rows.report
    return report


def _scored(
    examples: Sequence[TrainingExample], teacher: PairScorer, missing_only: bool, report: ScoreReport
) -> Iterator[TrainingExample]:
    def complete(example: TrainingExample) -> bool:
        return example.positive_scores is not None and (
            example.negative_scores is not None or not example.negatives
        )

    todo = [e for e in examples if not (missing_only and complete(e))]
    pairs = [((e.prompt or "") + e.query, text) for e in todo for text in (*e.positives, *e.negatives)]
    scores = teacher.score(pairs)
    if not np.isfinite(scores).all():
        query, passage = pairs[int(np.flatnonzero(~np.isfinite(scores))[0])]
        raise TrichromeError(
            f"{teacher.name} gave no finite score for query {query!r:.60} and passage {passage!r:.60}; "
            "use it in float32, or another teacher"
        )
    values = iter(scores.tolist())
    for example in examples:
        report.rows += 1
        if missing_only and complete(example):
            yield example
            continue
        own = tuple(islice(values, len(example.positives)))
        other = tuple(islice(values, len(example.negatives)))
        report.scored += 1
        report.pairs += len(own) + len(other)
        report.positives.add(np.array(own, np.float32))
        report.negatives.add(np.array(other, np.float32))
        if other:
            report.judged += 1
            report.agree += max(other) < min(own)
        yield replace(example, positive_scores=own, negative_scores=other)
