"""What an encoder is made of: small dataclasses that check their own fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from trichrome.errors import TrichromeError

POOLINGS = ("cls", "mean", "mcls")


@dataclass(frozen=True)
class BackboneConfig:
    """The shape of a BERT-family transformer (BERT, RoBERTa, XLM-R): post-norm, learned positions, GELU."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int
    """rows of the position table"""
    first_position: int
    """the row of the first token: 0 for BERT, pad + 1 for RoBERTa and XLM-R"""
    token_types: int = 1
    eps: float = 1e-5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise TrichromeError(
                f"hidden size {self.hidden} is not a multiple of {self.heads} attention heads"
            )

    @property
    def max_tokens(self) -> int:
        """How many tokens, special ones included, the position table can take."""
        return self.positions - self.first_position


@dataclass(frozen=True)
class EncoderConfig:
    """Everything besides weights and tokenizer that decides what `encode` returns.

    name: for people and manifests. max_tokens: longer texts are cut there, and counted.
    pooling: where dense comes from; `mcls` puts a CLS before every `mcls_every` tokens (M3 section 3.4).
    prompts: text put before a query or passage; its tokens are read by the network but left out of the
    sparse and multi-vector outputs, which speak of the text alone.
    unscored_ids: token ids that never get a sparse weight (CLS, EOS, PAD, UNK).
    architecture: "bert" for trichrome's own network, else the class is left to transformers.
    """

    name: str
    max_tokens: int
    cls_id: int
    eos_id: int
    pad_id: int
    unscored_ids: tuple[int, ...]
    pooling: Literal["cls", "mean", "mcls"] = "cls"
    mcls_every: int = 256
    prompts: Mapping[str, str] = field(default_factory=lambda: {"query": "", "passage": ""})
    sparse: bool = True
    multivector_dim: int | None = None
    architecture: str = "bert"
    backbone: BackboneConfig | None = None

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise TrichromeError(f"unknown pooling {self.pooling!r}; there are {', '.join(POOLINGS)}")
        if set(self.prompts) != {"query", "passage"}:
            raise TrichromeError(f"prompts must name query and passage, got {sorted(self.prompts)}")
        if self.mcls_every < 2:
            raise TrichromeError(f"mcls_every must be at least 2, got {self.mcls_every}")
        if self.backbone and self.max_tokens > self.backbone.max_tokens:
            raise TrichromeError(
                f"max_tokens {self.max_tokens} exceeds the network's {self.backbone.max_tokens} positions; "
                "extend them with trichrome.encoder.positions.extend_positions"
            )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """From `to_json`; unknown fields are an error that names them."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise TrichromeError(f"unknown encoder settings {sorted(unknown)}: written by a newer version?")
        given = dict(values)
        if given.get("backbone"):
            given["backbone"] = BackboneConfig(**given["backbone"])
        given["unscored_ids"] = tuple(given["unscored_ids"])
        return cls(**given)
