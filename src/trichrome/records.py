"""The records that every room passes on: documents, queries, judgements, rankings, training examples.

Frozen dataclasses that check their own fields and do nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
Payload: TypeAlias = "dict[str, JSON]"

#: Relevance judgements: query id → document id → grade (> 0 is relevant). The BEIR contract.
Qrels: TypeAlias = "Mapping[str, Mapping[str, int]]"

#: A ranking: query id → document id → score (higher is better). The BEIR contract.
Run: TypeAlias = "Mapping[str, Mapping[str, float]]"


def _require_str(record: str, name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{record}.{name} must be a string, got {type(value).__name__}: {value!r:.60}")


@dataclass(frozen=True, slots=True)
class Document:
    """One text to be found.

    id: unique within its corpus, not empty.
    text: the body; may be empty (it is then found by its title alone, or not at all).
    title: put before the body when the document is encoded.
    lang: a language tag as the corpus spells it, or None where unknown.
    metadata: JSON values that filters can use.
    """

    id: str
    text: str
    title: str = ""
    lang: str | None = None
    metadata: Payload = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("id", "text", "title"):
            _require_str("Document", name, getattr(self, name))
        if self.lang is not None:
            _require_str("Document", "lang", self.lang)
        if not self.id:
            raise ValueError("Document.id must not be empty")
        if not isinstance(self.metadata, dict):
            raise TypeError(f"Document.metadata must be a dict, got {type(self.metadata).__name__}")

    @property
    def content(self) -> str:
        """What is encoded: the title, a line break, the body (character offsets count from its start)."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """One question. id: unique within its task. lang: as in Document."""

    id: str
    text: str
    lang: str | None = None

    def __post_init__(self) -> None:
        for name in ("id", "text"):
            _require_str("Query", name, getattr(self, name))
        if self.lang is not None:
            _require_str("Query", "lang", self.lang)
        if not self.id:
            raise ValueError("Query.id must not be empty")


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One row of training data, as in FlagEmbedding's JSONL.

    query: the question.
    positives: at least one relevant passage.
    negatives: hard negatives, possibly none (in-batch negatives serve then).
    positive_scores, negative_scores: a teacher's scores, one a passage, or None.
    prompt: an instruction put before the query. type: the task's kind. lang: a language tag.
    id: what the row is about; rows with one id (translations, several questions of one text) are never
    each other's negatives. positive_ids, negative_ids: the passages' document ids, one a passage, where
    known; a passage that is relevant to another query of a batch is then not taken for its negative.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    negative_scores: tuple[float, ...] | None = None
    prompt: str | None = None
    type: str | None = None
    lang: str | None = None
    id: str | None = None
    positive_ids: tuple[str, ...] | None = None
    negative_ids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _require_str("TrainingExample", "query", self.query)
        for name in ("positives", "negatives"):
            for i, text in enumerate(getattr(self, name)):
                _require_str("TrainingExample", f"{name}[{i}]", text)
        if not self.positives:
            raise ValueError("TrainingExample.positives must hold at least one passage")
        for texts, one in (("positives", "positive"), ("negatives", "negative")):
            for kind in ("scores", "ids"):
                given, wanted = getattr(self, f"{one}_{kind}"), len(getattr(self, texts))
                if given is not None and len(given) != wanted:
                    raise ValueError(
                        f"TrainingExample.{one}_{kind} holds {len(given)} {kind} for {wanted} {texts}"
                    )
