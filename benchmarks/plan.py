"""What 100 million documents take: docs/scale.md's tables, from measured figures and stated assumptions.

    python -m benchmarks.plan --measure [--quick]
    python -m benchmarks.plan [--check] [--assumptions FILE]

With --measure: real passages are encoded into shards on a local Ray, searched as mining searches them, and
loaded into stores with one, two and three signals; bytes and rates go to benchmarks/results/plan.json, whose
content the last line repeats as JSON. --quick takes few passages and writes plan.quick.json instead.

Without: the tables of docs/scale.md are made anew from plan.json, encode.json and the assumptions in
benchmarks/plan_assumptions.json (prices among them: put in your own). --check writes nothing; the exit code
is 1 where the page says something else.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks import plan_tables
from benchmarks.common import RESULTS, machine, write_results
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.storage import atomic_write

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
ASSUMPTIONS = Path(__file__).with_name("plan_assumptions.json")

_BLOCK = re.compile(r"(?P<open><!-- plan:(?P<name>[\w-]+) -->\n).*?(?P<close><!-- /plan -->)", re.DOTALL)

console = Console(stderr=True)


def main(
    measure: Annotated[bool, typer.Option("--measure", help="Measure; write results/plan.json.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few passages, to try it.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if the page is out of date.")] = False,
    assumptions: Annotated[Path, typer.Option(help="JSON, as plan_assumptions.json.")] = ASSUMPTIONS,
) -> None:
    """Measure, or bring docs/scale.md up to date."""
    if measure:
        values = measured(256 if quick else 8192)
        console.print(f"wrote {write_results('plan.quick' if quick else 'plan', values)}")
        print(json.dumps(values))
        return
    old = PAGE.read_text("utf-8")
    try:
        new = fill(old, RESULTS, assumptions)
    except TrichromeError as error:
        raise SystemExit(f"error: {error}") from None
    if new == old:
        print(f"{PAGE.name} is up to date")
    elif check:
        raise SystemExit(f"error: {PAGE.name} is out of date: run python -m benchmarks.plan")
    else:
        with atomic_write(PAGE) as file:
            file.write(new.encode())
        print(f"wrote {PAGE}")


def fill(text: str, results: Path, assumptions: Path = ASSUMPTIONS) -> str:
    """The page with every marked block made anew. TrichromeError: no such table, results that don't fit."""
    assumed = json.loads(assumptions.read_text("utf-8"))
    files = {name: results / f"{name}.json" for name in ("plan", "encode")}
    known = {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.is_file()}

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in plan_tables.TABLES:
            raise TrichromeError(f"no table is called {name!r}; there are {', '.join(plan_tables.TABLES)}")
        if len(known) < len(files):
            missing = next(file.name for name, file in files.items() if name not in known)
            made = f"Not reckoned yet: {missing} is not measured (`python -m benchmarks.plan --measure`).\n"
        else:
            try:
                made = plan_tables.TABLES[name](plan_tables.Figures(**known, assumed=assumed))
            except (KeyError, TypeError) as error:
                raise TrichromeError(
                    f"the results are not of this version ({error!r}); measure again"
                ) from None
        return f"{match['open']}{made}{match['close']}"

    return _BLOCK.sub(block, text)


