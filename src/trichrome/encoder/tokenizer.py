"""Text to token ids: special tokens, prompts and MCLS put in place, cuts counted, character spans kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trichrome.encoder.config import EncoderConfig
from trichrome.errors import TrichromeError

#: Texts that are cut into tokens together: an Encoding takes some 100 bytes a token, Tokens a tenth of it.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the network reads it.

    ids: with every special token. scored: which of them speak of the text (its own tokens and EOS) and so
    take part in the multi-vector output. cut: how many of the text's tokens did not fit.
    """

    ids: list[int]
    scored: list[bool]
    cut: int


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """The tokens behind the rows of a text's multi-vector output.

    ids: [T] token ids. spans: [T, 2] character offsets into the text; (0, 0) for EOS.
    """

    ids: NDArray[np.int32]
    spans: NDArray[np.int64]


class TextTokenizer:
    """A `tokenizers.Tokenizer` and the rules of one encoder."""

    def __init__(self, tokenizer: Tokenizer, config: EncoderConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        if tokenizer.truncation is not None:  # another thread may be encoding: touch nothing needlessly
            tokenizer.no_truncation()  # cuts are made here, where they are counted
        if tokenizer.padding is not None:
            tokenizer.no_padding()

    def encode(self, texts: Sequence[str], kind: str) -> list[Tokens]:
        """Token ids of queries or passages, at most `max_tokens` each.

        TrichromeError for passages of a query tower: what it would make of them is in no index's space.
        """
        if kind == "passage" and self.config.queries_of is not None:
            raise TrichromeError(
                f"{self.config.name} encodes queries only; documents are encoded with the model whose "
                f"queries it learnt (fingerprint {self.config.queries_of:.12})"
            )
        prompt = self._prompt(kind)
        made: list[Tokens] = []
        for start in range(0, len(texts), _AT_ONCE):
            encodings = self._encode_batch(texts[start : start + _AT_ONCE], prompt)
            made += [self._build(e.ids, e.offsets, len(prompt))[0] for e in encodings]
        return made

    def spans(self, text: str, kind: str) -> TokenSpans:
        """Which characters each row of the multi-vector output stands for."""
        prompt = len(self._prompt(kind))
        encoding = self._encode_batch([text], self._prompt(kind))[0]
        tokens, places = self._build(encoding.ids, encoding.offsets, prompt)
        ids, spans = [], []
        for i, place, scored in zip(tokens.ids, places, tokens.scored, strict=True):
            if scored:
                start, end = (prompt, prompt) if place is None else encoding.offsets[place]
                ids.append(i)
                spans.append((max(start - prompt, 0), end - prompt))
        return TokenSpans(np.array(ids, np.int32), np.array(spans, np.int64).reshape(-1, 2))

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids alone: no prompt, no special token, no cut (for BM25 with the model's tokenizer)."""
        return [e.ids for e in self._encode_batch(texts)]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character spans of a text's tokens, uncut (for cutting documents into passages)."""
        spans: list[tuple[int, int]] = self._encode_batch([text])[0].offsets
        return spans

    def token(self, token_id: int) -> str:
        """The vocabulary's spelling of a token id."""
        token = self.tokenizer.id_to_token(token_id)
        if token is None:
            raise TrichromeError(f"token id {token_id} is not in the vocabulary")
        return str(token)

    def _prompt(self, kind: str) -> str:
        try:
            return self.config.prompts[kind]
        except KeyError:
            raise TrichromeError(f"kind must be 'query' or 'passage', got {kind!r}") from None

    def _encode_batch(self, texts: Sequence[str], prompt: str = "") -> list[Any]:
        """One tokenizers.Encoding a text; a prompt is read together with the text, as e5 was trained."""
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {i} must be a string, got {type(text).__name__}: {text!r:.60}")
            if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise TrichromeError(f"text {i} holds a lone surrogate: it was not decoded as UTF-8")
        whole = [prompt + t for t in texts]
        if len(whole) == 1:  # a batch of one would wait for the library's threads
            return [self.tokenizer.encode(whole[0], add_special_tokens=False)]
        encodings: list[Any] = self.tokenizer.encode_batch(whole, add_special_tokens=False)
        return encodings

    def _build(
        self, ids: list[int], spans: list[tuple[int, int]], prompt: int
    ) -> tuple[Tokens, list[int | None]]:
        """Put CLS before (before every `mcls_every` tokens under MCLS) and EOS behind, cut what is over.

        prompt: characters of the prompt; tokens that end within it are not scored.
        Also returns, for each place, which of `ids` stands there (None for special tokens).
        """
        c = self.config
        every = c.mcls_every if c.pooling == "mcls" else c.max_tokens
        room = c.max_tokens - 1  # for EOS; n tokens need ceil(n / every) CLS besides
        keep = min(len(ids), room - -(-room // (every + 1)))
        places: list[int | None] = []
        for start in range(0, max(keep, 1), every):  # an empty text needs its CLS too
            places += [None, *range(start, min(start + every, keep))]
        out = [c.cls_id if p is None else ids[p] for p in places] + [c.eos_id]
        scored = [p is not None and spans[p][1] > prompt for p in places] + [True]
        return Tokens(out, scored, len(ids) - keep), [*places, None]
