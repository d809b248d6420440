"""Indexes of documents under three signals: one `Store` protocol, an exact and an embedded implementation."""

from trichrome.index.build import IndexReport, document_of, index_documents
from trichrome.index.open import (
    KINDS,
    check_model,
    create_store,
    create_store_for,
    open_store,
    read_manifest,
)
from trichrome.index.store import Candidates, Filter, Manifest, Store

__all__ = [
    "KINDS",
    "Candidates",
    "Filter",
    "IndexReport",
    "Manifest",
    "Store",
    "check_model",
    "create_store",
    "create_store_for",
    "document_of",
    "index_documents",
    "open_store",
    "read_manifest",
]
