"""What a stage starts from, an encoder with the chosen weights trainable; what it leaves, a model folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from trichrome.encoder.checkpoints import load
from trichrome.encoder.checkpoints import save as save_encoder
from trichrome.encoder.deltas import apply_deltas
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone, Layer
from trichrome.encoder.positions import extend_positions
from trichrome.errors import TrichromeError
from trichrome.storage import atomic_write
from trichrome.training.lowrank import add_lowrank, save_deltas
from trichrome.training.recipe import Recipe

#: What a run leaves in its output folder.
MODEL, DELTAS, HEADS = "model", "deltas.safetensors", "heads.safetensors"


def prepare(recipe: Recipe, device: str, train_heads: Sequence[str]) -> Encoder:
    """The encoder that the recipe starts from, in training mode, with gradients where it trains.

    train_heads: of sparse and multivector, those that learn; others are frozen.
    """
    encoder = load(recipe.model, new_heads=recipe.new_heads, device=device, dtype="float32")
    network = encoder.network
    if recipe.positions is not None:
        encoder = with_positions(encoder, recipe.positions)
    if recipe.dropout is not None:
        set_dropout(network, recipe.dropout)
    if recipe.precision == "bfloat16":
        network.autocast = torch.bfloat16
    backbone = network.backbone
    if recipe.train == "lowrank":
        add_lowrank(network, recipe.lowrank)
    else:
        backbone.requires_grad_(recipe.train == "all")
        if recipe.freeze_embeddings:
            freeze_embeddings(backbone)
    if recipe.precision == "bfloat16":
        halve_frozen(backbone)
    for name, head in network.heads.named_children():
        head.requires_grad_(name in train_heads)
    if not any(p.requires_grad for p in network.parameters()):
        raise TrichromeError("nothing to train: this stage trains no head, and the recipe no other weights")
    network.train()
    return encoder


def with_positions(encoder: Encoder, tokens: int) -> Encoder:
    """The same encoder, reading up to `tokens` tokens; the new positions repeat the old until trained."""
    backbone = encoder.network.backbone
    if not isinstance(backbone, Backbone):
        raise TrichromeError(f"{encoder.name}: positions can be extended in BERT-family encoders only")
    if tokens <= encoder.config.max_tokens:
        return encoder
    shape = backbone.config
    if tokens > shape.max_tokens:
        shape = extend_positions(backbone, tokens)
    config = replace(encoder.config, max_tokens=tokens, backbone=shape)
    return Encoder(encoder.network, encoder.tokenizer.tokenizer, config, str(encoder.device))


def halve_frozen(backbone: nn.Module) -> None:
    """Keep weights that are not trained in bfloat16, as autocast would make them at every product."""
    for module in backbone.modules():
        if hasattr(module, "cast_input_dtype_enabled"):  # peft's layers: autocast chooses, not they
            setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010  # a plain attribute to mypy
    for parameter in backbone.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)


def set_dropout(network: Network, p: float) -> None:
    """Of the whole backbone."""
    for module in network.backbone.modules():
        if isinstance(module, nn.Dropout | Layer):
            module.p = p


def freeze_embeddings(backbone: nn.Module) -> None:
    """Most of a multilingual encoder's weights are words, most of which no training text holds."""
    for module in backbone.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)


def finish(
    encoder: Encoder, recipe: Recipe, shape: Callable[[Encoder], Encoder] | None = None
) -> tuple[Path, Encoder]:
    """Write OUTPUT/model (own layout), heads.safetensors and, of a low-rank run, deltas.safetensors.

    Returns the model's folder and the trained encoder, in float32. What a low-rank or heads run left frozen
    is taken from where the run began, so it is there to the last digit. An earlier result is replaced.
    shape: what becomes of the encoder before it is saved.
    """
    network = encoder.network.eval()
    heads = {k: v.detach().cpu().contiguous() for k, v in network.heads.state_dict().items()}
    with atomic_write(recipe.output / HEADS) as file:
        file.write(save(heads))
    if recipe.train == "all":
        network.autocast = None
        network.float().requires_grad_(True)
        made = Encoder(network, encoder.tokenizer.tokenizer, encoder.config, "cpu")
    else:
        made = load(recipe.model, new_heads=recipe.new_heads, device="cpu", dtype="float32")
        if recipe.positions is not None:
            made = with_positions(made, recipe.positions)
        if recipe.train == "lowrank":
            save_deltas(network, recipe.output / DELTAS)
            apply_deltas(made.network.backbone, recipe.output / DELTAS)
        made.network.heads.load_state_dict(heads)
        made = Encoder(made.network, made.tokenizer.tokenizer, made.config, "cpu")
    if shape is not None:
        made = shape(made)
    path = recipe.output / MODEL
    if path.exists():
        shutil.rmtree(path)
    save_encoder(made, path)
    return path, made
