"""How fast texts become embeddings on a CPU: trichrome against FlagEmbedding and sentence-transformers.

    python -m benchmarks.encode [--quick] [--only mixed|one-length]

The same weights (`small`, saved in the layout that all three open), the same texts of mixed length, the same
number of threads. Every contender runs in its own process, one after another, for several rounds (the
others' slow default settings once, at the end); ratios are taken within rounds, their median is given.
trichrome and FlagEmbedding make all three outputs, sentence-transformers its dense one. The floor is the
arithmetic: the network's operations at the rate of a large matrix product. Texts of one length, 128 tokens,
show what onnxruntime and int8 gain over torch in float32. --only measures one of the two and keeps the other
as it was. Needs the extras `parity` and `onnx`. The last line is JSON; benchmarks/results/encode.json holds
every measurement.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.common import RESULTS, SHARED_DATA, machine, peak_mib, write_results
from trichrome.encoder import TruncationWarning

SOURCES = ("xquad-pool", "cranfield", "jaquad-dev", "afriqa-dev", "cosqa-dev", "cmrc-dev", "man-long")
BATCHES = (4, 8, 16, 32, 64, 128, 256)
MAX_TOKENS = 512
#: The length at which precisions are compared.
LENGTH = 128
#: trichrome in all its ways; what follows "onnx" is the end of an exported folder's name.
OURS = ("trichrome", "trichrome-bf16", "trichrome-onnx", "trichrome-onnx-int8")
MATRIX = 4096
NO_PROMPTS = {"query": "", "passage": ""}


def mixed_texts(count: int, seed: int = 0) -> list[str]:
    """Real passages of 7 sources and queries, a few tokens to more than 512 each; without the data, made-up
    words of the same spread of lengths."""
    draw = random.Random(seed)
    texts: list[str] = []
    for source in SOURCES:
        folder = SHARED_DATA / "eval" / source
        if not folder.is_dir():
            continue
        for name, share in (("corpus", 0.85), ("queries", 0.15)):
            with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
                rows = [json.loads(line)["text"] for line in file]
            want = int(count * share / len(SOURCES)) + 1
            texts += draw.sample(rows, min(want, len(rows)))
    if not texts:
        words = [f"{a}{b}{c}" for a in "kltmrs" for b in "aeiou" for c in ("n", "r", "st", "")]
        lengths = [min(400, max(3, int(draw.lognormvariate(4.3, 0.9)))) for _ in range(count)]
        texts = [" ".join(draw.choices(words, k=n)) for n in lengths]
    draw.shuffle(texts)
    return [t for t in texts if t.strip()][:count]


# contenders: each runs in a process of its own, and times only the encoding


def contend(name: str, folder: str, texts: list[str], batch: int, max_tokens: int) -> dict[str, Any]:
    """Encode all texts once after a short warm-up; seconds and peak memory of this process."""
    import torch

    torch.set_num_threads(2)
    warm = sorted(texts, key=len)[:: max(1, len(texts) // 8)]
    if name.startswith("trichrome"):
        import trichrome

        if "onnx" in name:
            encoder = trichrome.load(folder + name.removeprefix("trichrome"), max_tokens=max_tokens)
        else:
            dtype = "bfloat16" if name.endswith("bf16") else "float32"
            encoder = trichrome.load(
                folder, device="cpu", dtype=dtype, prompts=NO_PROMPTS, max_tokens=max_tokens
            )
        warnings.simplefilter("ignore", TruncationWarning)

        def run(some: list[str]) -> object:
            return encoder.encode(some)

    elif name == "flagembedding":
        from FlagEmbedding import BGEM3FlagModel

        m3 = BGEM3FlagModel(folder, devices="cpu", pooling_method="mean", colbert_dim=128)

        def run(some: list[str]) -> object:
            settings: dict[str, Any] = {"batch_size": batch} if batch else {}
            return m3.encode(
                some,
                max_length=MAX_TOKENS,
                return_dense=True,
                return_sparse=True,
                return_colbert_vecs=True,
                **settings,
            )

    else:
        from sentence_transformers import SentenceTransformer

        dense = SentenceTransformer(folder, device="cpu")

        def run(some: list[str]) -> object:
            return dense.encode(some, **({"batch_size": batch} if batch else {}))

    run(warm)
    start = time.perf_counter()
    run(texts)
    seconds = time.perf_counter() - start
    peak = peak_mib()
    return {"contender": name, "batch": batch, "seconds": seconds, "peak_mib": peak}


def matrix_rate(dtype: str) -> dict[str, Any]:
    """Operations a second of a large matrix product, the best of five."""
    import torch

    torch.set_num_threads(2)
    a = torch.randn(MATRIX, MATRIX).to(getattr(torch, dtype))
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return {"rate": 2 * MATRIX**3 / best}


def operations(lengths: list[int]) -> float:
    """Multiplications and additions of the network and its heads for texts of these token counts."""
    layers, d, f, heads_out = 12, 384, 1536, 129
    per_token = layers * 2 * (4 * d * d + 2 * d * f) + 2 * d * heads_out
    return float(sum(n * per_token + layers * 4 * n * n * d for n in lengths))


def child(*arguments: str) -> dict[str, Any]:
    """Run one contender in a fresh process and read its last line."""
    command = [sys.executable, "-m", "benchmarks.encode", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main(
    quick: Annotated[bool, typer.Option(help="Few texts, one round: a check, not a measurement.")] = False,
    texts: int = 2000,
    rounds: int = 3,
    only: Annotated[str, typer.Option(help="mixed: texts of mixed length; one-length: of 128 tokens.")] = "",
    contender: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[str, typer.Option(hidden=True)] = "",
    file: Annotated[str, typer.Option(hidden=True)] = "",
    batch: Annotated[int, typer.Option(hidden=True)] = 0,
    max_tokens: Annotated[int, typer.Option(hidden=True)] = MAX_TOKENS,
) -> None:
    """Compare encoders on a CPU."""
    if contender.startswith("matrix"):
        print(json.dumps(matrix_rate(contender.removeprefix("matrix-"))))
        return
    if contender:
        print(json.dumps(contend(contender, folder, json.loads(Path(file).read_text()), batch, max_tokens)))
        return
    if only not in ("", "mixed", "one-length"):
        raise SystemExit(f"error: --only takes mixed or one-length, got {only}")
    if quick:
        texts, rounds = 96, 1
    name = "encode.quick" if quick else "encode"
    kept = RESULTS / f"{name}.json"
    results: dict[str, Any] = json.loads(kept.read_text("utf-8")) if only and kept.is_file() else {}
    results["machine"] = machine()
    with tempfile.TemporaryDirectory() as temporary:
        measured = Measured(Path(temporary), mixed_texts(texts), rounds)
        if only != "one-length":
            results |= measured.mixed()
        if only != "mixed":
            results["one_length"] = measured.one_length()
    print(f"wrote {write_results(name, results)}")
    gains = results.get("one_length", {}).get("gains", {})
    print(json.dumps(results.get("ratios", {}) | {f"ratio_{k}_at_{LENGTH}": v for k, v in gains.items()}))


class Measured:
    """The texts, the model in every layout, and the runs over them."""

    def __init__(self, work: Path, texts: list[str], rounds: int) -> None:
        import trichrome
        from trichrome.encoder import save
        from trichrome.encoder.export import export_onnx

        self.work, self.texts, self.rounds = work, texts, rounds
        encoder = trichrome.load("small", device="cpu", max_tokens=MAX_TOKENS)
        self.tokens = [min(MAX_TOKENS, len(ids) + 2) for ids in encoder.token_ids(texts)]
        save(encoder, work / "model", "flagembedding")
        encoder = trichrome.load("small", device="cpu", prompts=NO_PROMPTS, max_tokens=MAX_TOKENS)
        export_onnx(encoder, work / "model-onnx")
        export_onnx(encoder, work / "model-onnx-int8", "int8")

    def file(self, name: str, texts: list[str]) -> Path:
        """Texts for a contender's process."""
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(texts))
        return path

    def run(self, name: str, file: Path, batch: int = 0, max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
        """One contender over the texts of a file, in a process of its own."""
        settings = {"contender": name, "folder": self.work / "model", "file": file, "batch": batch}
        arguments = [f"--{key}={value}" for key, value in settings.items()]
        made = child(*arguments, f"--max-tokens={max_tokens}")
        print(
            f"{name:24} batch {batch or 'default':>7}  {made['seconds']:8.2f} s  {made['peak_mib']:7.0f} MiB",
            flush=True,
        )
        return made

    def batch_sizes(self) -> dict[str, dict[int, float]]:
        """Seconds by batch size of each of the others, on a tenth of the texts."""
        some = self.file("some", self.texts[: max(32, len(self.texts) // 10)])
        search: dict[str, dict[int, float]] = {}
        for name in ("flagembedding", "sentence-transformers"):
            tried = search[name] = {}
            for b in BATCHES:
                tried[b] = self.run(name, some, b)["seconds"]
                if sum(seconds > 1.2 * min(tried.values()) for seconds in list(tried.values())[-2:]) == 2:
                    break  # slower twice in a row: larger batches only pad more
        return search

    def mixed(self) -> dict[str, Any]:
        """Search the others' best batch sizes, then run the rounds."""
        print(f"{len(self.texts)} texts, {sum(self.tokens)} tokens; searching batch sizes on a tenth of them")
        everything, search = self.file("texts", self.texts), self.batch_sizes()
        best = {name: min(tried, key=tried.__getitem__) for name, tried in search.items()}
        contenders = [
            *((name, 0) for name in OURS),
            ("flagembedding", best["flagembedding"]),
            ("sentence-transformers", best["sentence-transformers"]),
        ]
        at_default = [("flagembedding", 0), ("sentence-transformers", 0)]  # slow: in the last round only
        work_done = operations(self.tokens)
        rows: list[dict[str, Any]] = []
        for r in range(self.rounds):
            print(f"round {r + 1} of {self.rounds}")
            rates = {k: child("--contender", f"matrix-{k}")["rate"] for k in ("float32", "bfloat16")}
            row: dict[str, Any] = {"matrix_rate": rates}
            for name, batch in contenders + (at_default if r == self.rounds - 1 else []):
                made = self.run(name, everything, batch)
                row[f"{name}@{batch or 'default'}"] = made
                if name in ("trichrome", "trichrome-bf16"):
                    kind = "bfloat16" if name.endswith("bf16") else "float32"
                    again = child("--contender", f"matrix-{kind}")["rate"]
                    made["fraction_of_matmul"] = work_done / made["seconds"] / max(rates[kind], again)
            rows.append(row)
        return {
            "texts": len(self.texts),
            "tokens": sum(self.tokens),
            "real_texts": SHARED_DATA.is_dir(),
            "operations": work_done,
            "best_batch": best,
            "batch_search_seconds": search,
            "rounds": rows,
            "ratios": ratios(rows, best),
        }

    def one_length(self) -> dict[str, Any]:
        """trichrome in all its ways on texts that fill one length."""
        long = [text for text, n in zip(self.texts, self.tokens, strict=True) if n >= LENGTH]
        file = self.file("long", long)
        print(f"{len(long)} texts cut to {LENGTH} tokens")
        rows = [
            {name: self.run(name, file, max_tokens=LENGTH)["seconds"] for name in OURS}
            for _ in range(self.rounds)
        ]
        gains = {n: round(median(row["trichrome"] / row[n] for row in rows), 3) for n in OURS[1:]}
        return {"tokens": LENGTH, "texts": len(long), "rounds": rows, "gains": gains}


def ratios(rows: list[dict[str, Any]], best: dict[str, int]) -> dict[str, float]:
    """Medians over the rounds: theirs / ours in time, ours / theirs in memory."""

    def ratio(ours: str, theirs: str, figure: str = "seconds") -> float:
        pairs = [(r[f"{ours}@default"][figure], r[theirs][figure]) for r in rows if theirs in r]
        value: float = median(t / o if figure == "seconds" else o / t for o, t in pairs)
        return round(value, 3)

    def fraction(name: str) -> float:
        value: float = median(r[f"{name}@default"]["fraction_of_matmul"] for r in rows)
        return round(value, 3)

    fe, st = (f"{name}@{best[name]}" for name in ("flagembedding", "sentence-transformers"))
    return {
        "ratio_flagembedding_default": ratio("trichrome", "flagembedding@default"),
        "ratio_flagembedding_best": ratio("trichrome", fe),
        "ratio_flagembedding_best_bf16": ratio("trichrome-bf16", fe),
        "ratio_sentence_transformers_default": ratio("trichrome", "sentence-transformers@default"),
        "ratio_sentence_transformers_best": ratio("trichrome", st),
        "ratio_peak_memory_default": ratio("trichrome", "flagembedding@default", "peak_mib"),
        "ratio_peak_memory_best": ratio("trichrome", fe, "peak_mib"),
        "fraction_of_matmul": fraction("trichrome"),
        "fraction_of_matmul_bf16": fraction("trichrome-bf16"),
    }


if __name__ == "__main__":
    typer.run(main)