def measured(count: int) -> dict[str, Any]:
    """Bytes and rates over `count` real passages of the search benchmark."""
    import trichrome
    from benchmarks.search import PASSAGE_TOKENS, passages
    from trichrome.cli.settings import precision
    from trichrome.cluster import Cluster, EncodedCorpus, Encoding, ModelSource, encode_shards, find_parts
    from trichrome.formats.jsonl import write_documents

    dtype = precision("auto")
    encoder = trichrome.load("small", dtype=dtype)
    texts = passages(encoder, count)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = 4
        (folder / "corpus").mkdir()
        for i in range(files):
            part = texts[i * count // files : (i + 1) * count // files]
            write_documents(folder / "corpus" / f"{i}.jsonl", part)
        encoding = Encoding(
            encoder.name, encoder.fingerprint, dtype, encoder.signals, encoder.dense_dim,
            encoder.config.multivector_dim, PASSAGE_TOKENS + 64, 0, chunk=min(1024, count // files),
        )  # fmt: skip
        console.print(f"encode {count} passages in {dtype}, plainly and on a cluster of this machine")
        direct, tokens = _encode_directly(encoder, [d.content for d in texts])
        began: list[float] = []
        ends = [0.0]

        def progress(at: Any) -> None:
            if at.pids and not began:
                began.append(time.perf_counter())
            ends[0] = time.perf_counter()

        out = folder / "out"
        encode_shards(
            find_parts(folder / "corpus", out), out, encoding, ModelSource("small", dtype, cores),
            cluster=Cluster(), progress=progress,
        )  # fmt: skip
        corpus = EncodedCorpus.open(out)
        return {
            "machine": machine(),
            "dtype": dtype,
            "passages": len(corpus),
            "tokens": tokens,
            "characters": sum(len(d.content) for d in texts),
            "passages_per_second": {"encoder": count / direct, "cluster": count / (ends[0] - began[0])},
            "shard_bytes": _column_bytes(corpus.paths),
            "store_bytes": {kind: _store_bytes(corpus, folder, kind) for kind in ("exact", "embedded")},
            "products_per_second": _search_rate(corpus),
            "cores": cores,
        }


def _encode_directly(encoder: Any, texts: list[str]) -> tuple[float, int]:
    """Seconds for all outputs of the texts, and how many tokens were read."""
    read = [0]
    began = time.perf_counter()

    def progress(at: Any) -> None:
        read[0] = at.tokens

    encoder.encode(texts, "passage", multivector_dtype="float16", progress=progress)
    return time.perf_counter() - began, read[0]


def _column_bytes(paths: list[Path]) -> dict[str, int]:
    """Bytes on disk of each column, all shards together; `rest` is what belongs to no column."""
    parquet = require("pyarrow.parquet", "cluster")
    found: dict[str, int] = {"rest": 0}
    for path in paths:
        total = 0
        with parquet.ParquetFile(path) as file:
            for g in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(g)
                for c in range(group.num_columns):
                    column = group.column(c)
                    name = column.path_in_schema.split(".")[0]
                    found[name] = found.get(name, 0) + column.total_compressed_size
                    total += column.total_compressed_size
        found["rest"] += path.stat().st_size - total
    return found


def _store_bytes(corpus: Any, folder: Path, kind: str) -> dict[str, Any]:
    """Bytes of a store's files for dense, for dense + sparse, and for all three; seconds to load all three.

    Each is the difference of two stores, of all passages and of half of them, so that what an empty store
    takes does not count.
    """
    from trichrome.cluster.folder import EncodedCorpus
    from trichrome.cluster.load import create_store_of, load_encoded

    made: dict[str, Any] = {}
    names = corpus.manifest.names
    for signals in (("dense",), ("dense", "sparse"), ("dense", "sparse", "multivector")):
        sizes = []
        for some in (names[: len(names) // 2], names):
            part = EncodedCorpus(
                corpus.out,
                replace(corpus.manifest, names=some),
                corpus.infos[: len(some)],
                corpus.starts[: len(some) + 1],
            )
            view = _only(part, signals)
            place = folder / f"{kind}-{len(signals)}-{len(some)}"
            began = time.perf_counter()
            with create_store_of(view, place, kind=kind) as store:
                load_encoded(store, view)
            seconds = time.perf_counter() - began
            sizes.append((len(part), sum(f.stat().st_blocks * 512 for f in place.rglob("*") if f.is_file())))
        (few, small), (all_of, large) = sizes
        made["+".join(signals)] = (large - small) / (all_of - few)
    made["load_per_second"] = len(corpus) / seconds
    return made


def _only(corpus: Any, signals: tuple[str, ...]) -> Any:
    """The same corpus as if only these outputs had been encoded."""
    from trichrome.cluster.folder import EncodedCorpus

    encoding = replace(
        corpus.encoding,
        outputs=signals,
        multivector_dim=corpus.encoding.multivector_dim if "multivector" in signals else None,
    )
    return EncodedCorpus(corpus.out, replace(corpus.manifest, encoding=encoding), corpus.infos, corpus.starts)


def _search_rate(corpus: Any, queries: int = 256) -> float:
    """Products of a query and a passage a second, on all cores, reading the shards included."""
    from trichrome.cluster.pool import Search
    from trichrome.embeddings import Embeddings

    rng = np.random.default_rng(0)
    asked = rng.standard_normal((queries, corpus.encoding.dense_dim)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    search = Search("dense", Embeddings(asked), 200, None, os.cpu_count() or 1)
    began = time.perf_counter()
    search([(str(path), int(start)) for path, start in zip(corpus.paths, corpus.starts, strict=False)])
    seconds = time.perf_counter() - began
    return float(queries * len(corpus) / seconds)


if __name__ == "__main__":
    typer.run(main)
