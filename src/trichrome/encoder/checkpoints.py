"""Encoders on disk.

Four layouts are read:
    trichrome       trichrome.json (settings), model.safetensors, tokenizer.json
    flagembedding   a Hugging Face folder with sparse_linear.pt and colbert_linear.pt, as BAAI/bge-m3 has
    huggingface     any other encoder folder; its heads are made new, and only if the caller says so
    onnx            what `trichrome export` wrote (see `onnx_backend`)
`save` writes the first two, the second with the files that sentence-transformers wants beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from trichrome.encoder import hf_names, small
from trichrome.encoder.config import BackboneConfig, EncoderConfig
from trichrome.encoder.encoder import Encoder
from trichrome.encoder.flagembedding import (
    MULTIVECTOR_HEAD,
    SPARSE_HEAD,
    VOCABULARY,
    WEIGHTS,
    save_flagembedding,
)
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone
from trichrome.encoder.onnx_backend import DATA, DESCRIPTION, GRAPH, OnnxBackend
from trichrome.encoder.reading import check_tokenizer, placed, read_object, read_tensors, read_tokenizer
from trichrome.encoder.transformers_backbone import TransformersBackbone
from trichrome.errors import TrichromeError
from trichrome.storage import atomic_folder, write_json

SETTINGS = "trichrome.json"
FORMAT = 1

#: What a hub download is limited to.
_HUB_FILES = ("*.json", "*.safetensors", "*.pt", "*.bin", "*.model", "*.txt", "1_Pooling/*")


@dataclass(frozen=True)
class NewHeads:
    """Heads to make for an encoder that has none. seed: of their random weights."""

    sparse: bool = True
    multivector_dim: int | None = 128
    seed: int = 0


def load(
    model: str | Path = "small",
    *,
    new_heads: NewHeads | None = None,
    pooling: str | None = None,
    prompts: Mapping[str, str] | None = None,
    max_tokens: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    backend: str | None = None,
) -> Encoder:
    """Open an encoder: "small" (built in), a folder, or a hub id such as "BAAI/bge-m3".

    "small-base" is what `small` was trained from, without heads.

    new_heads: for a folder without heads; without it such a folder is an error. pooling, prompts
    ({"query": …, "passage": …}) and max_tokens override what the folder says.
    backend: torch, or onnx: onnxruntime on the CPU, in dtype float32 or int8 (which torch has not). By
    default onnx for a folder of `trichrome export` and for int8, torch else. For onnx other models are
    exported first, once, to trichrome's cache.
    """
    if backend not in (None, "torch", "onnx"):
        raise TrichromeError(f"unknown backend {backend!r}; there are torch, onnx")
    changes = {"pooling": pooling, "prompts": prompts, "max_tokens": max_tokens}
    exported = is_exported(model)
    if exported and (backend == "torch" or new_heads is not None):
        raise TrichromeError(f"{model}: an exported graph; load the model that it was made from instead")
    if exported:
        return _load_exported(Path(model).expanduser(), changes, device, dtype)
    if backend == "onnx" or (dtype == "int8" and backend is None):
        from trichrome.encoder.export import cached_export

        source = load(model, new_heads=new_heads, pooling=pooling, prompts=prompts, max_tokens=max_tokens,
                      device="cpu")  # fmt: skip
        return _load_exported(cached_export(source, dtype or "float32"), {}, device, dtype)
    if str(model) == small.NAME:
        network, tokenizer, config = small.parts()
    elif str(model) == small.BASE:
        if new_heads is None:
            raise TrichromeError(
                f"{small.BASE} has no heads; pass new_heads=NewHeads(...) to make untrained ones for training"
            )
        wanted = new_heads.sparse, new_heads.multivector_dim, new_heads.seed
        network, tokenizer, config = small.base_parts(*wanted)
    else:
        folder = _folder(str(model))
        if (folder / SETTINGS).exists():
            network, tokenizer, config = _load_trichrome(folder)
        else:
            network, tokenizer, config = _load_hugging_face(folder, str(model), new_heads, pooling)
    config = _changed(config, changes)
    network.heads.pooling = config.pooling
    return Encoder(network, tokenizer, config, device).to(dtype=dtype)


def is_exported(model: str | Path) -> bool:
    """Whether this is a folder that `trichrome export` wrote."""
    return (Path(model).expanduser() / DESCRIPTION).is_file()


def save(encoder: Encoder, path: str | Path, layout: str = "trichrome") -> None:
    """Write a folder in the layout "trichrome" or "flagembedding"; it appears whole or not at all."""
    writers = {"trichrome": _save_trichrome, "flagembedding": save_flagembedding}
    if layout not in writers:
        raise TrichromeError(f"unknown layout {layout!r}; there are {', '.join(writers)}")
    if encoder.queries_of is not None and layout != "trichrome":
        raise TrichromeError(
            f"{encoder.name} is a query tower, and the layout {layout} can't say whose indexes it searches; "
            "write the layout trichrome"
        )
    with atomic_folder(path) as folder:
        writers[layout](encoder, folder)


# reading


def _folder(model: str) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise TrichromeError(f"{model}: no such model folder (and not 'small' or a hub id like BAAI/bge-m3)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TrichromeError(f"{model}: no such folder, and the hub could not be read: {error}") from None


def _load_trichrome(folder: Path) -> tuple[Network, Tokenizer, EncoderConfig]:
    config = _settings(folder, WEIGHTS, VOCABULARY)
    if config.backbone is not None:
        backbone: nn.Module = _empty_backbone(config.backbone)
        hidden = config.backbone.hidden
    else:
        from transformers import AutoConfig, AutoModel

        with _by_transformers(folder), torch.device("meta"):
            wrapped = TransformersBackbone(AutoModel.from_config(AutoConfig.from_pretrained(folder)))
        backbone, hidden = wrapped.to_empty(device="cpu"), wrapped.config.hidden
        _fill_buffers(wrapped, folder)
    state, width = read_tensors(folder / WEIGHTS), config.multivector_dim
    head = state.get("heads.multivector.weight")
    if width and head is not None and list(head.shape) != [width, hidden]:  # before it is laid out
        raise TrichromeError(
            f"{folder / WEIGHTS}: heads.multivector.weight is {list(head.shape)}, expected {[width, hidden]}"
        )
    if width and head is None:
        raise TrichromeError(f"{folder / WEIGHTS}: heads.multivector.weight is missing")
    network = Network(backbone, Heads(config, hidden))
    _assign(network, state, folder / WEIGHTS)
    return network, read_tokenizer(folder / VOCABULARY, _rows(config)), config


def _rows(config: EncoderConfig) -> int | None:
    """How many words the network knows, where the settings say so."""
    return config.backbone.vocab_size if config.backbone else None


def _settings(folder: Path, *needed: str) -> EncoderConfig:
    """What trichrome.json says; files that are needed beside it must be there."""
    settings = read_object(folder / SETTINGS)
    if settings.pop("format", None) != FORMAT:
        raise TrichromeError(f"{folder / SETTINGS}: another format version; this trichrome reads {FORMAT}")
    for name in needed:
        if not (folder / name).exists():
            raise TrichromeError(f"{folder / name} is missing")
    with placed(folder / SETTINGS):
        return EncoderConfig.from_json(settings)


def _changed(config: EncoderConfig, changes: Mapping[str, Any]) -> EncoderConfig:
    """The config with those of the changes that are not None."""
    given = {k: v for k, v in changes.items() if v is not None}
    return EncoderConfig.from_json({**config.to_json(), **given}) if given else config


def _load_exported(
    folder: Path, changes: Mapping[str, Any], device: str | None, dtype: str | None
) -> Encoder:
    """An encoder on a graph. With changes its fingerprint is not the one that torch has with the same."""
    config = _settings(folder, GRAPH, DATA, VOCABULARY)
    wanted = _changed(config, changes)
    backend = OnnxBackend(folder, wanted)
    fingerprint = backend.exported.fingerprint
    if wanted != config:
        described = json.dumps([fingerprint, wanted.to_json()], sort_keys=True)
        fingerprint = hashlib.sha256(described.encode()).hexdigest()
    tokenizer = read_tokenizer(folder / VOCABULARY, _rows(config))
    return Encoder(backend, tokenizer, wanted, device or "cpu", fingerprint).to(dtype=dtype)


def _load_hugging_face(
    folder: Path, name: str, new_heads: NewHeads | None, pooling: str | None
) -> tuple[Network, Tokenizer, EncoderConfig]:
    from transformers import AutoModel, AutoTokenizer  # a second to import, and only needed here

    hf = read_object(folder / "config.json")
    has = {f: (folder / f).exists() for f in (SPARSE_HEAD, MULTIVECTOR_HEAD)}
    if not all(has.values()) and new_heads is None:
        lacking = " and ".join(f for f, there in has.items() if not there)
        raise TrichromeError(
            f"{folder}: {lacking} missing, so this encoder has no trained heads; "
            "pass new_heads=NewHeads(...) to make untrained ones for training"
        )
    kind = hf.get("model_type")
    state = _read_weights(folder)
    backbone: nn.Module
    shape: BackboneConfig | None = None
    if isinstance(kind, str) and kind in hf_names.BERT_FAMILY:
        with placed(folder / "config.json"):
            shape = hf_names.backbone_config(hf, str(folder))
        backbone = _empty_backbone(shape)
        with placed(folder):
            renamed = hf_names.from_hf(state, shape.layers, str(folder))
        _assign(backbone, renamed, folder)
        hidden, positions = shape.hidden, shape.max_tokens
    else:
        with _by_transformers(folder):
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        backbone = TransformersBackbone(model)
        hidden, positions = backbone.config.hidden, backbone.config.max_tokens

    heads: dict[str, Tensor] = {}
    if new_heads is None:
        for head, file in (("sparse", SPARSE_HEAD), ("multivector", MULTIVECTOR_HEAD)):
            heads |= {f"{head}.{k}": v for k, v in _read_head(folder / file, hidden).items()}
        multivector_dim: int | None = heads["multivector.weight"].shape[0]
    else:
        multivector_dim = new_heads.multivector_dim

    try:
        theirs = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds
        raise TrichromeError(f"{folder}: its tokenizer cannot be opened: {error}".splitlines()[0]) from None
    check_tokenizer(theirs.backend_tokenizer, folder, shape.vocab_size if shape else None)
    cls_id = theirs.cls_token_id if theirs.cls_token_id is not None else theirs.bos_token_id
    eos_id = theirs.sep_token_id if theirs.sep_token_id is not None else theirs.eos_token_id
    unscored = {cls_id, eos_id, theirs.pad_token_id, theirs.unk_token_id} - {None}
    with placed(folder):
        config = EncoderConfig(
            name=name,
            max_tokens=positions,
            cls_id=cls_id,
            eos_id=eos_id,
            pad_id=theirs.pad_token_id,
            unscored_ids=tuple(sorted(unscored)),
            pooling=pooling or _pooling(folder),  # type: ignore[arg-type]
            prompts=_prompts(folder),
            sparse=new_heads is None or new_heads.sparse,
            multivector_dim=multivector_dim,
            architecture="bert" if shape else str(kind),
            backbone=shape,
        )
    with torch.random.fork_rng():
        torch.manual_seed(new_heads.seed if new_heads else 0)
        made = Heads(config, hidden)
    if heads:
        _assign(made, heads, folder)
    return Network(backbone, made), theirs.backend_tokenizer, config


def _empty_backbone(config: BackboneConfig) -> Backbone:
    """Without storage: every weight is assigned from a file, none is drawn at random."""
    with torch.device("meta"):
        try:
            return Backbone(config)
        except RuntimeError as error:  # sizes whose product is no size any more
            raise TrichromeError(f"the settings describe no network that could be ({error})") from None


@contextmanager
def _by_transformers(folder: Path) -> Iterator[None]:
    """What transformers says of a model that it cannot build, as one line that names the file."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # configurations of all kinds raise all kinds
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrichromeError(
            f"{folder / 'config.json'}: transformers cannot build this model: {said}"
        ) from None


