"""What compressed vectors save and what they cost: bytes a document, nDCG@10 and recall@10, by setting.

    python -m benchmarks.compress [--quick]

Every setting holds the same embeddings of the documents of all tasks, in one store: what dense search reads
(`dense_search`) and how token vectors are kept (`multivector_dtype`). Points (0.01) of nDCG@10 are lost
against the exact store that keeps everything in float32; recall@10 is the share of its ten best documents
that a setting returns. Bytes are those on disk, by part: float32 vectors, the codes that a dense search reads
first, token vectors, sparse. The last line is JSON; benchmarks/results/compress.json holds every figure.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

import trichrome
from benchmarks.common import SHARED_DATA, machine, write_results
from benchmarks.search import recall
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder, TruncationWarning
from trichrome.encoder.corpus import encode_corpus
from trichrome.errors import TrichromeError
from trichrome.evaluation import load_task
from trichrome.evaluation.metrics import means, per_query
from trichrome.evaluation.task import Task
from trichrome.index import Store, create_store_for
from trichrome.search.searcher import Searcher
from trichrome.storage import default_cache, load_arrays

TASKS = ("cranfield", "jaquad-dev", "afriqa-dev", "cosqa-dev", "cmrc-dev", "xquad-pool")
MODES = ("dense", "multivector", "all")
#: The exact store's best documents by which hits are judged.
JUDGED = 100

console = Console(stderr=True)


@dataclass(frozen=True)
class Setting:
    """How a store keeps vectors."""

    kind: str
    dense_search: str
    multivector_dtype: str


#: The first is what the others are measured against.
SETTINGS = (
    Setting("exact", "float32", "float32"),
    Setting("exact", "float32", "float16"),
    Setting("exact", "int8", "float16"),
    Setting("exact", "binary", "float16"),
    Setting("exact", "float32", "int8"),
    Setting("exact", "float32", "int4"),
    Setting("exact", "int8", "int8"),
    Setting("exact", "binary", "int4"),
    Setting("embedded", "float32", "float16"),
    Setting("embedded", "int8", "float16"),
    Setting("embedded", "binary", "float16"),
)


@dataclass(frozen=True)
class Encoded:
    """A task and what an encoder made of it."""

    task: Task
    documents: Embeddings
    queries: Embeddings


def main(
    quick: Annotated[bool, typer.Option(help="One small task, 40 queries.")] = False,
    data: Annotated[Path, typer.Option(help="Folder of BEIR-layout tasks.")] = SHARED_DATA / "eval",
    tasks: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(TASKS),
    max_queries: Annotated[int, typer.Option(help="A seeded sample of each task's queries.")] = 200,
    model: Annotated[str, typer.Option(help="small, a folder or a hub id.")] = "small",
) -> None:
    """Measure compressed stores."""
    if not data.is_dir():
        raise SystemExit(f"error: no tasks at {data}; give their folder with --data")
    names, max_queries = (["tquad-dev"], 40) if quick else (tasks.split(","), max_queries)
    encoder = trichrome.load(model, device="cpu", dtype="bfloat16")
    warnings.simplefilter("ignore", TruncationWarning)
    try:
        encoded = [encode(encoder, load_task(data / name).sample(max_queries)) for name in names]
        rows = compare(encoder, encoded)
    except TrichromeError as error:
        raise SystemExit(f"error: {error}") from None
    results = {
        "machine": machine(),
        "model": encoder.name,
        "tasks": {e.task.name: [len(e.task.documents), len(e.task.queries)] for e in encoded},
        "tokens_a_document": round(
            sum(len(e.documents.multivector.vectors) for e in encoded if e.documents.multivector)
            / sum(len(e.documents) for e in encoded),
            1,
        ),
        "settings": rows,
    }
    print(f"wrote {write_results('compress.quick' if quick else 'compress', results)}")
    print(
        json.dumps({" ".join(asdict(s).values()): row["lost"] for s, row in zip(SETTINGS, rows, strict=True)})
    )


def encode(encoder: Encoder, task: Task) -> Encoded:
    """A task's documents (kept in the cache folder) and queries, token vectors in float32."""
    path = default_cache() / "benchmarks" / f"{task.name}-{encoder.fingerprint[:16]}-float32.safetensors"
    documents = (
        Embeddings.load(path)
        if path.exists()
        else encode_corpus(encoder, (d.content for d in task.documents), path, multivector_dtype="float32")
    )
    console.print(f"encoded {task.name}: {len(documents)} documents", highlight=False)
    return Encoded(task, documents, encoder.encode([q.text for q in task.queries], "query"))


