"""Train a reviser of an index's queries, for `trichrome search --feedback`.

    python -m trichrome.training.fit_reviser --index INDEX --data questions.jsonl --out reviser.safetensors

The data are FlagEmbedding JSONL files whose positives the index holds, by their ids (pos_ids) or texts. Each
question is put to the index once; the reviser then learns from the vectors of what was found, in a minute or
two. Nothing of the model or the index changes. Take questions that the model was not trained on: it finds the
answers to those too easily for feedback to matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder
from trichrome.encoder.checkpoints import load
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples
from trichrome.index import open_store
from trichrome.index.store import Store
from trichrome.records import TrainingExample
from trichrome.search import Searcher
from trichrome.search.revisers import DenseReviser, LearnedReviser, SparseReviser
from trichrome.training.frozen import answered, read_documents
from trichrome.training.revision import DensePool, Settings, SparsePool, train_reviser

Rows: TypeAlias = "NDArray[np.int64]"
#: Documents that a question's first search brings into the pool which its revision is to rank.
DEPTH = 100
_READ = 1024


@dataclass(frozen=True)
class Questions:
    """Questions with an answer in the index. outputs: of Q questions. answers: of each, rows of the store."""

    outputs: Embeddings
    answers: list[Rows]


def fit_reviser(
    store: Store,
    encoder: Encoder,
    examples: Sequence[TrainingExample],
    *,
    documents: int = 5,
    settings: Settings | None = None,
    skip_bad: bool = False,
) -> LearnedReviser:
    """Revisers of the dense and the sparse output, as far as index and encoder have both.

    examples: questions and what answers them. documents: the most that a question is revised with. skip_bad:
    leave out questions that have no answer in the index; else they are an error.
    TrichromeError: as said; another model's index; no question finds as many documents.
    """
    settings, searcher = settings or Settings(), Searcher(encoder, store)
    signals = [s for s in ("dense", "sparse") if s in searcher.signals]
    asked = _questions(store, encoder, examples, signals, skip_bad)
    parts: dict[str, DenseReviser | SparseReviser] = {}
    for signal in signals:
        found = [store.search(signal, query, DEPTH).rows for query in asked.outputs]
        usable = [i for i, rows in enumerate(found) if len(rows) >= documents]  # sparse may share no token
        if not usable:
            raise TrichromeError(f"no question finds {documents} documents by {signal}; ask for fewer")
        pool = np.unique(np.concatenate([*(found[i] for i in usable), *(asked.answers[i] for i in usable)]))
        held = _vectors(store, pool, signal)
        best = np.searchsorted(pool, np.stack([found[i][:documents] for i in usable]))  # [Q, K], in the pool
        answers = [np.searchsorted(pool, asked.answers[i]) for i in usable]
        queries = asked.outputs[usable]
        if signal == "dense":
            assert queries.dense is not None
            assert held.dense is not None
            trained = train_reviser(DensePool(queries.dense, held.dense, best, documents), answers, settings)
        else:
            assert queries.sparse is not None
            assert held.sparse is not None
            trained = train_reviser(
                SparsePool(queries.sparse, held.sparse, best, documents), answers, settings
            )
        parts[signal] = trained
    dense, sparse = parts.get("dense"), parts.get("sparse")
    assert dense is None or isinstance(dense, DenseReviser)
    assert sparse is None or isinstance(sparse, SparseReviser)
    return LearnedReviser(dense, sparse)


def _questions(
    store: Store,
    encoder: Encoder,
    examples: Sequence[TrainingExample],
    signals: Sequence[str],
    skip_bad: bool,
) -> Questions:
    """Those with an answer, encoded."""
    read = read_documents(store)
    answers = read.answers(examples)
    answered(answers, skip_bad, "the index")
    kept = [i for i, rows in enumerate(answers) if len(rows)]
    rows = store.rows_of(list(read.by_id))
    outputs = encoder.encode([examples[i].query for i in kept], "query", outputs=tuple(signals))
    return Questions(outputs, [np.sort(rows[answers[i]]) for i in kept])


def _vectors(store: Store, rows: Rows, signal: str) -> Embeddings:
    """One output of many documents, read in parts: the others of a document may be much larger."""
    chunks = (rows[start : start + _READ] for start in range(0, len(rows), _READ))
    return Embeddings.concatenate([store.embeddings(some).select(signal) for some in chunks])


def _read(paths: Iterable[Path]) -> list[TrainingExample]:
    return [example for path in paths for example in read_examples(path)]


def main(
    index: Annotated[str, typer.Option(help="Folder or URL of the index.")],
    data: Annotated[list[Path], typer.Option(help="FlagEmbedding JSONL files of questions.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    model: Annotated[str | None, typer.Option(help="If the index's was moved.")] = None,
    documents: Annotated[int, typer.Option(min=1, help="The most that a question is revised with.")] = 5,
    comparative: Annotated[
        float, typer.Option(min=0, help="Weight of: more feedback must not make a question worse.")
    ] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 300,
    rows: Annotated[int, typer.Option(min=1, help="Questions of a step.")] = 64,
    rate: float = 1e-3,
    seed: int = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out questions without an answer in the index.")
    ] = False,
) -> None:
    """Train a reviser of an index's queries."""
    console = Console(stderr=True)
    settings = Settings(comparative=comparative, steps=steps, rows=rows, rate=rate, seed=seed)
    with open_store(index) as store:
        encoder = load(model or str(store.manifest.settings.get("model", "small")))
        examples = _read(data)
        made = fit_reviser(
            store, encoder, examples, documents=documents, settings=settings, skip_bad=skip_bad
        )
    made.save(out)
    console.print(f"wrote {out}, from {len(examples):,} questions; `trichrome search --feedback {documents} "
                  f"--reviser {out}` searches with it", markup=False)  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
