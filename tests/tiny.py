"""A tiny XLM-R with both heads and a small vocabulary: random, but the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from trichrome.encoder import BackboneConfig, Encoder, EncoderConfig
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone

WORDS = ["what", "is", "where", "the", "a", "of", "cat", "dog", "bird", "river", "moon", "light", "sings"]
WORDS += ["over", "under", "green", "old", "small"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?.,!éßяйцукен月光川"

TEXTS = [
    "what is a moon?",
    "the old cat sings over the river",
    "light of the small green bird, under the moon.",
    "a",
    "",
    "zyx zyx zyx 月光川 цукен",
    "the river the river the river over under over under dog dog dog " * 3,
]


def tiny_tokenizer() -> Tokenizer:
    """Unigram with <s> 0, <pad> 1, </s> 2, <unk> 3, as XLM-R has."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *("▁" + w for w in WORDS), *LETTERS]
    scores = [0.0] * 4 + [-2.0] + [-3.0 - 0.1 * i for i in range(len(pieces) - 5)]
    made = Tokenizer(Unigram(list(zip([*pieces, "<mask>"], [*scores, 0.0], strict=True)), unk_id=3))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def tiny_config(**changes: Any) -> EncoderConfig:
    size = tiny_tokenizer().get_vocab_size()
    shape = BackboneConfig(
        vocab_size=size, hidden=32, layers=2, heads=4, ffn=64, positions=66, first_position=2
    )
    settings: dict[str, Any] = {
        "name": "tiny",
        "max_tokens": 64,
        "cls_id": 0,
        "eos_id": 2,
        "pad_id": 1,
        "unscored_ids": (0, 1, 2, 3),
        "multivector_dim": 32,
        "backbone": shape,
    }
    return EncoderConfig(**{**settings, **changes})


def tiny_encoder(**changes: Any) -> Encoder:
    """Weights out of NumPy's frozen RandomState, so that recorded outputs stay valid."""
    config = tiny_config(**changes)
    assert config.backbone is not None
    network = Network(Backbone(config.backbone), Heads(config, 32))
    draw = np.random.RandomState(0)
    for name, weight in sorted(network.named_parameters()):
        values = draw.normal(0, 0.3, tuple(weight.shape)) + ("norm" in name and name.endswith("weight"))
        weight.data.copy_(torch.from_numpy(values.astype(np.float32)))
    return Encoder(network, tiny_tokenizer(), config, device="cpu")
