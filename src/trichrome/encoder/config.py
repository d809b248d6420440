"""What an encoder is made of: small dataclasses that check their own fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from trichrome.errors import TrichromeError

POOLINGS = ("cls", "mean", "mcls")

_IDS = (("cls_id", 0), ("eos_id", 0), ("pad_id", 0))

#: More are taken for a damaged file: they would be laid out for minutes before a weight is found missing.
MOST_LAYERS = 1000


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
        for name in ("vocab_size", "hidden", "layers", "heads", "ffn", "positions", "token_types"):
            value = getattr(self, name)
            most = MOST_LAYERS if name == "layers" else 1 << 31
            if type(value) is not int or not 1 <= value <= most:
                raise TrichromeError(f"{name} must be a whole number from 1 to {most}, got {value!r}")
        if type(self.first_position) is not int or not 0 <= self.first_position < self.positions:
            raise TrichromeError(f"first_position must be one of the positions, got {self.first_position!r}")
        for name in ("eps", "dropout"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < 1:
                raise TrichromeError(f"{name} must be a number from 0 to 1, got {value!r}")
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
    queries_of: of a query tower, the fingerprint of the encoder whose queries it learnt to encode: it
    searches the documents that that one encoded, and encodes none itself.
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
    queries_of: str | None = None

    def __post_init__(self) -> None:
        if self.queries_of is not None and not (isinstance(self.queries_of, str) and self.queries_of):
            raise TrichromeError(f"queries_of must be an encoder's fingerprint, got {self.queries_of!r}")
        if self.pooling not in POOLINGS:
            raise TrichromeError(f"unknown pooling {self.pooling!r}; there are {', '.join(POOLINGS)}")
        if not isinstance(self.prompts, Mapping) or set(self.prompts) != {"query", "passage"}:
            raise TrichromeError(f"prompts must name query and passage, got {list(self.prompts)}")
        for name, values, kind in (
            ("prompts", list(self.prompts.values()), str),
            ("name and architecture", [self.name, self.architecture], str),
            ("unscored_ids", self.unscored_ids, int),
            ("sparse", [self.sparse], bool),
        ):
            if not all(type(value) is kind for value in values):
                raise TrichromeError(f"{name} must be of type {kind.__name__}, got {values!r:.100}")
        if not all(0 <= id < 1 << 31 for id in self.unscored_ids):
            raise TrichromeError(f"unscored_ids must be token ids, got {self.unscored_ids!r:.100}")
        widths = [] if self.multivector_dim is None else [("multivector_dim", 0)]
        for name, least in (("max_tokens", 2), ("mcls_every", 2), *_IDS, *widths):
            value = getattr(self, name)
            most = self.backbone.vocab_size - 1 if self.backbone and (name, least) in _IDS else 1 << 31
            if type(value) is not int or not least <= value <= most:
                raise TrichromeError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
        if self.backbone and self.max_tokens > self.backbone.max_tokens:
            raise TrichromeError(
                f"max_tokens {self.max_tokens} exceeds the network's {self.backbone.max_tokens} positions; "
                "extend them with trichrome.encoder.positions.extend_positions"
            )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; queries_of only where there is one, as files and fingerprints had none."""
        values = asdict(self)
        if self.queries_of is None:
            del values["queries_of"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """From `to_json`. TrichromeError: unknown, missing or wrong fields."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise TrichromeError(f"unknown encoder settings {sorted(unknown)}: written by a newer version?")
        given = dict(values)
        try:
            if given.get("backbone") is not None:
                given["backbone"] = BackboneConfig(**given["backbone"])
            given["unscored_ids"] = tuple(given["unscored_ids"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise TrichromeError(f"encoder settings are missing or of another kind ({error})") from None
