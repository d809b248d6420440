"""Outputs of the built-in model for a row's texts, kept in trichrome's cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache

import trichrome
from trichrome.embeddings import Embeddings, Sparse
from trichrome.encoder import Encoder
from trichrome.encoder.encoder import TruncationWarning
from trichrome.evaluation.cache import content_hash
from trichrome.storage import default_cache

#: Texts that are encoded, and kept, at once: what an interruption loses at most.
CHUNK = 512


def sparse_vectors(
    texts: Sequence[str],
    kind: str,
    most: int,
    tell: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Sparse:
    """The sparse output of `small`, as `encoded` gives it."""
    made = encoded(texts, kind, most, ("sparse",), tell).sparse
    assert made is not None
    return made


def encoded(
    texts: Sequence[str],
    kind: str,
    most: int,
    outputs: tuple[str, ...],
    tell: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Embeddings:
    """Outputs of `small`, in bfloat16, of each text's first `most` tokens. kind: "query" or "passage".
    Encoded once: $TRICHROME_CACHE/papers keeps them under a hash of model, kind and texts."""
    encoder = _encoder(most)
    parts: list[Embeddings] = []
    for start in range(0, len(texts), CHUNK):
        some = texts[start : start + CHUNK]
        key = content_hash(encoder.fingerprint, encoder.precision, kind, some)
        path = default_cache() / "papers" / "-".join(outputs) / f"{key}.safetensors"
        if not path.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)  # the cut was asked for
                encoder.encode(some, kind, outputs=outputs, multivector_dtype="float16").save(path)
        parts.append(Embeddings.load(path))
        tell(f"encode {kind}", min(start + CHUNK, len(texts)), len(texts))
    return Embeddings.concatenate(parts)


@lru_cache(maxsize=1)
def _encoder(most: int) -> Encoder:
    return trichrome.load("small", dtype="bfloat16", max_tokens=most)
