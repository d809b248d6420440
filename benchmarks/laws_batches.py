"""Laws about batches: split-batch is exact and saves memory (f), grouping by length saves padding (g).

    python -m benchmarks.laws_batches WAY MODEL DATA STEP TOKENS

is what (f) runs for every measurement of memory, in a process of its own: one step, then its memory as JSON.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import trichrome
from benchmarks.laws_common import Law, Room, all_texts, drawn_rows, over_seeds, sibling
from trichrome.embeddings import SIGNALS
from trichrome.encoder import Encoder, save
from trichrome.encoder.batching import collate
from trichrome.encoder.heads import Network
from trichrome.training.batch import TrainingBatch
from trichrome.training.batches import BatchPlan, BatchSettings
from trichrome.training.encoded import Encoded, encode, score_matrices
from trichrome.training.examples import Examples
from trichrome.training.losses import unified
from trichrome.training.split_batch import split_batch_backward, sub_batches

#: Rounding may change a loss or gradient by so much, relative to it.
EXACT = 1e-5
#: The sub-batches of (f) have this share of the batch's tokens; its exactness is tested on smaller batches of
#: the first layers, in float64, so that nothing but the method makes a difference.
_PART, _EXACT_TOKENS, _EXACT_LAYERS = 8, 2048, 4
_QUERY_TOKENS, _PASSAGE_TOKENS = 48, 256
#: (f) and (g) draw their rows from these files.
_SPLIT_FILES = ("jaquad-train", "iapp-train")
_PADDING_FILES = ("jaquad-train", "iapp-train", "gnome", "lohelp", "man")


# (f)


def split_batch(room: Room) -> Law:
    """(f) One step with split-batch against the same step without."""
    sizes, work = room.sizes, room.work / "f"
    rows = max(40, sizes.rows // 4)
    data = [drawn_rows(room.train(name), rows, work / f"{name}.jsonl") for name in _SPLIT_FILES]
    folder = work / "model"
    if not folder.is_dir():
        # the words that these texts lack have no gradient, and take memory alone
        save(sibling(trichrome.load("small", device="cpu"), all_texts(data)), folder)

    losses, gradients = [], []
    network, batch_of = _exact_network(folder, data, min(_EXACT_TOKENS, sizes.batch_tokens))
    for step in range(sizes.seeds):
        loss, gradient = exactness(network, batch_of(step), batch_of.pad, batch_of.tokens // _PART)
        room.tell(f"f: batch {step + 1}, loss differs by {loss:.1e}, gradients by {gradient:.1e}")
        losses.append(loss)
        gradients.append(gradient)
    del network, batch_of

    memory: list[dict[str, float]] = []
    for step in range(sizes.seeds):
        memory.append({way: _child(way, folder, data, step, sizes.batch_tokens) for way in ("full", "split")})
        room.tell(f"f: batch {step + 1}, " + ", ".join(f"{w} {m:.0f} MiB" for w, m in memory[-1].items()))
    ratios = over_seeds([row["full"] / row["split"] for row in memory])
    worst = max(*losses, *gradients)
    return Law(
        "(f) split-batch gives the same loss and gradients, and takes less activation memory; effect: peak "
        "memory without ÷ with split-batch",
        ratios,
        ratios.low > 1 and worst <= EXACT,
        {
            "largest_relative_difference": {"loss": max(losses), "gradient": max(gradients)},
            "precision": "float64 for the differences, bfloat16 autocast for memory",
            "peak_mib_above_the_model": memory,
            "batch_tokens": sizes.batch_tokens,
            "sub_batch_tokens": sizes.batch_tokens // _PART,
            "interval": f"Student's over {sizes.seeds} batches",
        },
    )


class Batches:
    """The batches of some files for one encoder: step → batch."""

    def __init__(self, encoder: Encoder, data: list[Path], tokens: int) -> None:
        settings = BatchSettings(
            token_budget=tokens,
            group_size=1,
            query_tokens=_QUERY_TOKENS,
            passage_tokens=min(_PASSAGE_TOKENS, encoder.config.max_tokens),
            groups=(_PASSAGE_TOKENS,),  # one group: short and long texts in one batch
            by="task",
        )
        self._plan = BatchPlan(Examples.open(data), encoder.tokenizer, settings, cache=data[0].parent)
        self.pad, self.tokens = encoder.config.pad_id, tokens

    def __call__(self, step: int) -> TrainingBatch:
        """Steps beyond an epoch begin anew."""
        return self._plan.batch(step // self._plan.steps(), step % self._plan.steps())


def _exact_network(folder: Path, data: list[Path], tokens: int) -> tuple[Network, Batches]:
    encoder = sibling(trichrome.load(folder, device="cpu"), all_texts(data), _EXACT_LAYERS)
    return encoder.network.double(), Batches(encoder, data, tokens)


def exactness(network: Network, batch: TrainingBatch, pad: int, part: int) -> tuple[float, float]:
    """How far split-batch is from one pass over the whole batch, relative: of the loss, and the largest of
    all parameters' gradients (norm of the difference by norm)."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    queries, passages = collate(batch.queries, pad), collate(batch.passages, pad)
    whole = _loss(batch)(encode(network, queries, SIGNALS), encode(network, passages, SIGNALS))
    whole.backward()  # type: ignore[no-untyped-call]
    wanted = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    loss = _split_step(network, batch, pad, part)
    apart = [0.0]
    for name, gradient in wanted.items():
        got = parameters[name].grad
        norm = gradient.norm().item()
        apart.append(float("inf") if got is None else (got - gradient).norm().item() / (norm or 1.0))
    network.zero_grad(set_to_none=True)
    return abs(loss.item() - whole.item()) / abs(whole.item()), max(apart)