def compare(encoder: Encoder, encoded: list[Encoded]) -> list[dict[str, Any]]:
    """A row a setting: means over the tasks."""
    rows: list[dict[str, Any]] = []
    judged: dict[tuple[str, str], list[dict[str, float]]] = {}  # of the first setting
    documents = sum(len(one.documents) for one in encoded)
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "store"
            with create_store_for(
                encoder,
                path,
                kind=setting.kind,
                dense_search=setting.dense_search,
                multivector_dtype=setting.multivector_dtype,
            ) as store:
                for one in encoded:
                    fill(store, one)
                store.optimize()
                figures = [measure(Searcher(encoder, store), one, judged) for one in encoded]
            sizes = sizes_of(path, setting.kind)
        mean = {
            name: {mode: float(np.mean([figure[name][mode] for figure in figures])) for mode in MODES}
            for name in ("ndcg10", "recall10", "p50_ms")
        }
        best = rows[0]["ndcg10"] if rows else mean["ndcg10"]
        row: dict[str, Any] = {
            **asdict(setting),
            "bytes_a_document": {part: round(size / documents, 1) for part, size in sizes.items()},
            "lost": {mode: round(100 * (best[mode] - mean["ndcg10"][mode]), 3) for mode in MODES},
            **{name: {mode: round(value, 5) for mode, value in of.items()} for name, of in mean.items()},
        }
        rows.append(row)
        console.print(" ".join(asdict(setting).values()), row["lost"], row["recall10"], highlight=False)
    return rows


def fill(store: Store, one: Encoded, batch: int = 1000) -> None:
    """Add every document of a task."""
    ids = [f"{one.task.name}/{document.id}" for document in one.task.documents]
    for start in range(0, len(ids), batch):
        part = slice(start, start + batch)
        store.add(ids[part], one.documents[part], [{} for _ in ids[part]])


def measure(
    searcher: Searcher, one: Encoded, judged: dict[tuple[str, str], list[dict[str, float]]]
) -> dict[str, dict[str, float]]:
    """One store by one task's queries; the first store fills `judged`."""
    figures: dict[str, dict[str, float]] = {"ndcg10": {}, "recall10": {}, "p50_ms": {}}
    ids = [query.id for query in one.task.queries]
    for mode in MODES:
        searcher.search(one.queries[0], mode)  # compiles kernels
        times, best = [], []
        for query in one.queries:
            start = time.perf_counter()
            best.append({hit.id: hit.score for hit in searcher.search(query, mode)})
            times.append(1000 * (time.perf_counter() - start))
        key = one.task.name, mode
        if key not in judged:
            deep = (searcher.search(query, mode, JUDGED) for query in one.queries)
            judged[key] = [{hit.id: hit.score for hit in found} for found in deep]
        own = f"{one.task.name}/"
        run = {
            id: {found.removeprefix(own): score for found, score in ranked.items()}
            for id, ranked in zip(ids, best, strict=True)
        }
        figures["ndcg10"][mode] = means(per_query(one.task.qrels, run, ids))["nDCG@10"]
        figures["recall10"][mode], _ = recall([list(found) for found in best], judged[key])
        figures["p50_ms"][mode] = float(np.median(times))
    return figures


def sizes_of(path: Path, kind: str) -> dict[str, float]:
    """Bytes on disk by part."""
    if kind != "exact":
        files = (file.stat() for file in path.rglob("*") if file.is_file())
        return {"all": float(sum(512 * status.st_blocks for status in files))}
    sizes = dict.fromkeys(("dense", "codes", "tokens", "sparse", "all"), 0.0)
    parts = {"dense": "dense", "multivector": "tokens", "sparse": "sparse", "postings": "sparse"}
    for segment in (path / "segments").iterdir():
        sizes["all"] += segment.stat().st_size
        for name, array in load_arrays(segment).items():
            part = "codes" if name.startswith("dense.") else parts.get(name.split(".")[0])
            if part:
                sizes[part] += array.nbytes
    return sizes


if __name__ == "__main__":
    typer.run(main)
