"""What a server uses of an encoder; trichrome's own has it, and another engine can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trichrome.embeddings import Embeddings
from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.tokenizer import TextTokenizer, Tokens
from trichrome.search.searcher import QueryEncoder


class ServedEncoder(QueryEncoder, Protocol):
    """tokenizer.encode is called from several threads, encode_tokens from one at a time."""

    config: EncoderConfig
    tokenizer: TextTokenizer

    @property
    def dense_dim(self) -> int: ...

    def encode_tokens(self, tokens: Sequence[Tokens], outputs: Sequence[str], /) -> Embeddings:
        """The chosen outputs of texts that are tokenised already, in one forward pass."""
