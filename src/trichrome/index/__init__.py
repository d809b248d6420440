"""Indexes of documents under three signals: one `Store` protocol, an exact and an embedded implementation."""

from trichrome.index.build import IndexReport, document_of, index_documents
from trichrome.index.manifests import KINDS, check_model
from trichrome.index.open import create_store, create_store_for, has_store, open_store, read_manifest
from trichrome.index.store import Candidates, Filter, Manifest, Store
from trichrome.index.urls import Place

__all__ = [
    "KINDS",
    "Candidates",
    "Filter",
    "IndexReport",
    "Manifest",
    "Place",
    "Store",
    "check_model",
    "create_store",
    "create_store_for",
    "document_of",
    "has_store",
    "index_documents",
    "open_store",
    "read_manifest",
]
