"""A task: documents, queries and judgements. Everything in evaluation starts from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trichrome.errors import TrichromeError
from trichrome.formats.beir import read_task
from trichrome.records import Document, Qrels, Query


@dataclass(frozen=True)
class Task:
    """name: in tables and file names. documents, queries, qrels: as in BEIR; only queries that have a
    relevant document are here. unjudged: how many others there were, left out of every mean.
    within_language: each query searches only the documents of its own language."""

    name: str
    documents: Sequence[Document]
    queries: Sequence[Query]
    qrels: Qrels
    within_language: bool = False
    unjudged: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        documents: Sequence[Document],
        queries: Sequence[Query],
        qrels: Qrels,
        within_language: bool = False,
    ) -> Task:
        """A task whose queries are those with at least one relevant document (grade > 0).

        Errors: TrichromeError where nothing is left, or where `within_language` lacks a language.
        """
        judged = [q for q in queries if any(grade > 0 for grade in qrels.get(q.id, {}).values())]
        if not documents or not judged:
            raise TrichromeError(
                f"task {name}: {len(documents)} documents and {len(queries)} queries, {len(judged)} of them "
                f"with a relevant document: nothing can be measured; check that the qrels name these queries"
            )
        if len({document.id for document in documents}) < len(documents):
            raise TrichromeError(f"task {name}: some documents have the same id: give every one its own")
        if within_language:
            known = {document.lang for document in documents if document.lang is not None}
            for query in judged:
                if query.lang not in known:
                    raise TrichromeError(
                        f"task {name}: query {query.id!r} has the language {query.lang!r}, which no document "
                        f"has: search across languages, or give documents and queries the same tags"
                    )
        return cls(name, documents, judged, qrels, within_language, len(queries) - len(judged))

    def sample(self, max_queries: int | None, seed: int = 0) -> Task:
        """The same task with at most max_queries queries, drawn at random, in their order."""
        if max_queries is None or max_queries >= len(self.queries):
            return self
        if max_queries < 1:
            raise TrichromeError(f"max_queries must be at least 1, got {max_queries}")
        drawn = np.random.default_rng(seed).choice(len(self.queries), max_queries, replace=False)
        return replace(self, queries=[self.queries[i] for i in np.sort(drawn)])

    def pools(self) -> list[tuple[str | None, list[int], list[int]]]:
        """(language, positions of its documents, positions of its queries) of each part that is searched
        by itself; one part with language None where languages are mixed."""
        if not self.within_language:
            return [(None, list(range(len(self.documents))), list(range(len(self.queries))))]
        langs = sorted({query.lang for query in self.queries if query.lang is not None})
        return [
            (
                lang,
                [i for i, document in enumerate(self.documents) if document.lang == lang],
                [i for i, query in enumerate(self.queries) if query.lang == lang],
            )
            for lang in langs
        ]


def load_task(
    folder: str | Path, *, qrels: str | None = None, within_language: bool = False, name: str | None = None
) -> Task:
    """A task from a BEIR folder.

    qrels: which judgements, as in formats.beir.qrels_path; None for the usual ones.
    name: by default the folder's, with the judgements' where they aren't the usual ones.
    Errors: TrichromeError with file and line.
    """
    read = read_task(folder, qrels=qrels)
    default = read.name if qrels is None else f"{read.name}:{_bare(qrels)}"
    return Task.of(name or default, list(read.corpus()), list(read.queries()), read.qrels, within_language)


def _bare(qrels: str) -> str:
    """qrels.mono.tsv → mono, qrels/dev.tsv → dev."""
    return Path(qrels).name.removesuffix(".tsv").removeprefix("qrels.")
