"""What a server accepts at most; every number can be set, and each refusal names the one it met."""

from __future__ import annotations

from dataclasses import dataclass, fields

from trichrome.errors import TrichromeError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request and on all that wait together.

    texts: of one request, documents included. tokens: of one request's texts, special tokens and prompts
    included. body_bytes: of one request. requests: answered or waiting at once. queue_tokens: waiting for
    the encoder; a request that finds it empty is always taken. buffered_bytes: of all bodies together.
    body_seconds: within which a body must arrive. hits: of one search. depth: candidates of a search's list.
    """

    texts: int = 2048
    tokens: int = 1 << 18
    body_bytes: int = 16 << 20
    requests: int = 512
    queue_tokens: int = 1 << 19
    buffered_bytes: int = 256 << 20
    body_seconds: int = 60
    hits: int = 1000
    depth: int = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise TrichromeError(f"limit {field.name}: must be a whole number from 1, got {value!r}")
