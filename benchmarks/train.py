"""What a unified training step costs: trichrome against FlagEmbedding, and what split-batch makes room for.

    python -m benchmarks.train [--quick] [--only step|room]

1. One step of unified fine-tuning with self-distillation (three heads, their sum as teacher, AdamW, float32)
   of the same two-layer XLM-R with the full vocabulary of 250,002 words, on the same batch: a few queries,
   each with a group of 8 passages of 256 tokens. Contenders run in processes of their own, in turn, for
   several rounds; ratios (ours / theirs) are taken within rounds and their median is given. FlagEmbedding is
   what its trainer runs: EncoderOnlyEmbedderM3Model with unified_finetuning and use_self_distill. Dropout is
   off, so that both must compute the same loss; a run where they don't stops. Peak memory is that of the
   whole process: libraries, weights, gradients and AdamW's moments included.
2. The largest batch of pairs (query, passage) whose step stays within a fixed memory, with and without
   split-batch, at several passage lengths. Found by measuring: each try is a process of its own.

--only measures one of the two and keeps the other as it was. Needs the extra `parity`. The last line is JSON;
benchmarks/results/train.json holds every measurement.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.common import RESULTS, machine, peak_mib, write_results

VOCABULARY, HIDDEN, LAYERS, HEADS, POSITIONS = 250_002, 384, 2, 12, 4098
TEMPERATURE, RATE = 0.02, 1e-5
THREADS = 2
#: What both contenders' first losses may differ by, relatively.
SAME_LOSS = 1e-3
#: Passage lengths of the second part; a sub-batch holds so many tokens, or one text.
LENGTHS: tuple[int, ...] = (512, 1024, 4096)
SUB_BATCH = 4096
#: The largest batch is known this well (relatively), or after so many tries between two that bracket it.
NEAR, TRIES = 0.05, 5


@dataclass(frozen=True)
class Work:
    """One training batch: `queries` queries of query_tokens, group passages each of passage_tokens; so many
    timed steps after one that is not. sub_batch: tokens of a sub-batch, 0 for one pass over all."""

    queries: int
    group: int
    query_tokens: int
    passage_tokens: int
    steps: int
    sub_batch: int = 0


def write_model(folder: Path) -> None:
    """A random XLM-R with both heads, in the layout that both libraries open; no dropout."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    from trichrome.encoder import BackboneConfig, Encoder, EncoderConfig, save
    from trichrome.encoder.heads import Heads, Network
    from trichrome.encoder.model import Backbone

    shape = BackboneConfig(VOCABULARY, HIDDEN, LAYERS, HEADS, 4 * HIDDEN, POSITIONS, 2, dropout=0.0)
    config = EncoderConfig(
        "random",
        max_tokens=shape.max_tokens,
        cls_id=0,
        eos_id=2,
        pad_id=1,
        unscored_ids=(0, 1, 2, 3),
        multivector_dim=HIDDEN,
        backbone=shape,
    )
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"piece{i}" for i in range(4, VOCABULARY))]
    tokenizer = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=3))
    torch.manual_seed(0)
    network = Network(Backbone(shape), Heads(config, HIDDEN))
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.02)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(weight)
    save(Encoder(network, tokenizer, config, device="cpu"), folder, "flagembedding")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_probs_dropout_prob": 0.0}))


def draw_ids(work: Work) -> tuple[Any, Any]:
    """Token ids of the queries [Q, Lq] and passages [Q·group, Lp]; a passage repeats some of its query's."""
    import torch

    torch.manual_seed(1)
    q = torch.randint(4, VOCABULARY, (work.queries, work.query_tokens))
    p = torch.randint(4, VOCABULARY, (work.queries * work.group, work.passage_tokens))
    shared = min(work.query_tokens, work.passage_tokens) // 2
    p[:, :shared] = q.repeat_interleave(work.group, 0)[:, :shared]
    for ids in (q, p):
        ids[:, 0], ids[:, -1] = 0, 2
    return q, p


# contenders: each runs in a process of its own


