"""trichrome: one encoder, three signals (dense, sparse, multi-vector), from encoding to evaluation.

`trichrome.load("small").encode(texts)` gives all three in one forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trichrome.embeddings import Embedding, Embeddings
    from trichrome.encoder import Encoder, NewHeads, load
    from trichrome.errors import TrichromeError
    from trichrome.records import Document, Query, TrainingExample

__version__ = "0.1.0"

_WHERE = {
    "Embedding": "trichrome.embeddings",
    "Embeddings": "trichrome.embeddings",
    "Encoder": "trichrome.encoder",
    "NewHeads": "trichrome.encoder",
    "load": "trichrome.encoder",
    "TrichromeError": "trichrome.errors",
    "Document": "trichrome.records",
    "Query": "trichrome.records",
    "TrainingExample": "trichrome.records",
}

__all__ = [
    "Document",
    "Embedding",
    "Embeddings",
    "Encoder",
    "NewHeads",
    "Query",
    "TrainingExample",
    "TrichromeError",
    "load",
]


def __getattr__(name: str) -> Any:
    """Names are fetched when first used, so that `trichrome --help` does not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'trichrome' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