def _fill_buffers(backbone: TransformersBackbone, folder: Path) -> None:
    """Give a model that was laid out empty the buffers that are computed, not stored (rotary tables)."""
    from transformers import AutoConfig, AutoModel

    fresh = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    for (_, into), (_, value) in zip(backbone.model.named_buffers(), fresh.named_buffers(), strict=True):
        into.copy_(value)


def _assign(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Load strictly; what is missing, left over or of another shape is named."""
    expected = dict(module.state_dict())
    wrong = [f"{n} is missing" for n in expected if n not in state]
    wrong += [f"{n} is unknown" for n in state if n not in expected]
    wrong += [
        f"{n} is {list(state[n].shape)}, expected {list(t.shape)}"
        for n, t in expected.items()
        if n in state and state[n].shape != t.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise TrichromeError(f"{where}: {'; '.join(wrong[:3])}{more}")
    module.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)


def _read_head(path: Path, hidden: int) -> dict[str, Tensor]:
    """A Linear's state dict; only tensors are unpickled."""
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  # torch raises many kinds for a damaged file
        raise TrichromeError(f"{path}: cannot be read as a state dict: {error}".splitlines()[0]) from None
    tensors = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    shapes = {k: list(v.shape) for k, v in state.items()} if tensors else type(state).__name__
    if not tensors or set(state) != {"weight", "bias"} or shapes != _linear_shapes(state, hidden):
        raise TrichromeError(f"{path}: expected weight [·, {hidden}] and bias, got {shapes}")
    return {k: v.float() for k, v in state.items()}


def _linear_shapes(state: Mapping[str, Tensor], hidden: int) -> dict[str, list[int]]:
    """Those of a Linear from `hidden` to as many outputs as its bias has."""
    return {
        name: [state["bias"].numel(), hidden] if name == "weight" else [state["bias"].numel()]
        for name in state
    }


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        state: dict[str, Tensor] = {}
        with placed(index):
            files = sorted(set(read_object(index)["weight_map"].values()))
        for file in files:
            state |= read_tensors(folder / file)
        return state
    if (folder / "model.safetensors").exists():
        return read_tensors(folder / "model.safetensors")
    if (pickled := folder / "pytorch_model.bin").exists():
        try:
            weights: dict[str, Tensor] = torch.load(pickled, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # noqa: BLE001  # torch raises many kinds for a damaged file
            raise TrichromeError(f"{pickled}: cannot be read: {error}".splitlines()[0]) from None
        return weights
    raise TrichromeError(f"{folder}: neither model.safetensors nor pytorch_model.bin is there")


def _pooling(folder: Path) -> str:
    """As sentence-transformers' file says, else CLS."""
    path = folder / "1_Pooling" / "config.json"
    settings = read_object(path) if path.exists() else {}
    mean = settings.get("pooling_mode") == "mean" or settings.get("pooling_mode_mean_tokens") is True
    return "mean" if mean else "cls"


def _prompts(folder: Path) -> dict[str, str]:
    """As sentence-transformers' file says, else none."""
    path = folder / "config_sentence_transformers.json"
    given = (read_object(path) if path.exists() else {}).get("prompts") or {}
    if not isinstance(given, dict) or not all(isinstance(prompt, str) for prompt in given.values()):
        raise TrichromeError(f"{path}: prompts must be an object of texts")
    return {"query": given.get("query", ""), "passage": given.get("passage", given.get("document", ""))}


# writing


def _save_trichrome(encoder: Encoder, folder: Path) -> None:
    state = {k: v.detach().cpu().contiguous() for k, v in encoder.network.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    encoder.tokenizer.tokenizer.save(str(folder / VOCABULARY))
    if isinstance(encoder.network.backbone, TransformersBackbone):
        encoder.network.backbone.model.config.save_pretrained(folder)
    write_json(folder / SETTINGS, {"format": FORMAT, **encoder.config.to_json()})
