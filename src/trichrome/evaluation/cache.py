"""What an evaluation keeps between runs: stores of encoded corpora, encoded queries, rankings.

Everything is named by a hash of what it was made from (texts, model fingerprint, encode settings), so a
changed document or model never meets an old encoding. Any entry may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import trichrome
from trichrome.embeddings import Embeddings
from trichrome.encoder.encoder import TruncationWarning
from trichrome.evaluation.rankings import Rankings
from trichrome.evaluation.two_towers import TwoTowers
from trichrome.index import create_store, open_store
from trichrome.index.store import Store
from trichrome.records import JSON, Document
from trichrome.search.searcher import QueryEncoder
from trichrome.storage import load_arrays, save_arrays, write_json

#: Called as (what is being done, how many are done, of how many).
Progress: TypeAlias = Callable[[str, int, int], None]

#: Documents that are encoded and acknowledged at a time; what an interruption loses at most.
CHUNK = 256


def content_hash(*parts: str | Iterable[str]) -> str:
    """A hash of strings and lists of strings; where one ends and the next starts counts too."""
    digest = hashlib.sha256(trichrome.__version__.encode())
    for part in parts:
        for text in [part] if isinstance(part, str) else part:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        digest.update(b"\xff" * 8)
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Cache:
    """One cache folder, for one encoder and its encode settings."""

    folder: Path
    encoder: QueryEncoder
    settings: Mapping[str, JSON]
    progress: Progress

    def model(self, kind: str | None = None) -> str:
        """The encoder and its settings, as one string. kind: the encoder of such texts, where there are two;
        what one made of them serves whatever the other is."""
        return self._encoder_of(kind).fingerprint + json.dumps(dict(self.settings), sort_keys=True)

    def _encoder_of(self, kind: str | None) -> QueryEncoder:
        if kind is None or not isinstance(self.encoder, TwoTowers):
            return self.encoder
        return self.encoder.of(kind)

    def corpus_key(self, documents: Sequence[Document]) -> str:
        """The name of these documents' store."""
        ids, texts = [d.id for d in documents], [d.content for d in documents]
        return content_hash(self.model("passage"), ids, texts, [d.lang or "" for d in documents])

    def store(self, documents: Sequence[Document]) -> tuple[Store, int]:
        """The store of these documents, open, and how many of their texts were cut.

        Encoded now if they never were; an encoding that was interrupted goes on where it stopped.
        """
        path = self.folder / "stores" / self.corpus_key(documents)
        if not path.is_dir():
            self._build(path, documents)
        cut: dict[str, int] = json.loads((path / "cut.json").read_text())
        return open_store(path / "store"), sum(cut.values())

    def _build(self, path: Path, documents: Sequence[Document]) -> None:
        building = path.with_suffix(".building")  # takes its name when it is whole
        counted = building / "cut.json"
        cut: dict[str, int] = json.loads(counted.read_text()) if counted.is_file() else {}
        store = open_store(building / "store") if (building / "store").is_dir() else None
        try:
            for start in range(0, len(documents), CHUNK):
                self.progress("encode documents", start, len(documents))
                chunk = documents[start : start + CHUNK]
                ids = [document.id for document in chunk]
                if store is not None and (store.rows_of(ids) >= 0).all():
                    continue
                embeddings, cut[str(start)] = self._encode([d.content for d in chunk], "passage")
                if store is None:
                    store = self._create(building / "store", embeddings)
                write_json(counted, cut)
                store.add(ids, embeddings, [{"lang": d.lang} for d in chunk])
            self.progress("encode documents", len(documents), len(documents))
            if store is not None:
                store.optimize()
        finally:
            if store is not None:
                store.close()
        building.replace(path)

    def _create(self, path: Path, embeddings: Embeddings) -> Store:
        dense, multivector = embeddings.dense, embeddings.multivector
        return create_store(
            path,
            kind="exact",
            model=self._encoder_of("passage").name,
            fingerprint=self._encoder_of("passage").fingerprint,
            dense_dim=None if dense is None else dense.shape[1],
            sparse=embeddings.sparse is not None,
            multivector_dim=None if multivector is None else multivector.vectors.shape[1],
            settings=self.settings,
        )

    def queries_key(self, texts: Sequence[str]) -> str:
        """The name of these queries' encodings."""
        return content_hash(self.model("query"), texts)

    def queries(self, texts: Sequence[str]) -> tuple[Embeddings, int]:
        """The queries' outputs, and how many texts were cut; encoded now if they never were."""
        path = self.folder / "queries" / f"{self.queries_key(texts)}.safetensors"
        counted = path.with_suffix(".json")
        if not (path.is_file() and counted.is_file()):
            chunks, cut = [], 0
            for start in range(0, len(texts), step := 4 * CHUNK):
                self.progress("encode queries", start, len(texts))
                chunk, more = self._encode(texts[start : start + step], "query")
                chunks.append(chunk)
                cut += more
            self.progress("encode queries", len(texts), len(texts))
            Embeddings.concatenate(chunks).save(path)
            write_json(counted, {"cut": cut})
        return Embeddings.load(path), int(json.loads(counted.read_text())["cut"])

    def _encode(self, texts: Sequence[str], kind: str) -> tuple[Embeddings, int]:
        """The texts' outputs, and how many were cut: counted for the report instead of warned about."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            encoder = self._encoder_of(kind)
            embeddings = encoder.encode(texts, kind=kind, outputs=encoder.signals)
        cut = 0
        for warning in caught:
            if isinstance(warning.message, TruncationWarning):
                cut += warning.message.texts
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return embeddings, cut

    def rankings(
        self,
        key: str,
        query_ids: Sequence[str],
        document_ids: Sequence[str],
        make: Callable[[], tuple[Mapping[str, Rankings], Sequence[int]]],
    ) -> tuple[dict[str, Rankings], list[int]]:
        """System → its rankings, and the counts made with them, kept under a key; `make` is called where
        they are not there yet."""
        path = self.folder / "rankings" / f"{key}.safetensors"
        if not path.is_file():
            made, counts = make()
            arrays: dict[str, NDArray[Any]] = {"counts": np.array(counts, np.int64)}
            arrays |= {f"{name}/{part}": a for name, r in made.items() for part, a in r.arrays().items()}
            save_arrays(path, arrays)
        arrays = load_arrays(path)
        systems = {name.rpartition("/")[0] for name in arrays if "/" in name}
        rankings = {
            name: Rankings(
                query_ids,
                document_ids,
                arrays[f"{name}/offsets"],
                arrays[f"{name}/documents"],
                arrays[f"{name}/scores"],
            )
            for name in systems
        }
        return rankings, arrays["counts"].tolist()
