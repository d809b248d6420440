"""Low-rank deltas on disk, and how they are put into a backbone: W ← W + b·a, once, at loading.

A deltas file is what low-rank training (Hu et al. 2021, arXiv 2106.09685) leaves beside its heads: for every
weight that was trained two thin float16 matrices, `NAME.a` [r, in] and `NAME.b` [out, r], where NAME is the
module's place in the backbone (`layers.3.qkv`, …, `position`). A file of megabytes then turns a public base
into the trained model, and nothing besides torch is needed to read it.

Metadata: format, version; base, a fingerprint of the weights that the deltas belong to; positions, the
tokens that the position table took in training (a shorter one is extended by tiling).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from trichrome.encoder.config import BackboneConfig
from trichrome.encoder.model import Backbone
from trichrome.encoder.positions import extend_positions
from trichrome.errors import TrichromeError
from trichrome.storage import load_arrays, load_metadata, save_arrays

FORMAT, VERSION = "trichrome-deltas", "1"

#: The module whose rows are positions: its delta may have more rows than the base's table.
POSITIONS = "position"


def apply_deltas(backbone: nn.Module, deltas: str | Path | Mapping[str, Tensor]) -> None:
    """Put deltas into a backbone's weights, in place.

    deltas: a file of `write_deltas`, or its tensors: `NAME.a` [r, in] and `NAME.b` [out, r] for W [out, in].
    Where they were trained with more positions than the backbone has, its table is extended first, so the
    backbone's `config` may be another afterwards. The sum is made in float32 and kept in the precision of W.
    Raises TrichromeError where the deltas belong to another base; the backbone is then as it was.
    """
    metadata: dict[str, str] = {}
    if isinstance(deltas, Mapping):
        where, tensors = "deltas", dict(deltas)
    else:
        where = str(deltas)
        tensors, metadata = read_deltas(deltas)
    names = sorted({name.rpartition(".")[0] for name in tensors})
    weights = _checked(backbone, tensors, names, where)

    before: tuple[nn.Embedding, BackboneConfig] | None = None
    if isinstance(backbone, Backbone):
        before = backbone.position, backbone.config
        rows = len(tensors[f"{POSITIONS}.b"]) if POSITIONS in names else 0
        said = metadata.get("positions", "0")
        if not (said.isascii() and said.isdigit() and len(said) < 7):
            raise TrichromeError(f"{where}: damaged: {said!r} positions")
        tokens = max(int(said), rows - backbone.config.first_position)
        if tokens > backbone.config.max_tokens:
            extend_positions(backbone, tokens)
            weights[POSITIONS] = backbone.position.weight
    if "base" in metadata and metadata["base"] != base_fingerprint(backbone, names):
        if before is not None and isinstance(backbone, Backbone):
            backbone.position, backbone.config = before
        raise TrichromeError(f"{where}: made for another base than this one (its weights differ)")
    with torch.no_grad():
        for name in names:
            weight = weights[name]
            a, b = (tensors[f"{name}.{part}"].to(weight.device, torch.float32) for part in "ab")
            weight.copy_(weight.float() + b @ a)


def _checked(
    backbone: nn.Module, tensors: Mapping[str, Tensor], names: Iterable[str], where: str
) -> dict[str, Tensor]:
    """The weight that each delta is for; names or shapes that don't fit are an error."""
    modules = dict(backbone.named_modules())
    weights: dict[str, Tensor] = {}
    for name in names:
        module = modules.get(name)
        if module is None or not isinstance(getattr(module, "weight", None), Tensor):
            raise TrichromeError(
                f"{where}: the backbone has no weight {name}: deltas of another architecture"
            )
        if not (f"{name}.a" in tensors and f"{name}.b" in tensors):
            raise TrichromeError(f"{where}: {name} needs both {name}.a and {name}.b")
        weight = cast(Tensor, module.weight)
        a, b = tensors[f"{name}.a"], tensors[f"{name}.b"]
        longer = name == POSITIONS and isinstance(backbone, Backbone) and len(b) > len(weight)
        fits = a.ndim == b.ndim == 2 and len(a) == b.shape[1] and a.shape[1] == weight.shape[1]
        if not fits or (len(b) != len(weight) and not longer):
            raise TrichromeError(
                f"{where}: {name} is {list(b.shape)}·{list(a.shape)}, but its weight is {list(weight.shape)}"
            )
        weights[name] = weight
    return weights


def write_deltas(
    path: str | Path, tensors: Mapping[str, Tensor], base: str, positions: int | None = None
) -> None:
    """Write deltas in float16, atomically.

    tensors: as `apply_deltas` takes them. base: `base_fingerprint` of the weights before training.
    positions: tokens that the position table takes.
    """
    metadata = {"format": FORMAT, "version": VERSION, "base": base}
    if positions is not None:
        metadata["positions"] = str(positions)
    arrays = {}
    for name, tensor in sorted(tensors.items()):
        arrays[name] = tensor.detach().to("cpu", torch.float16).numpy()
        if not np.isfinite(arrays[name]).all():
            raise TrichromeError(f"{name} is not finite in float16: the training has diverged")
    save_arrays(path, arrays, metadata)


def read_deltas(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors [float16] and the metadata of a deltas file."""
    if not Path(path).is_file():
        raise TrichromeError(f"{path} is missing")
    metadata = load_metadata(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise TrichromeError(f"{path}: not a {FORMAT} file of version {VERSION}")
    tensors = {}
    for name, array in load_arrays(path).items():
        if array.dtype != np.float16:
            raise TrichromeError(f"{path}: damaged: {name} holds {array.dtype}, not float16")
        tensors[name] = torch.from_numpy(np.array(array))
    return tensors, metadata


def base_fingerprint(backbone: nn.Module, names: Iterable[str]) -> str:
    """sha256 over the shape and the first row of the named weights, and the last row of the position table.

    Enough to tell two bases apart, or two ways of making more positions, and quick. Rows are rounded to
    bfloat16, so that a base that is held in that precision is still the same.
    """
    modules = dict(backbone.named_modules())
    digest = hashlib.sha256()
    rows = {name: cast(Tensor, modules[name].weight) for name in names if name != POSITIONS}
    for name, weight in sorted(rows.items()):
        digest.update(f"{name} {list(weight.shape)}".encode() + _rounded(weight[0]))
    if isinstance(backbone, Backbone):
        digest.update(f"{len(backbone.position.weight)}".encode() + _rounded(backbone.position.weight[-1]))
    return digest.hexdigest()


def _rounded(row: Tensor) -> bytes:
    data: bytes = row.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()
    return data
