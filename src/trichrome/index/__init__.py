"""Indexes of documents under three signals: one `Store` protocol; stores in folders and on servers."""

from trichrome.index.build import IndexReport, document_of, index_documents
from trichrome.index.copying import CopyReport, copy_store
from trichrome.index.manifests import KINDS, check_model
from trichrome.index.open import create_store, create_store_for, has_store, open_store, read_manifest
from trichrome.index.store import Candidates, Filter, Manifest, Store
from trichrome.index.urls import Place
from trichrome.index.verifying import Verification, verify_copy

__all__ = [
    "KINDS",
    "Candidates",
    "CopyReport",
    "Filter",
    "IndexReport",
    "Manifest",
    "Place",
    "Store",
    "Verification",
    "check_model",
    "copy_store",
    "create_store",
    "create_store_for",
    "document_of",
    "has_store",
    "index_documents",
    "open_store",
    "read_manifest",
    "verify_copy",
]
