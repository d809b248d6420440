"""Requests and answers of the endpoints over indexes."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, JsonValue

from trichrome.serving.schemas import Answer, ModeName, Request, Weights

_DEEPEST = 16


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that every store can hold; looked at without recursion, which deep nesting would exhaust."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
            elif isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise ValueError("a whole number does not fit in 64 bits; use a string")
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number is not finite; use null")
        level = deeper
    if level:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    return value


Object: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]


class DocumentIn(Request):
    """title: encoded before the text. lang: a language tag. metadata: what filters can use; the names text,
    title, lang, document, start and end are taken."""

    id: Id
    text: str = Field(pattern=r"\S")
    title: str = ""
    lang: str | None = None
    metadata: Object = Field(default_factory=dict)


class DocumentsRequest(Request):
    documents: Annotated[list[DocumentIn], Field(min_length=1)]


class DocumentsAnswer(Answer):
    """Durable. Numbers of passages; cut: documents that became several. tokens: encoded."""

    added: int
    updated: int
    unchanged: int
    deleted: int
    cut: int
    tokens: int


class Passage(Answer):
    """metadata: as it was given, and where the passage was cut from: document, start, end (characters)."""

    id: str
    text: str
    title: str
    lang: str | None
    metadata: dict[str, JsonValue]


class DocumentAnswer(Answer):
    """A document's stored passages in order: one, unless it was longer than a passage."""

    id: str
    passages: list[Passage]


class DeleteRequest(Request):
    ids: Annotated[list[Id], Field(min_length=1)]


class DeletedAnswer(Answer):
    """deleted: passages; durable."""

    deleted: int


class SearchRequest(Request):
    """filter: metadata (or lang, title …) to a value, a list of values, or a range {"gte": 2020}; all must
    hold. depth: candidates of each first-stage list. preset: the paper's weights for passages or for long
    documents. explain: which tokens made the scores, for at most 100 hits. runners_up: what an explanation
    tells of each query token besides the passage token most like it."""

    query: str = Field(pattern=r"\S")
    mode: ModeName = "all"
    k: int = Field(10, ge=1)
    filter: Object | None = None
    weights: Weights | None = None
    depth: int | None = Field(None, ge=1)
    fusion: Literal["weighted", "rrf"] = "weighted"
    preset: Literal["m3", "long"] = "m3"
    candidates: Literal["dense", "sparse", "union"] | None = None
    explain: bool = False
    runners_up: int = Field(0, ge=0, le=16)
    truncate: bool = Field(False, description="Cut a query that is too long; else it is refused.")


Span: TypeAlias = Annotated[list[int], Field(min_length=2, max_length=2)]


class SharedToken(Answer):
    id: int
    token: str
    query_weight: float
    passage_weight: float
    contribution: float
    query_spans: list[Span]
    passage_spans: list[Span]


class NearToken(Answer):
    token: str
    span: Span
    cosine: float


class TokenMatch(Answer):
    query_token: str
    query_span: Span
    passage_token: str
    passage_span: Span
    cosine: float
    runners_up: list[NearToken]


class WeighedToken(Answer):
    token: str
    span: Span
    weight: float


class Explanation(Answer):
    """shared: tokens of both texts, and what each adds to the sparse score. matches: of each query token the
    passage token most like it. Spans are [start, end) characters of the query and of `content`."""

    content: str
    shared: list[SharedToken]
    matches: list[TokenMatch]
    sparse: float | None
    multivector: float | None


class Hit(Passage):
    """score: what it is ranked by; the three others whatever the mode, null where there is no such output."""

    score: float
    dense: float | None
    sparse: float | None
    multivector: float | None
    explanation: Explanation | None = None


class SearchAnswer(Answer):
    """tokens: of the query; truncated: whether it was cut. query: its tokens and their sparse weights, where
    an explanation is asked for. Spans are [start, end) characters."""

    index: str
    mode: str
    hits: list[Hit]
    tokens: int
    truncated: bool
    query: list[WeighedToken] | None = None


class IndexRequest(Request):
    """kind: of store, in a folder; exact is for few documents. passage_tokens: of a passage that longer
    documents are cut into, as many as the model reads by default; overlap: tokens that the next repeats."""

    kind: Literal["embedded", "exact"] = "embedded"
    passage_tokens: Annotated[int | None, Field(ge=1)] = None
    overlap: Annotated[int | None, Field(ge=0)] = None


class IndexAnswer(Answer):
    """signals: the outputs that can be searched by. documents: passages stored."""

    name: str
    kind: str
    model: str
    documents: int
    signals: list[str]
    dense_dim: int | None
    multivector_dim: int | None


class ValueCount(Answer):
    """count: of passages."""

    value: str
    count: int


class ValuesAnswer(Answer):
    """The values of one field, the most frequent first. read: passages looked at; complete: whether these
    are all that the index has."""

    field: str
    values: list[ValueCount]
    read: int
    complete: bool


class IndexesAnswer(Answer):
    indexes: list[IndexAnswer]
