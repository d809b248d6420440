"""Weights of BERT, RoBERTa and XLM-R in Hugging Face's names and in ours (q, k, v in one matrix)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trichrome.encoder.config import BackboneConfig
from trichrome.errors import TrichromeError

#: Model types of transformers whose network is trichrome.encoder.model.Backbone.
BERT_FAMILY = {"bert": 0, "roberta": 1, "xlm-roberta": 1, "camembert": 1}

_EMBEDDINGS = {
    "word.weight": "embeddings.word_embeddings.weight",
    "position.weight": "embeddings.position_embeddings.weight",
    "segment.weight": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
_QKV = tuple(f"attention.self.{x}" for x in ("query", "key", "value"))

#: Weights that encoders carry along for other tasks.
_UNUSED = ("pooler.", "lm_head.", "cls.", "classifier.", "embeddings.position_ids")


def backbone_config(hf: Mapping[str, Any], where: str) -> BackboneConfig:
    """From a Hugging Face config.json; a network that ours does not compute is an error."""
    kind, act = hf.get("model_type"), hf.get("hidden_act", "gelu")
    absolute = hf.get("position_embedding_type", "absolute") == "absolute"
    if act != "gelu" or not absolute:
        raise TrichromeError(f"{where}: only GELU and absolute positions are supported for {kind}")
    return BackboneConfig(
        vocab_size=hf["vocab_size"],
        hidden=hf["hidden_size"],
        layers=hf["num_hidden_layers"],
        heads=hf["num_attention_heads"],
        ffn=hf["intermediate_size"],
        positions=hf["max_position_embeddings"],
        first_position=hf.get("pad_token_id", 1) + 1 if BERT_FAMILY[str(kind)] else 0,
        token_types=hf["type_vocab_size"],
        eps=hf["layer_norm_eps"],
        dropout=hf.get("hidden_dropout_prob", 0.1),
    )


def hf_config(config: BackboneConfig, pad: int, bos: int, eos: int) -> dict[str, Any]:
    """A config.json that transformers reads as the same network."""
    kind = "XLMRoberta" if config.first_position else "Bert"
    return {
        "architectures": [f"{kind}Model"],
        "model_type": "xlm-roberta" if config.first_position else "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.token_types,
        "layer_norm_eps": config.eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "hidden_act": "gelu",
        "pad_token_id": pad,
        "bos_token_id": bos,
        "eos_token_id": eos,
    }


def from_hf(state: Mapping[str, Tensor], layers: int, where: str) -> dict[str, Tensor]:
    """Rename Hugging Face weights; a missing or an unexpected one is an error that names it."""
    given = {}
    for name, tensor in state.items():
        for prefix in ("bert.", "roberta.", "model."):
            name = name.removeprefix(prefix)
        given[name] = tensor

    def take(name: str) -> Tensor:
        try:
            return given.pop(name).float()
        except KeyError:
            raise TrichromeError(f"{where}: the weights lack {name}") from None

    made = {ours: take(theirs) for ours, theirs in _EMBEDDINGS.items()}
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("weight", "bias"):
            made[f"layers.{i}.qkv.{part}"] = torch.cat([take(f"{layer}.{x}.{part}") for x in _QKV])
            for ours, theirs in _LAYER.items():
                made[f"layers.{i}.{ours}.{part}"] = take(f"{layer}.{theirs}.{part}")
    unexpected = [name for name in given if not name.startswith(_UNUSED)]
    if unexpected:
        raise TrichromeError(f"{where}: unexpected weights {sorted(unexpected)[:5]}: another architecture?")
    return made


def to_hf(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The inverse of `from_hf`."""
    made = {theirs: state[ours] for ours, theirs in _EMBEDDINGS.items()}
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("weight", "bias"):
            for name, tensor in zip(_QKV, state[f"layers.{i}.qkv.{part}"].chunk(3), strict=True):
                made[f"{layer}.{name}.{part}"] = tensor.contiguous()
            for ours, theirs in _LAYER.items():
                made[f"{layer}.{theirs}.{part}"] = state[f"layers.{i}.{ours}.{part}"]
    return made
