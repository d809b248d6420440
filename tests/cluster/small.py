"""Small corpora: on disk as JSONL, and encoded by an encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.negatives.small import UntiedEncoder
from tests.tiny import WORDS
from trichrome.cluster import EncodedCorpus, Encoding, Passages, write_shard
from trichrome.cluster.folder import Manifest, shard_path
from trichrome.cluster.schema import Counts
from trichrome.embeddings import Embeddings, MultiVector
from trichrome.encoder import Encoder
from trichrome.formats.jsonl import write_documents
from trichrome.index.build import payload_of
from trichrome.records import Document
from trichrome.storage import write_json


def some_documents(count: int, words: int = 12, start: int = 0) -> list[Document]:
    """Documents of the tiny tokenizer's words, with all that a document may have."""
    rng = np.random.default_rng(start)
    return [
        Document(
            f"d{i}",
            " ".join(rng.choice(WORDS, words)),
            "moon" if i % 2 else "",
            "en" if i % 3 else None,
            {"n": i, "tags": ["a", {"b": None}]},
        )
        for i in range(start, start + count)
    ]


def write_files(folder: Path, files: int = 4, each: int = 20, words: int = 12) -> Path:
    """A corpus that is sharded already: a folder of JSONL files, gzip and plain."""
    for i in range(files):
        name = f"part-{i}.jsonl{'.gz' if i % 2 else ''}"
        folder.mkdir(exist_ok=True)
        write_documents(folder / name, some_documents(each, words, i * each))
    return folder


def encoding_of(encoder: Encoder, **changes: object) -> Encoding:
    """How the tiny encoder encodes here: small chunks, short passages."""
    settings: dict[str, object] = {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "dtype": "float32",
        "outputs": encoder.signals,
        "dense_dim": encoder.dense_dim,
        "multivector_dim": encoder.config.multivector_dim,
        "passage_tokens": 40,
        "overlap": 8,
        "chunk": 8,
    }
    return Encoding(**{**settings, **changes})  # type: ignore[arg-type]


def write_encoded(folder: Path, documents: Sequence[Document], shards: int, chunk: int = 7) -> EncodedCorpus:
    """An encoded corpus, as a cluster would have left it, of an encoder that hashes words."""
    encoder = UntiedEncoder()
    encoding = Encoding(
        "words", encoder.fingerprint, "float32", ("dense", "sparse", "multivector"), 16, 16, 100, 0, chunk
    )
    names = [f"s{i}" for i in range(shards)]
    write_json(folder / "encoded.json", Manifest(encoding, "words", f"parts/{shards}", names).to_json())
    for i, name in enumerate(names):
        part = documents[i * len(documents) // shards : (i + 1) * len(documents) // shards]
        chunks = (part[start : start + chunk] for start in range(0, len(part), chunk))
        write_shard(
            shard_path(folder, name), encoding, "0" * 64, (passages(c, encoder) for c in chunks), Counts()
        )
    return EncodedCorpus.open(folder)


def passages(documents: Sequence[Document], encoder: UntiedEncoder) -> Passages:
    made = encoder.encode([document.content for document in documents])
    assert made.multivector is not None
    vectors = MultiVector(made.multivector.offsets, made.multivector.vectors.astype(np.float16))
    return Passages(
        [document.id for document in documents],
        [payload_of(document) for document in documents],
        Embeddings(made.dense, made.sparse, vectors),
    )