def _loss(batch: TrainingBatch) -> Callable[[Encoded, Encoded], Tensor]:
    """The M3 objective with self-distillation."""

    def loss(queries: Encoded, passages: Encoded) -> Tensor:
        return unified(score_matrices(queries, passages), batch.target)["total"]

    return loss


def _split_step(network: Network, batch: TrainingBatch, pad: int, part: int) -> Tensor:
    sides = [sub_batches(texts, part, pad) for texts in (batch.queries, batch.passages)]
    return split_batch_backward(network, sides[0], sides[1], _loss(batch), SIGNALS)


def activation_memory(way: str, folder: Path, data: list[Path], step: int, tokens: int) -> float:
    """MiB that one step takes at its peak beyond the model, its gradients and what libraries keep.

    way: "full" or "split". Linux only, and meant for a process of its own.
    """
    encoder = trichrome.load(folder, device="cpu", dtype="float32")
    network = encoder.network.train()
    network.autocast = torch.bfloat16
    batches = Batches(encoder, data, tokens)
    batch = batches(step)
    part = tokens if way == "full" else tokens // _PART
    if way == "full":
        part = 1 << 40  # one sub-batch on each side
    tiny = replace(
        batch,
        queries=batch.queries[:2],
        passages=batch.passages[:2],
        target=replace(batch.target, positive=torch.eye(2, dtype=torch.bool), mask=torch.ones(2, 2) > 0),
    )
    _split_step(network, tiny, batches.pad, part)  # gradients are there from now on
    network.zero_grad(set_to_none=False)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    _split_step(network, batch, batches.pad, part)
    return _status("VmHWM") - before


def _status(name: str) -> float:
    """A size of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


def _child(way: str, folder: Path, data: list[Path], step: int, tokens: int) -> float:
    arguments = [way, str(folder), ",".join(map(str, data)), str(step), str(tokens)]
    command = [sys.executable, "-m", "benchmarks.laws_batches", *arguments]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


# (g)


def padding(room: Room) -> Law:
    """(g) The padding of batches of real data, with and without length groups, over several seeds."""
    work = room.work / "g"
    rows = room.sizes.padding_rows
    data = [drawn_rows(room.train(name), rows, work / f"{name}.jsonl") for name in _PADDING_FILES]
    encoder = trichrome.load("small-base", new_heads=trichrome.NewHeads(), device="cpu")
    longest = 2048  # what the built-in model's long stage reads, at most
    reader = replace(encoder.config, max_tokens=longest, backbone=None)
    encoder.tokenizer.config = reader
    examples = Examples.open(data, cache=work)
    shares: dict[str, list[float]] = {"not grouped": [], "grouped": []}
    for seed in range(room.sizes.seeds):
        for name, values in shares.items():
            settings = BatchSettings(
                group_size=1, passage_tokens=longest, by="task", grouped=name == "grouped", seed=seed
            )
            plan = BatchPlan(examples, encoder.tokenizer, settings, cache=work)
            values.append(100 * plan.padding_share())
        room.tell(f"g: seed {seed}, " + ", ".join(f"{n} {v[-1]:.1f} %" for n, v in shares.items()))
    saved = over_seeds([a - b for a, b in zip(shares["not grouped"], shares["grouped"], strict=True)])
    return Law(
        "(g) grouping by length cuts the share of padding; effect: percentage points less of it",
        saved,
        saved.low > 0,
        {
            "padding_percent": {name: [round(v, 3) for v in values] for name, values in shares.items()},
            "files": list(_PADDING_FILES),
            "rows": len(examples),
            "passage_tokens": longest,
            "interval": f"Student's over {room.sizes.seeds} seeds",
        },
    )


if __name__ == "__main__":
    given = sys.argv[1:]
    files = [Path(path) for path in given[2].split(",")]
    print(json.dumps(activation_memory(given[0], Path(given[1]), files, int(given[3]), int(given[4]))))
