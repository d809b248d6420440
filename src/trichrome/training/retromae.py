"""RetroMAE (Xiao et al. 2022, arXiv 2205.12035): train the vector of a text by rebuilding the text from it.

    B texts · L tokens (padded) · d hidden · V vocabulary

The encoder reads a text with 30 % of its tokens masked and makes the sentence vector h [d]; masked tokens are
predicted from its last states (the usual loss). A decoder of one layer then predicts every token i of the
text from h, from the position i, and from the half of the other tokens that row i of a random mask lets it
see ("enhanced decoding", eqs. 4-8):

    H1 = [h + p_0, …, h + p_L]            queries
    H2 = [h, e_1 + p_1, …, e_L + p_L]     keys and values; the vector stands in the place of CLS
    A  = softmax(Q K^T / √d + M) V        M_ij = -∞ for j = i and where row i does not see j; j = 0 is seen
    loss = Σ_{masked} CE(encoder) + Σ_{all} CE(decoder | A, H1)      each a mean here

One layer that sees half the text can't do without h, so h comes to hold the text's meaning.
Vector: what the network pools for its dense output (CLS, or a mean). Tokens are masked one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trichrome.encoder.batching import collate
from trichrome.encoder.heads import Batch, Network
from trichrome.encoder.model import Backbone, LinearGelu
from trichrome.encoder.tokenizer import TextTokenizer, Tokens
from trichrome.errors import TrichromeError

#: A label that is not predicted.
_NONE = -100
#: Different masks that are drawn for one text; each row of M takes one of them.
_PATTERNS = 256
#: Logits [rows, V] that one block of a cross-entropy may hold.
_LOGITS = 1 << 26
#: Of the encoder's masked tokens, how many become `<mask>` and how many a random token (Devlin et al. 2019).
_TO_MASK, _TO_RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class RetroMAESettings:
    """encoder_mask, decoder_mask: the shares of a text's tokens that are hidden from either."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}
    encoder_mask: float = 0.3
    decoder_mask: float = 0.5

    def __post_init__(self) -> None:
        for name in ("encoder_mask", "decoder_mask"):
            if not 0 < getattr(self, name) < 1:
                raise TrichromeError(f"retromae.{name} must be between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that masking needs. unmasked: never hidden, never predicted."""

    pad: int
    mask: int
    unmasked: tuple[int, ...]
    vocabulary: int


def special_ids(tokenizer: TextTokenizer) -> SpecialIds:
    """Of an encoder's tokenizer; one without a mask token is an error."""
    found = [tokenizer.tokenizer.token_to_id(name) for name in ("<mask>", "[MASK]")]
    masks = [i for i in found if i is not None]
    if not masks:
        raise TrichromeError(f"{tokenizer.config.name}: its tokenizer has no <mask> or [MASK] to train with")
    shape = tokenizer.config.backbone
    size = tokenizer.tokenizer.get_vocab_size() if shape is None else shape.vocab_size
    if masks[0] >= size:
        raise TrichromeError(
            f"{tokenizer.config.name}: the mask token {masks[0]} has no embedding (of {size})"
        )
    size = min(size, tokenizer.tokenizer.get_vocab_size())
    return SpecialIds(tokenizer.config.pad_id, masks[0], tokenizer.config.unscored_ids, size)


@dataclass(frozen=True)
class MaskedBatch:
    """What one step of RetroMAE reads.

    encoder: the texts with masked tokens. ids [B, L]: as they were. encoder_labels [B, L]: the masked
    tokens' ids, decoder_labels [B, L]: all tokens' ids, -100 elsewhere. visible [B, L, L]: which tokens j
    the decoder sees when it predicts token i.
    """

    encoder: Batch
    ids: Tensor
    encoder_labels: Tensor
    decoder_labels: Tensor
    visible: Tensor

    def to(self, device: torch.device | str) -> MaskedBatch:
        """The same on another device."""
        labels = self.encoder_labels.to(device), self.decoder_labels.to(device)
        return MaskedBatch(self.encoder.to(device), self.ids.to(device), *labels, self.visible.to(device))


def mask_batch(
    tokens: Sequence[Tokens], settings: RetroMAESettings, generator: torch.Generator, special: SpecialIds
) -> MaskedBatch:
    """B texts with random masks; the generator alone decides (on the CPU).

    Of a text's n tokens, prompts and special tokens aside, round(share · n) are hidden, at least one.
    """
    batch = collate(tokens, special.pad)
    b, length = batch.ids.shape
    text = batch.scored & ~torch.isin(batch.ids, torch.tensor(special.unmasked))  # [B, L]
    labels = batch.ids.masked_fill(~text, _NONE)

    hidden = _draw(text, 1, settings.encoder_mask, generator)[:, 0]  # [B, L]
    fate = torch.rand(b, length, generator=generator)
    strange = torch.randint(special.vocabulary, (b, length), generator=generator)
    masked = torch.where(fate < _TO_RANDOM, strange, batch.ids).masked_fill(
        fate >= 1 - _TO_MASK, special.mask
    )
    read = torch.where(hidden, masked, batch.ids)

    patterns = _draw(text, min(length, _PATTERNS), settings.decoder_mask, generator)  # [B, P, L]
    which = torch.randint(patterns.shape[1], (b, length), generator=generator)  # [B, L]
    visible = batch.mask[:, None] & ~patterns[torch.arange(b)[:, None], which]  # [B, L, L]
    visible &= ~torch.eye(length, dtype=torch.bool)
    visible[:, :, 0] = True
    return MaskedBatch(
        Batch(read, batch.mask, batch.scored), batch.ids, labels.masked_fill(~hidden, _NONE), labels, visible
    )


def _draw(text: Tensor, patterns: int, share: float, generator: torch.Generator) -> Tensor:
    """text [B, L]: which places may be hidden → [B, P, L]: P random choices of `share` of them."""
    b, length = text.shape
    noise = torch.rand(b, patterns, length, generator=generator).masked_fill(~text[:, None], 2)
    count = (share * text.sum(1)).round().clamp(min=1)[:, None, None]  # [B, 1, 1]
    place = noise.argsort(-1).argsort(-1)  # the rank of each place; those that may not be hidden come last
    return (place < count) & text[:, None]


class RetroMAE(nn.Module):
    """A network in pre-training, with the decoder and the word predictor that are thrown away afterwards.

    Its parameters are those of `network` (backbone trained, heads untouched), `decoder` and `predict`.
    """

    def __init__(self, network: Network, settings: RetroMAESettings) -> None:
        super().__init__()
        backbone = network.backbone
        if not isinstance(backbone, Backbone):
            raise TrichromeError("retromae trains trichrome's own backbone only (BERT, RoBERTa, XLM-R)")
        self.network = network
        self.settings = settings
        self.decoder = Decoder(backbone)
        self.predict = WordPredictor(backbone)

    def forward(self, batch: MaskedBatch) -> dict[str, Tensor]:
        """The loss of a batch of `mask_batch` and its two terms, means over the predicted tokens: scalars
        encoder, decoder, total."""
        backbone = self.network.backbone
        assert isinstance(backbone, Backbone)
        precision = self.network.autocast
        with torch.autocast(batch.ids.device.type, precision, enabled=precision is not None):
            hidden = backbone(batch.encoder.ids, batch.encoder.mask)  # [B, L, d]
            vector = self.network.heads.pool(hidden, batch.encoder)  # [B, d]
            states = self.decoder(backbone, vector, batch)  # [B, L, d]
            word = backbone.word.weight
            made = {
                "encoder": self.predict.loss(hidden, batch.encoder_labels, word),
                "decoder": self.predict.loss(states, batch.decoder_labels, word),
            }
        return {**made, "total": made["encoder"] + made["decoder"]}


class Decoder(nn.Module):
    """One layer of enhanced decoding: sentence vectors [B, d] → states [B, L, d]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        config = backbone.config
        d = config.hidden
        self.heads, self.p = config.heads, backbone.dropout.p
        self.q, self.kv, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.up, self.down = LinearGelu(d, config.ffn), nn.Linear(config.ffn, d)
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=config.eps), nn.LayerNorm(d, eps=config.eps)
        _start(self)
        self.to(backbone.word.weight.device)

    def forward(self, backbone: Backbone, vector: Tensor, batch: MaskedBatch) -> Tensor:
        b, length = batch.ids.shape
        d = vector.shape[1]
        first = backbone.config.first_position
        where = backbone.position.weight[first : first + length] + backbone.segment.weight[0]  # [L, d]
        h1 = backbone.dropout(backbone.norm(vector[:, None] + where))  # [B, L, d]
        words, _ = backbone.embed(batch.ids, None)  # [B, L, d]
        h2 = torch.cat([vector[:, None].to(words.dtype), words[:, 1:]], 1)

        q = self.q(h1).view(b, length, self.heads, d // self.heads).transpose(1, 2)  # [B, h, L, d/h]
        k, v = self.kv(h2).view(b, length, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        p = self.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=batch.visible[:, None], dropout_p=p)
        a = self.out(mixed.transpose(1, 2).reshape(b, length, d))
        x = self.norm1(h1 + F.dropout(a, self.p, self.training))
        made: Tensor = self.norm2(x + F.dropout(self.down(self.up(x)), self.p, self.training))
        return made


class WordPredictor(nn.Module):
    """States → logits over the vocabulary: Linear, GELU, norm, then the word embeddings and a bias."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        config = backbone.config
        self.dense = LinearGelu(config.hidden, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        _start(self)
        self.to(backbone.word.weight.device)

    def loss(self, states: Tensor, labels: Tensor, word: Tensor) -> Tensor:
        """states [B, L, d], labels [B, L] (-100: not predicted), word [V, d] → the mean cross-entropy.

        Only labelled states are predicted, in blocks that are computed once more for the backward pass, so
        that logits of a whole batch [B·L, V] are never held. 0 where nothing is labelled.
        """
        chosen = labels != _NONE
        x = self.norm(self.dense(states[chosen]))  # [N, d]
        wanted = labels[chosen]  # [N]
        rows = max(1, _LOGITS // len(word))
        total = x.sum() * 0  # so that an empty batch has gradients (of zero), too
        for start in range(0, len(x), rows):
            block = x[start : start + rows], wanted[start : start + rows]
            total = total + checkpoint(_cross_entropy, *block, word, self.bias, use_reentrant=False)
        mean: Tensor = total / max(1, len(x))
        return mean


def _cross_entropy(x: Tensor, wanted: Tensor, word: Tensor, bias: Tensor) -> Tensor:
    """x [N, d], wanted [N] → the sum of the cross-entropies, in float32."""
    logits: Tensor = F.linear(x, word, bias.to(x.dtype)).float()  # [N, V]
    return F.cross_entropy(logits, wanted, reduction="sum")


def _start(module: nn.Module) -> None:
    """As BERT begins: weights from N(0, 0.02), biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