def contend(name: str, folder: str, work: Work, most: int) -> dict[str, Any]:
    """Take steps; seconds of each but the first, the first loss, and the peak memory of this process.

    most: MiB that it may ask for, 0 for any; where a step wants more, all three are absent.
    """
    import torch

    if most:
        resource.setrlimit(resource.RLIMIT_DATA, (most << 20, most << 20))

    torch.set_num_threads(THREADS)
    losses, seconds = [], []
    try:
        step, parameters = {"trichrome": _trichrome, "flagembedding": _flagembedding}[name](folder, work)
        optimiser = torch.optim.AdamW(parameters, lr=RATE, fused=True)  # as the Trainer of transformers does
        for _ in range(work.steps + 1):
            start = time.perf_counter()
            optimiser.zero_grad()
            losses.append(step())
            optimiser.step()
            seconds.append(time.perf_counter() - start)
    except RuntimeError as error:
        if not most or "can't allocate memory" not in str(error):
            raise
        return {"first_loss": None, "seconds": [], "peak_mib": None}
    peak = peak_mib()
    return {"first_loss": losses[0], "seconds": seconds[1:], "peak_mib": peak}


Step = Callable[[], float]


def _trichrome(folder: str, work: Work) -> tuple[Step, list[Any]]:
    import torch

    import trichrome
    from trichrome.encoder.batching import collate
    from trichrome.encoder.tokenizer import Tokens
    from trichrome.training.encoded import Encoded, score_matrices
    from trichrome.training.losses import unified
    from trichrome.training.split_batch import split_batch_backward, sub_batches
    from trichrome.training.target import Target

    encoder = trichrome.load(folder, device="cpu", dtype="float32")
    network = encoder.network.requires_grad_(True).train()
    sides = []
    for ids in draw_ids(work):
        scored = [False] + [True] * (ids.shape[1] - 1)  # the CLS token speaks for no part of the text
        texts = [Tokens(row, scored, cut=0) for row in ids.tolist()]
        sides.append(sub_batches(texts, work.sub_batch, 1) if work.sub_batch else [collate(texts, 1)])
    queries, passages = sides
    positive = torch.zeros(work.queries, work.queries * work.group, dtype=torch.bool)
    positive[torch.arange(work.queries), torch.arange(work.queries) * work.group] = True
    target = Target(positive, torch.ones_like(positive))

    def loss(q: Encoded, p: Encoded) -> torch.Tensor:
        return unified(score_matrices(q, p), target, temperature=TEMPERATURE)["total"]

    def step() -> float:
        return split_batch_backward(network, queries, passages, loss, encoder.signals).item()

    return step, list(network.parameters())


