"""How far to go from where a training of `small` began to where it ended.

    python -m benchmarks.share --start runs/small-heads --model runs/small-long/model

A point between keeps most of what was learnt and forgets less. It is chosen here on questions of training
sets, never on the evaluation tasks: Turkish questions over encyclopaedia paragraphs (tquad-train, on which
nothing that is shipped may be trained: what the model forgets shows here), package titles against
descriptions in other languages (ddtp), and long manual pages (man). Of the last two the training may have
seen some. The last line is JSON: the mean nDCG@10 by share; benchmarks/results/share.json holds all.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

import trichrome
from benchmarks.common import SHARED_DATA, machine, write_results
from trichrome.evaluation import Options, evaluate_many, markdown
from trichrome.evaluation.task import Task
from trichrome.records import Document, Query
from trichrome.training.interpolate import interpolate

SYSTEMS = ("dense", "sparse", "multivector", "dense+sparse", "all")


def rows_of(data: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a training set."""
    with gzip.open(data / "train" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def one_positive(name: str, rows: list[dict[str, Any]], queries: int, within_language: bool) -> Task:
    """Every row's passage is a document, some rows' questions are the queries."""
    texts = list(dict.fromkeys((row["pos"][0], row["lang"]) for row in rows))
    ids = {text: f"d{i}" for i, (text, _) in enumerate(texts)}
    drawn = random.Random(0).sample(rows, min(queries, len(rows)))
    return Task.of(
        name,
        [Document(ids[text], text, lang=lang) for text, lang in texts],
        [Query(f"q{i}", row["query"], row["lang"]) for i, row in enumerate(drawn)],
        {f"q{i}": {ids[row["pos"][0]]: 1} for i, row in enumerate(drawn)},
        within_language,
    )


def across_languages(name: str, rows: list[dict[str, Any]], subjects: int) -> Task:
    """A title in one language asks for the descriptions of the same package in all others."""
    draw = random.Random(0)
    by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_id[row["id"]].append(row)
    several = sorted(id for id, found in by_id.items() if len({r["lang"] for r in found}) > 2)
    chosen = draw.sample(several, min(subjects, len(several)))
    documents, queries, qrels = [], [], {}
    for i, id in enumerate(chosen):
        found = list({row["lang"]: row for row in by_id[id]}.values())
        asking = draw.randrange(len(found))
        queries.append(Query(f"q{i}", found[asking]["query"], found[asking]["lang"]))
        documents += [Document(f"d{i}-{j}", r["pos"][0], lang=r["lang"]) for j, r in enumerate(found)]
        qrels[f"q{i}"] = {f"d{i}-{j}": 1 for j in range(len(found)) if j != asking}
    return Task.of(name, documents, queries, qrels)


def main(
    model: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    start: Annotated[str, typer.Option(help="What its training began from.")] = "small",
    shares: Annotated[str, typer.Option(help="Comma-separated, 0 to 1.")] = "0,0.4,0.6,0.8,1",
    queries: Annotated[int, typer.Option(help="Of each task.")] = 400,
    max_tokens: Annotated[int | None, typer.Option(help="Read at most so many tokens of a text.")] = None,
    data: Annotated[Path, typer.Option(help="Folder with train/.")] = SHARED_DATA,
    dtype: Annotated[str, typer.Option(help="Precision of the network.")] = "bfloat16",
) -> None:
    """Measure points between two models on questions of training sets."""
    if not (data / "train").is_dir():
        raise SystemExit(f"error: no training data at {data}; give its folder with --data")
    tasks = [
        one_positive("tquad-train", rows_of(data, "tquad-train"), queries, within_language=False),
        across_languages("ddtp", rows_of(data, "ddtp"), queries),
        one_positive("man", rows_of(data, "man"), queries, within_language=True),
    ]
    means: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {}
    for share in (float(s) for s in shares.split(",")):
        begun = trichrome.load(start, device="cpu")
        trained = trichrome.load(model, max_tokens=max_tokens, device="cpu")
        encoder = interpolate(begun, trained, share).to(dtype=dtype)
        with tempfile.TemporaryDirectory() as cache:
            suite = evaluate_many(encoder, tasks, Options(baselines=(), cache=Path(cache)))
        print(f"share {share}\n{markdown(suite.reports)}", flush=True)
        means[str(share)] = {s: round(suite.means[s]["nDCG@10"], 4) for s in SYSTEMS}
        details[str(share)] = {r.task: {s: r.means[s]["nDCG@10"] for s in SYSTEMS} for r in suite.reports}
    write_results("share", {"machine": machine(), "dtype": dtype, "means": means, "tasks": details})
    print(json.dumps(means))


if __name__ == "__main__":
    typer.run(main)
