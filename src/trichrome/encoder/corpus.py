"""Corpora that do not fit in memory: encoded chunk by chunk to disk, resumed where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from trichrome.embeddings import Embeddings
from trichrome.encoder.encoder import Encoder
from trichrome.storage import write_json


def encode_corpus(
    encoder: Encoder,
    texts: Iterable[str],
    path: str | Path,
    kind: str = "passage",
    outputs: Sequence[str] | None = None,
    *,
    chunk: int = 4096,
    multivector_dtype: str = "float16",
    done: Callable[[int], None] | None = None,
    **settings: Any,
) -> Embeddings:
    """Encode a stream of texts into one safetensors file; returns it memory-mapped.

    At most `chunk` texts are held at a time. Each finished chunk is on disk before the next begins, under
    its content's hash: a second call after a crash reads the same texts and encodes only what is missing.
    `done` is called with the number of texts finished; `settings` go to `Encoder.encode`.
    """
    path = Path(path)
    parts = path.with_name(f"{path.name}.parts")
    # the fingerprint leaves the precision out
    described = json.dumps([encoder.fingerprint, encoder.precision, kind, outputs, multivector_dtype])
    files: list[Path] = []
    total = 0
    for batch in _chunks(texts, chunk):
        digest = hashlib.sha256(described.encode())
        for text in batch:
            digest.update(f"{len(text)}:".encode() + text.encode("utf-8", "surrogatepass"))
        file = parts / f"{len(files):06d}-{digest.hexdigest()[:32]}.safetensors"
        if not file.exists():
            made = encoder.encode(batch, kind, outputs, multivector_dtype=multivector_dtype, **settings)
            made.save(file)
        files.append(file)
        total += len(batch)
        if done is not None:
            done(total)
    if not files:
        encoder.encode([], kind, outputs, multivector_dtype=multivector_dtype).save(path)
    else:
        Embeddings.save_joined([Embeddings.load(f) for f in files], path)
    write_json(
        path.with_suffix(".json"), {"model": encoder.name, "fingerprint": encoder.fingerprint, "texts": total}
    )
    shutil.rmtree(parts, ignore_errors=True)
    return Embeddings.load(path)


def _chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    stream = iter(texts)
    while batch := list(islice(stream, size)):
        yield batch