def _flagembedding(folder: str, work: Work) -> tuple[Step, list[Any]]:
    import torch
    from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
    from FlagEmbedding.finetune.embedder.encoder_only.m3.runner import EncoderOnlyEmbedderM3Runner
    from transformers import AutoTokenizer

    model = EncoderOnlyEmbedderM3Model(
        EncoderOnlyEmbedderM3Runner.get_model(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        temperature=TEMPERATURE,
        normalize_embeddings=True,
        unified_finetuning=True,
        use_self_distill=True,
    ).train()
    q, p = ({"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in draw_ids(work))

    def step() -> float:
        value = model(queries=q, passages=p).loss
        value.backward()
        return float(value.detach())

    return step, list(model.parameters())


# comparisons


def measure(name: str, folder: Path, work: Work, most: int = 0) -> dict[str, Any]:
    """Run one contender in a fresh process and read its last line. most: MiB it may ask for, 0 for any."""
    spec = json.dumps(asdict(work))
    command = [sys.executable, "-m", "benchmarks.train", "--contender", name]
    done = subprocess.run(
        [*command, "--folder", str(folder), "--work", spec, "--most", str(most)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} {spec} failed (exit {done.returncode}):\n{done.stderr[-2000:]}")
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    say = f"{name:14} {work.queries:4} × {work.group} × {work.passage_tokens:4} tokens"
    sub = f"sub-batches of {work.sub_batch}" if work.sub_batch else "one pass"
    found = f"more than {most} MiB"
    if made["peak_mib"] is not None:
        found = f"{median(made['seconds']):7.2f} s/step {made['peak_mib']:7.0f} MiB"
    print(f"{say}  {sub:20} {found}", flush=True)
    return made


def compare(folder: Path, work: Work, rounds: int) -> dict[str, Any]:
    """Both contenders in turn; the medians of the rounds' ratios."""
    rows = []
    for _ in range(rounds):
        row = {name: measure(name, folder, work) for name in ("trichrome", "flagembedding")}
        ours, theirs = (row[name]["first_loss"] for name in row)
        if abs(ours - theirs) > SAME_LOSS * abs(theirs):
            raise SystemExit(f"error: the losses differ: {ours} by trichrome, {theirs} by FlagEmbedding")
        rows.append(row)

    def ratio(figure: Callable[[dict[str, Any]], float]) -> float:
        return round(median(figure(r["trichrome"]) / figure(r["flagembedding"]) for r in rows), 4)

    return {
        "work": asdict(work),
        "rounds": rows,
        "ratio_peak_memory": ratio(lambda made: made["peak_mib"]),
        "ratio_step_time": ratio(lambda made: median(made["seconds"])),
    }


def largest(folder: Path, tokens: int, sub_batch: int, limit: int) -> dict[str, Any]:
    """The largest number of pairs whose step peaks below `limit` MiB, with every try.

    Sizes double until one takes more; then each try is where a line through the two tries nearest to the
    limit, one on each side, reaches it. A try that asks for twice the limit is stopped.
    """
    peaks: dict[int, float | None] = {}  # None where a try was stopped

    def fits(pairs: int) -> bool:
        made = measure("trichrome", folder, Work(pairs, 1, 32, tokens, 1, sub_batch), 2 * limit)
        peaks[pairs] = made["peak_mib"]
        return made["peak_mib"] is not None and bool(made["peak_mib"] <= limit)

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    for _ in range(TRIES):
        below, above = peaks.get(low), peaks[high]
        if high - low <= max(1, NEAR * low) or (below and limit - below < NEAR / 2 * limit):
            break
        share = (limit - below) / (above - below) if below and above else 0.5
        middle = min(high - 1, max(low + 1, round(low + share * (high - low))))
        low, high = (middle, high) if fits(middle) else (low, middle)
    return {"pairs": low, "peak_mib_by_pairs": dict(sorted(peaks.items()))}


def main(
    quick: Annotated[bool, typer.Option(help="One query, one round, one length: a check.")] = False,
    queries: Annotated[int, typer.Option(help="Of the first part; FlagEmbedding takes 4 GB for each.")] = 3,
    rounds: int = 3,
    steps: int = 2,
    memory: Annotated[int, typer.Option(help="MiB of the second part.")] = 2560,
    only: Annotated[str, typer.Option(help="step: the first part; room: the second.")] = "",
    contender: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[str, typer.Option(hidden=True)] = "",
    work: Annotated[str, typer.Option(hidden=True)] = "",
    most: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Compare training steps."""
    if contender:
        print(json.dumps(contend(contender, folder, Work(**json.loads(work)), most)))
        return
    if only not in ("", "step", "room"):
        raise SystemExit(f"error: --only takes step or room, got {only}")
    lengths = LENGTHS
    if quick:
        queries, rounds, steps, lengths = 1, 1, 1, (512,)
    name = "train.quick" if quick else "train"
    kept = RESULTS / f"{name}.json"
    results: dict[str, Any] = json.loads(kept.read_text("utf-8")) if only and kept.is_file() else {}
    results["machine"] = machine()
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        write_model(model)
        if only != "room":
            results["unified_step"] = compare(model, Work(queries, 8, 32, 256, steps), rounds)
        if only != "step":
            results["memory_mib"] = memory
            results["largest_batch"] = {}
            for tokens in lengths:
                whole, split = (largest(model, tokens, sub, memory) for sub in (0, SUB_BATCH))
                gain = round(split["pairs"] / whole["pairs"], 2) if whole["pairs"] else None
                row = {"one_pass": whole, "split_batch": split, "gain": gain}
                results["largest_batch"][str(tokens)] = row
    step, room = results.get("unified_step", {}), results.get("largest_batch", {})
    results["summary"] = {
        "ratio_peak_memory": step.get("ratio_peak_memory"),
        "ratio_step_time": step.get("ratio_step_time"),
        "split_batch_gain": {tokens: found["gain"] for tokens, found in room.items()},
    }
    print(f"wrote {write_results(name, results)}")
    print(json.dumps(results["summary"]))


if __name__ == "__main__":
    typer.run(main)
