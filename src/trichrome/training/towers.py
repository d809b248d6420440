"""Query towers: small encoders that give, for a query, what a large one gives.

    N queries · L tokens · d width of an output

Documents are encoded once, queries all the time. So a large encoder may make the index, and a small one ask
it: all that it has to learn is the large one's outputs for queries, from the queries' texts alone. No
passage, no label and no negative is needed, and the index stays as it is. (ScalingNote, arXiv 2411.15766,
its second stage.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from trichrome.embeddings import SIGNALS
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.tokenizer import Tokens
from trichrome.errors import TrichromeError
from trichrome.training.encoded import Encoded
from trichrome.training.losses.embedding import embedding_match, weight_match

Signal = Literal["dense", "sparse", "multivector"]


@dataclass(frozen=True)
class TowerSettings:
    """teacher: the encoder whose queries are learnt, and whose indexes the tower searches afterwards; the
    recipe's model where None. layers: how many of the model's layers the tower keeps; all where None.
    outputs: which are learnt, all that both have where None; the tower has no others. mse, cosine: weights of
    the two terms of `losses.embedding_match`.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}
    teacher: str | None = None
    layers: int | None = None
    outputs: tuple[Signal, ...] | None = None
    mse: float = 1.0
    cosine: float = 1.0

    def __post_init__(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise TrichromeError(f"tower.layers must be > 0, got {self.layers}")
        if self.outputs is not None and "dense" not in self.outputs:
            raise TrichromeError(
                f"tower.outputs must name dense, by which documents are found: {self.outputs}"
            )
        if min(self.mse, self.cosine) < 0 or not self.mse + self.cosine > 0:
            raise TrichromeError(
                f"tower.mse and tower.cosine are weights ≥ 0, not both 0: {self.mse}, {self.cosine}"
            )


def shortened(encoder: Encoder, layers: int | None = None, outputs: Sequence[str] | None = None) -> Encoder:
    """The encoder with some of its layers, evenly spread from the first to the last, and some of its outputs.

    layers, outputs: all where None. It shares its weights with the encoder: train one of them only. Before
    it has learnt anything, its outputs are of little use. TrichromeError: more layers than there are; a
    network other than BERT, RoBERTa and XLM-R; an output that the encoder lacks.
    """
    network, config = encoder.network, encoder.config
    backbone: nn.Module = network.backbone
    if layers is not None:
        if not isinstance(backbone, Backbone):
            raise TrichromeError(f"{encoder.name}: layers can be left out of BERT-family encoders only")
        backbone = _with_layers(backbone, spread_out(len(backbone.layers), layers, encoder.name))
        config = replace(config, backbone=backbone.config)
    if outputs is not None:
        if missing := [name for name in outputs if name not in encoder.signals]:
            raise TrichromeError(f"{encoder.name} has no output {missing[0]!r}, only {encoder.signals}")
        width = config.multivector_dim if "multivector" in outputs else None
        config = replace(config, sparse=config.sparse and "sparse" in outputs, multivector_dim=width)
    with torch.device("meta"):
        heads = Heads(config, encoder.dense_dim)
    heads.sparse = network.heads.sparse if config.sparse else None
    heads.multivector = network.heads.multivector if config.multivector_dim else None
    heads.unscored = network.heads.unscored
    made = Network(backbone, heads)
    made.autocast = network.autocast
    return Encoder(made, encoder.tokenizer.tokenizer, config, str(encoder.device))


def spread_out(of: int, count: int, name: str = "the encoder") -> list[int]:
    """`count` of the numbers 0 … of − 1, evenly spread, the first and the last among them (the first alone,
    if it is one)."""
    if not 1 <= count <= of:
        raise TrichromeError(f"{name} has {of} layers; {count} of them can't be kept")
    return [round(i * (of - 1) / max(1, count - 1)) for i in range(count)]


def _with_layers(backbone: Backbone, kept: Sequence[int]) -> Backbone:
    with torch.device("meta"):
        made = Backbone(replace(backbone.config, layers=len(kept)))
    for name, part in backbone.named_children():
        if name != "layers":
            setattr(made, name, part)
    made.layers = nn.ModuleList(backbone.layers[i] for i in kept)
    return made


def pupil(encoder: Encoder, teacher: Encoder, settings: TowerSettings) -> Encoder:
    """What is trained to give the teacher's queries, made of an encoder, with which it shares its weights.

    TrichromeError: outputs of different widths; an output that one of them lacks.
    """
    wanted = settings.outputs
    if wanted is None:
        wanted = tuple(s for s in SIGNALS if s in encoder.signals and s in teacher.signals)  # type: ignore[misc]
    if missing := [name for name in wanted if name not in teacher.signals]:
        raise TrichromeError(f"the teacher {teacher.name} has no output {missing[0]!r}: see tower.outputs")
    made = shortened(encoder, settings.layers, wanted)
    widths = [(e.dense_dim, e.config.multivector_dim or 0) for e in (made, teacher)]
    for output, mine, theirs in zip(("dense", "multivector"), *widths, strict=True):
        if output in wanted and mine != theirs:
            raise TrichromeError(
                f"{made.name}'s {output} output is {mine} wide, that of the teacher {teacher.name} {theirs}: "
                "start from a model of the teacher's width"
            )
    return made


def finished(trained: Encoder, teacher: Encoder) -> Encoder:
    """The trained pupil as a query tower: it encodes queries alone, and searches the teacher's indexes."""
    config = replace(trained.config, name=f"{teacher.name}-queries", queries_of=teacher.fingerprint)
    return Encoder(trained.network, trained.tokenizer.tokenizer, config, str(trained.device))


def same_tokens(mine: Sequence[Tokens], theirs: Sequence[Tokens], outputs: Sequence[str]) -> None:
    """TrichromeError where a pupil and its teacher read a query as different tokens, and the pupil has
    outputs of tokens, which could then not be compared."""
    if tuple(outputs) != ("dense",) and any(a.ids != b.ids for a, b in zip(mine, theirs, strict=True)):
        raise TrichromeError(
            "the model and tower.teacher read queries as different tokens, so that only the dense output can "
            "be learnt: set tower.outputs: [dense]"
        )


def match(made: Encoded, wanted: Encoded, settings: TowerSettings) -> dict[str, Tensor]:
    """The losses of N queries by output, and their sum as `total`; each is a mean over the queries, so that
    those of parts of a batch, weighted by their numbers of queries, add up to the batch's.

    made, wanted: the pupil's and the teacher's outputs; those that the pupil has are learnt.
    """
    near = partial(embedding_match, mse=settings.mse, cosine=settings.cosine)
    losses: dict[str, Tensor] = {}
    if made.dense is not None and wanted.dense is not None:
        losses["dense"] = near(made.dense, wanted.dense)
    if made.sparse_weights is not None and wanted.sparse_weights is not None:
        losses["sparse"] = weight_match(made.sparse_weights, wanted.sparse_weights, made.vector_mask)
    if made.vectors is not None and wanted.vectors is not None:
        losses["multivector"] = near(made.vectors, wanted.vectors, made.vector_mask)
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses
