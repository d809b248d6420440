"""The seven laws that any M3 model has to show, on real data with `small` or a smaller sibling.

    python -m benchmarks.laws [--quick] [--only a,c]

(a) self-distillation helps sparse most and harms none; (b) All > Dense+Sparse > Dense and Multi > Dense
within languages; (c) Sparse > Dense on long documents, and far below it across languages; (d) MCLS lifts a
dense model that saw no long documents; (e) RetroMAE, contrastive pre-training and fine-tuning each add;
(f) split-batch is exact and saves memory; (g) grouping by length saves padding.

Every law is written to benchmarks/results/laws.json as soon as it is done: effect, interval (95 %; paired
bootstrap over queries, or Student's over five repetitions), whether it holds. Sizes and rates were set
before the first run, and what comes out is written, whatever it is. Finished laws, and training runs that
were stopped, are taken from --work. The last line is JSON.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import trichrome
from benchmarks.common import RESULTS, SHARED_DATA, machine, write_results
from benchmarks.laws_batches import padding, split_batch
from benchmarks.laws_common import QUICK, Law, Room, Sizes
from benchmarks.laws_retrieval import mcls, modes, self_distillation, sparse_and_dense
from benchmarks.laws_stages import stages
from trichrome.encoder.small import WEIGHTS
from trichrome.errors import TrichromeError
from trichrome.storage import default_cache, write_json

LAWS: Mapping[str, Callable[[Room], Law]] = {
    "a": self_distillation,
    "b": modes,
    "c": sparse_and_dense,
    "d": mcls,
    "e": stages,
    "f": split_batch,
    "g": padding,
}
#: What the last line tells of each law.
SHOWN = ("effect", "low", "high", "holds")

console = Console(stderr=True)


def main(
    quick: Annotated[bool, typer.Option(help="A few steps and queries: a check, not a measurement.")] = False,
    only: Annotated[str, typer.Option(help="Comma-separated letters.")] = ",".join(LAWS),
    data: Annotated[Path, typer.Option(help="Folder with train/ and eval/.")] = SHARED_DATA,
    work: Annotated[
        Path | None, typer.Option(help="For models and mined data; the cache folder by default.")
    ] = None,
    max_queries: Annotated[
        int, typer.Option(help="Of each task in (b) and (c); as benchmarks.quality had, its cache serves.")
    ] = 1500,
) -> None:
    """Test the laws."""
    letters = [letter.strip() for letter in only.split(",")]
    if unknown := sorted(set(letters) - set(LAWS)):
        raise SystemExit(f"error: there is no law {', '.join(unknown)}; there are {', '.join(LAWS)}")
    if not (data / "train").is_dir() or not (data / "eval").is_dir():
        raise SystemExit(f"error: no train/ and eval/ at {data}; give their folder with --data")
    sizes = QUICK if quick else replace(Sizes(), queries=max_queries)
    folder = (work or default_cache() / "laws") / ("quick" if quick else "full")
    start = time.perf_counter()

    def tell(line: str) -> None:
        console.print(f"{time.perf_counter() - start:7.0f} s  {line}", highlight=False, soft_wrap=True)

    room = Room(data, folder, sizes, tell)
    results = _written(quick)
    for letter in letters:
        results[letter] = _law(letter, room)
        results = dict(sorted(results.items()))
        path = write_results(_name(quick), results)
        tell(f"({letter}) {json.dumps({k: results[letter][k] for k in SHOWN})}, wrote {path}")
    print(json.dumps({letter: {k: results[letter][k] for k in SHOWN} for letter in letters}))


def _law(letter: str, room: Room) -> dict[str, Any]:
    """One law's result, computed now unless --work has it for these sizes and this `small`."""
    digest = hashlib.sha256(f"{trichrome.__version__} {room.sizes}".encode())
    for file in sorted(WEIGHTS.iterdir()):
        digest.update(file.read_bytes())
    path = room.work / "finished" / f"{letter}-{digest.hexdigest()[:16]}.json"
    if path.is_file():
        room.tell(f"({letter}) was finished before, see {path}")
        known: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return known
    start = time.perf_counter()
    try:
        law = LAWS[letter](room)
    except TrichromeError as error:
        raise SystemExit(f"error: law ({letter}): {error}") from None
    result = law.to_json()
    result["details"] |= {"seconds": round(time.perf_counter() - start, 1), "machine": machine()}
    write_json(path, result)
    return result


def _name(quick: bool) -> str:
    return "laws.quick" if quick else "laws"


def _written(quick: bool) -> dict[str, Any]:
    """The results of earlier runs, which those of other laws join."""
    path = RESULTS / f"{_name(quick)}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {letter: found[letter] for letter in LAWS if letter in found}


if __name__ == "__main__":
    typer.run(main)
