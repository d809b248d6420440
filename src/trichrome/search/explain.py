"""Why a passage was found: the tokens it shares with the query, and what each query token matched best.

Both come from stored vectors and the two texts, which are only tokenised again, not encoded. Offsets count
characters, so a terminal or a page can highlight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Embedding
from trichrome.errors import TrichromeError

#: Characters [start, end) of a text.
Span: TypeAlias = "tuple[int, int]"


class TokenSpans(Protocol):
    """ids: [T] token ids; spans: [T, 2] character offsets. Row t belongs to row t of the text's multi-vector
    output; the end-of-text token has the empty span (0, 0)."""

    @property
    def ids(self) -> NDArray[Any]: ...
    @property
    def spans(self) -> NDArray[Any]: ...


class Spanner(Protocol):
    """What an explanation uses of an encoder."""

    def token(self, token_id: int, /) -> str: ...

    def token_spans(self, text: str, kind: str, /) -> TokenSpans: ...


@dataclass(frozen=True, slots=True)
class SharedToken:
    """A token of both texts. contribution: query_weight · passage_weight, its part of the sparse score.
    Spans: wherever it stands in each text."""

    id: int
    token: str
    query_weight: float
    passage_weight: float
    contribution: float
    query_spans: tuple[Span, ...]
    passage_spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class WeighedToken:
    """A token of one text. weight: its token's in the sparse output, 0 where that has none of it (or the
    signal is absent)."""

    token: str
    span: Span
    weight: float


@dataclass(frozen=True, slots=True)
class NearToken:
    """A passage token that is like a query token. cosine: of their vectors."""

    token: str
    span: Span
    cosine: float


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A query token and the passage token most like it. cosine: of their vectors; the mean over the query's
    tokens is the multi-vector score. runners_up: the passage tokens next like it, as many as were asked for,
    by falling cosine."""

    query_token: str
    query_span: Span
    passage_token: str
    passage_span: Span
    cosine: float
    runners_up: tuple[NearToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """shared: by falling contribution; matches: in the order of the query's tokens; each is empty where the
    signal is absent. sparse and multivector: the scores that they add up to, None where absent."""

    shared: tuple[SharedToken, ...]
    matches: tuple[TokenMatch, ...]
    sparse: float | None
    multivector: float | None


def explain(
    encoder: Spanner,
    query_text: str,
    query: Embedding,
    passage_text: str,
    passage: Embedding,
    *,
    runners_up: int = 0,
) -> Explanation:
    """The sparse and the multi-vector score of one pair, token by token.

    query_text, passage_text: exactly what was encoded. runners_up: passage tokens given for each query token
    besides the best. Errors: TrichromeError where a text doesn't have as many tokens as its vectors, so it
    is not the text that was encoded.
    """
    q_tokens = _tokens(encoder, query_text, "query", query)
    p_tokens = _tokens(encoder, passage_text, "passage", passage)
    shared = _shared(encoder, q_tokens, query, p_tokens, passage)
    matches = _matches(encoder, q_tokens, query, p_tokens, passage, runners_up)
    return Explanation(
        shared=tuple(shared or ()),
        matches=tuple(matches or ()),
        sparse=None if shared is None else float(sum(token.contribution for token in shared)),
        multivector=None
        if matches is None
        else float(np.mean([match.cosine for match in matches]) if matches else 0.0),
    )


def weigh(encoder: Spanner, text: str, kind: str, embedding: Embedding) -> tuple[WeighedToken, ...]:
    """A text's tokens in order, with their sparse weights; those without characters (the end of the text)
    are left out.

    kind: "query" or "passage". Errors: as `explain`.
    """
    tokens = _tokens(encoder, text, kind, embedding)
    weights: dict[int, float] = {}
    if embedding.token_ids is not None and embedding.token_weights is not None:
        weights = dict(zip(embedding.token_ids.tolist(), embedding.token_weights.tolist(), strict=True))
    return tuple(
        WeighedToken(encoder.token(id), span, weights.get(id, 0.0))
        for id, span in zip(tokens.ids, tokens.spans, strict=True)
        if span[1] > span[0]
    )


@dataclass(frozen=True, slots=True)
class _Tokens:
    """ids: [T] token ids. spans: of each token, without the white space that it may begin with."""

    ids: list[int]
    spans: list[Span]


def _tokens(encoder: Spanner, text: str, kind: str, embedding: Embedding) -> _Tokens:
    found = encoder.token_spans(text, kind)
    tokens = _Tokens([int(i) for i in found.ids], [_trimmed(text, *span) for span in found.spans.tolist()])
    if embedding.multivector is not None and len(tokens.ids) != len(embedding.multivector):
        raise TrichromeError(
            f"this {kind} has {len(tokens.ids)} tokens, but {len(embedding.multivector)} token vectors are "
            f"stored: it is not the text that was encoded ({text[:40]!r}); index it again"
        )
    return tokens


def _shared(
    encoder: Spanner, q_tokens: _Tokens, query: Embedding, p_tokens: _Tokens, passage: Embedding
) -> list[SharedToken] | None:
    if query.token_ids is None or query.token_weights is None:
        return None
    if passage.token_ids is None or passage.token_weights is None:
        return None
    both, q_at, p_at = np.intersect1d(
        query.token_ids, passage.token_ids, assume_unique=True, return_indices=True
    )
    shared = []
    for token_id, i, j in zip(both.tolist(), q_at, p_at, strict=True):
        q_weight, p_weight = float(query.token_weights[i]), float(passage.token_weights[j])
        shared.append(
            SharedToken(
                id=token_id,
                token=encoder.token(token_id),
                query_weight=q_weight,
                passage_weight=p_weight,
                contribution=q_weight * p_weight,
                query_spans=_spans_of(token_id, q_tokens),
                passage_spans=_spans_of(token_id, p_tokens),
            )
        )
    return sorted(shared, key=lambda token: (-token.contribution, token.id))


def _spans_of(token_id: int, tokens: _Tokens) -> tuple[Span, ...]:
    pairs = zip(tokens.ids, tokens.spans, strict=True)
    return tuple(span for id, span in pairs if id == token_id and span[1] > span[0])


def _matches(
    encoder: Spanner,
    q_tokens: _Tokens,
    query: Embedding,
    p_tokens: _Tokens,
    passage: Embedding,
    runners_up: int,
) -> list[TokenMatch] | None:
    if query.multivector is None or passage.multivector is None:
        return None
    if not len(query.multivector) or not len(passage.multivector):
        return []
    products = (
        np.asarray(query.multivector, np.float32) @ np.asarray(passage.multivector, np.float32).T
    )  # [Tq, Tp]
    nearest = np.argsort(-products, axis=1, kind="stable")[:, : 1 + runners_up]  # [Tq, 1 + runners_up]

    def near(i: int, j: int) -> NearToken:
        return NearToken(encoder.token(p_tokens.ids[j]), p_tokens.spans[j], float(products[i, j]))

    matches = []
    for i, (first, *others) in enumerate(nearest.tolist()):
        best = near(i, first)
        rest = tuple(near(i, j) for j in others)
        token = encoder.token(q_tokens.ids[i])
        matches.append(TokenMatch(token, q_tokens.spans[i], best.token, best.span, best.cosine, rest))
    return matches


def _trimmed(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    return start, end
