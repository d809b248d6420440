"""FlagEmbedding's layout, as BAAI/bge-m3 has it, with what sentence-transformers wants beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from trichrome.encoder import hf_names
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.transformers_backbone import TransformersBackbone
from trichrome.errors import TrichromeError
from trichrome.storage import write_json

WEIGHTS, VOCABULARY = "model.safetensors", "tokenizer.json"
SPARSE_HEAD, MULTIVECTOR_HEAD = "sparse_linear.pt", "colbert_linear.pt"


def save_flagembedding(encoder: Encoder, folder: Path) -> None:
    """Write an encoder into a folder. TrichromeError: the layout has no room for it."""
    c = encoder.config
    heads = encoder.network.heads
    if heads.sparse is None or heads.multivector is None:
        raise TrichromeError("the FlagEmbedding layout needs both a sparse and a multi-vector head")
    if c.pooling == "mcls":
        raise TrichromeError("the FlagEmbedding layout has no MCLS pooling; save with pooling cls or mean")
    backbone = encoder.network.backbone
    if isinstance(backbone, TransformersBackbone):
        backbone.model.save_pretrained(folder)
    else:
        assert c.backbone is not None  # EncoderConfig of our own network always has it
        state = {k: v.detach().cpu() for k, v in backbone.state_dict().items()}
        weights = {k: v.contiguous() for k, v in hf_names.to_hf(state, c.backbone.layers).items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        write_json(folder / "config.json", hf_names.hf_config(c.backbone, c.pad_id, c.cls_id, c.eos_id))
    torch.save({k: v.detach().cpu() for k, v in heads.sparse.state_dict().items()}, folder / SPARSE_HEAD)
    torch.save(
        {k: v.detach().cpu() for k, v in heads.multivector.state_dict().items()}, folder / MULTIVECTOR_HEAD
    )
    _save_tokenizer(encoder, folder)
    _save_sentence_transformers(encoder, folder)


def _save_tokenizer(encoder: Encoder, folder: Path) -> None:
    """tokenizer.json and what transformers wants to know beside it."""
    c, tokenizer = encoder.config, encoder.tokenizer.tokenizer
    tokenizer.save(str(folder / VOCABULARY))
    special = {"cls_token": c.cls_id, "bos_token": c.cls_id, "sep_token": c.eos_id, "eos_token": c.eos_id,
               "pad_token": c.pad_id}  # fmt: skip
    names = {k: encoder.token(v) for k, v in special.items()}
    others = [i for i in c.unscored_ids if i not in (c.cls_id, c.eos_id, c.pad_id)]
    if others:
        names["unk_token"] = encoder.token(others[0])
    for mask in ("<mask>", "[MASK]"):
        if tokenizer.token_to_id(mask) is not None:
            names["mask_token"] = mask
    limits = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": c.max_tokens}
    write_json(folder / "tokenizer_config.json", {**limits, **names})
    write_json(folder / "special_tokens_map.json", names)


def _save_sentence_transformers(encoder: Encoder, folder: Path) -> None:
    """The dense output as sentence-transformers computes it: transformer, pooling, normalise."""
    c = encoder.config
    package = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": p, "type": package + t} for i, (p, t) in enumerate(modules)],
    )
    pooling = {
        "word_embedding_dimension": encoder.dense_dim,
        "pooling_mode_cls_token": c.pooling == "cls",
        "pooling_mode_mean_tokens": c.pooling == "mean",
    }
    write_json(folder / "1_Pooling" / "config.json", pooling)
    (folder / "2_Normalize").mkdir()
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": c.max_tokens, "do_lower_case": False})
    prompts = {"prompts": {**c.prompts, "document": c.prompts["passage"]}, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", prompts)
