"""The stages of the M3 recipe (arXiv 2402.03216, section 3.3): one typed function each, over one loop.

    retromae(recipe)      reconstruct masked passages, before any pair is seen
    contrastive(recipe)   dense alone, InfoNCE with in-batch negatives
    heads(recipe)         the sparse and multi-vector heads, everything else frozen
    unified(recipe)       all three outputs, with self-knowledge distillation

Each returns what it trained, resumes where an earlier run with the same recipe stopped, and leaves in
`recipe.output`: log.jsonl, training.png, checkpoints/, model/ (and deltas.safetensors of a low-rank run).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from trichrome.encoder.encoder import Encoder
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.training.ahead import Ahead
from trichrome.training.batch import TrainingBatch
from trichrome.training.batches import BatchPlan, reading
from trichrome.training.checkpoints import Checkpoints
from trichrome.training.diagnostics import LOG, Diagnostics
from trichrome.training.encoded import Encoded, score_matrices
from trichrome.training.evaluate import evaluator
from trichrome.training.examples import Examples
from trichrome.training.gather import gather
from trichrome.training.loop import Loop, Watch, run
from trichrome.training.losses import unified as unified_loss
from trichrome.training.objectives import extras, ranking_loss
from trichrome.training.observations import gradient_norms, observe
from trichrome.training.plots import plot_log
from trichrome.training.prepare import finish, prepare
from trichrome.training.recipe import Objective, Recipe
from trichrome.training.retromae import RetroMAE, mask_batch, special_ids
from trichrome.training.sizes import groups_up_to, kept_sizes, measured_sizes, network_trial, with_sizes
from trichrome.training.split_batch import split_batch_backward, sub_batch_rows, sub_batches
from trichrome.training.target import Target
from trichrome.training.topics import query_topics

#: Losses of one step by name, with `total` among them, from raw scores [B, C] by signal.
Losses = Callable[[Mapping[str, Tensor], Target, int], dict[str, Tensor]]

CHECKPOINTS, PLOT, SIZES = "checkpoints", "training.png", "sizes.json"


@dataclass(frozen=True)
class Trained:
    """encoder: trained, its weights merged. steps: done in all. finished: whether that was every step.
    model: the folder it was saved in; None where the run was stopped before its end."""

    encoder: Encoder
    steps: int
    finished: bool
    model: Path | None


def retromae(recipe: Recipe, watch: Watch | None = None) -> Trained:
    """Pre-train on the passages of the data: a text is rebuilt from its vector (arXiv 2205.12035).

    The decoder and word predictor are thrown away at the end. Low-rank runs are refused: a backbone that
    learns its language needs all its weights.
    """
    if recipe.train != "all":
        raise TrichromeError(f"retromae trains all weights; the recipe says train: {recipe.train}")
    if recipe.measure_sizes:
        raise TrichromeError("measure_sizes is for stages on pairs; give retromae a batches.token_budget")
    accelerator = make_accelerator()
    encoder = prepare(recipe, str(accelerator.device), train_heads=())
    torch.manual_seed(recipe.seed)
    model = RetroMAE(encoder.network, recipe.retromae)
    wrapped = accelerator.prepare(model)
    schedule = make_schedule(recipe, encoder, accelerator)
    special = special_ids(encoder.tokenizer)

    def backward(step: int) -> dict[str, float]:
        whole = schedule.batch(step)
        texts = sorted(whole.passages, key=lambda t: -len(t.ids))
        texts = texts[accelerator.process_index :: accelerator.num_processes]
        draw = torch.Generator().manual_seed(torch.initial_seed())  # the loop sets it for each step
        record = {"loss/encoder": 0.0, "loss/decoder": 0.0, "loss/total": 0.0}
        parts = sub_batch_rows(texts, recipe.sub_batch_tokens)
        for i, part in enumerate(parts):
            batch = mask_batch(part, recipe.retromae, draw, special).to(accelerator.device)
            share = len(part) / len(texts)
            last = i == len(parts) - 1
            with nullcontext() if last else accelerator.no_sync(wrapped):
                with torch.autocast(
                    accelerator.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
                ):
                    losses = wrapped(batch)
                accelerator.backward(losses["total"] * share)
            for name, value in losses.items():
                record[f"loss/{name}"] += share * value.item()
        return (
            record
            | gradient_norms(encoder.network)
            | {
                "tokens": float(sum(len(t.ids) for t in whole.passages)),
                "passages": float(len(whole.passages)),
                "cut": float(whole.cut),
            }
        )

    return drive(recipe, encoder, model, accelerator, backward, schedule, watch or Watch())


def contrastive(recipe: Recipe, watch: Watch | None = None) -> Trained:
    """Dense pre-training or fine-tuning by one ranking loss; the other heads stay as they are."""
    objective = recipe.objective

    def losses(scores: Mapping[str, Tensor], target: Target, step: int) -> dict[str, Tensor]:
        value = ranking_loss(objective, scores["dense"], target)
        return {"total": value} if objective.ranking == "none" else {"dense": value, "total": value}

    encoder = prepare(recipe, _device(), train_heads=())
    return _train(recipe, encoder, ("dense",), losses, watch or Watch())


def heads(recipe: Recipe, watch: Watch | None = None) -> Trained:
    """Warm the sparse and multi-vector heads up on a frozen base; dense serves as their teacher's part."""
    recipe = replace(recipe, train="heads")
    encoder = prepare(recipe, _device(), train_heads=("sparse", "multivector"))
    return _train(recipe, encoder, encoder.signals, _unified_losses(recipe.objective), watch or Watch())


def unified(recipe: Recipe, watch: Watch | None = None) -> Trained:
    """All outputs together; the sum of the three scores teaches each (M3 paper, eq. 7-10)."""
    encoder = prepare(recipe, _device(), train_heads=("sparse", "multivector"))
    return _train(recipe, encoder, encoder.signals, _unified_losses(recipe.objective), watch or Watch())


def _unified_losses(objective: Objective) -> Losses:
    def losses(scores: Mapping[str, Tensor], target: Target, step: int) -> dict[str, Tensor]:
        return unified_loss(
            scores,
            target,
            temperature=objective.temperature,
            mix=objective.mix,
            weights=objective.weights,
            distil=objective.distil and step >= objective.distil_after,
            distil_weights=objective.distil_weights,
        )

    return losses


def _train(recipe: Recipe, encoder: Encoder, signals: Sequence[str], losses: Losses, watch: Watch) -> Trained:
    """One stage on pairs: batches of the plan, split-batch, the losses."""
    accelerator = make_accelerator()
    if recipe.measure_sizes:
        recipe = _measured(recipe, encoder, accelerator, signals)
    network = accelerator.prepare(encoder.network)
    schedule = make_schedule(recipe, encoder, accelerator)

    def backward(step: int) -> dict[str, float]:
        whole = schedule.batch(step)
        batch, ordered = _share(whole, accelerator.process_index, accelerator.num_processes)
        target = whole.target.to(accelerator.device)
        record: dict[str, float] = {}

        def loss(queries: Encoded, passages: Encoded) -> Tensor:
            scores = {name: ordered(x) for name, x in score_matrices(queries, passages).items()}
            made = losses(scores, target, step)
            more = extras(recipe.objective, scores, target, queries, passages)
            made |= more | {"total": sum(more.values(), made["total"])}
            record.update({f"loss/{name}": value.item() for name, value in made.items()})
            record.update(observe(queries, passages, scores, target))
            return made["total"]

        pad = encoder.config.pad_id
        parts = [
            [b.to(accelerator.device) for b in sub_batches(texts, recipe.sub_batch_tokens, pad)]
            for texts in (batch.queries, batch.passages)
        ]
        split_batch_backward(
            network,
            parts[0],
            parts[1],
            loss,
            signals,
            gather=gather if accelerator.num_processes > 1 else None,
            backward=accelerator.backward,
        )
        padded = sum(b.ids.numel() for side in parts for b in side)
        record |= gradient_norms(encoder.network)
        return record | {
            "temperature": recipe.objective.temperature,
            "queries": float(len(whole.queries)),
            "passages": float(len(whole.passages)),
            "tokens": float(whole.tokens),
            "padding_share": 1 - batch.tokens / padded,
            "cut": float(whole.cut),
            "unscored": float(whole.unscored),
        }

    if watch.evaluate is None and recipe.evaluation.tasks and accelerator.is_main_process:
        watch = replace(watch, evaluate=evaluator(encoder, recipe.evaluation, schedule.steps))
    return drive(recipe, encoder, encoder.network, accelerator, backward, schedule, watch)


def _measured(recipe: Recipe, encoder: Encoder, accelerator: Any, signals: Sequence[str]) -> Recipe:
    """The recipe with the batch sizes that fit this device; the main process measures for all."""
    if accelerator.device.type == "cpu":
        raise TrichromeError(
            "measure_sizes: a CPU does not say how much fits before the machine is out of memory; "
            "give batches.token_budget or batches.sizes"
        )
    batches = recipe.batches
    words = encoder.tokenizer.tokenizer.get_vocab_size()
    trial = network_trial(encoder.network, batches.group_size, batches.query_tokens, words, signals)

    def cut(rows: int, tokens: int) -> None:
        trial(rows, min(tokens, batches.passage_tokens))

    with accelerator.main_process_first():
        sizes = kept_sizes(recipe.output / SIZES, lambda: measured_sizes(cut, groups_up_to(recipe)))
    return with_sizes(recipe, sizes, accelerator.num_processes)


def make_schedule(recipe: Recipe, encoder: Encoder, accelerator: Any) -> Schedule:
    """The data's batches. The main process goes first: it unpacks and tokenises what the others then map."""
    with accelerator.main_process_first():
        examples = Examples.open(recipe.files(), skip_bad=recipe.skip_bad)
        settings, topics = replace(recipe.batches, seed=recipe.seed), None
        if settings.topic_size is not None:
            queries = reading(encoder.tokenizer, settings.query_tokens)
            topics = query_topics(examples, encoder, queries, settings.topic_size, recipe.seed)
        world = accelerator.num_processes
        plan = BatchPlan(examples, encoder.tokenizer, settings, world=world, topics=topics)
    return Schedule(plan, recipe)


def drive(
    recipe: Recipe,
    encoder: Encoder,
    trained: nn.Module,
    accelerator: Any,
    backward: Callable[[int], Mapping[str, float]],
    schedule: Schedule,
    watch: Watch,
    shape: Callable[[Encoder], Encoder] | None = None,
) -> Trained:
    """Run the loop over a stage's `backward`, then plot its log and write its model.

    trained: the module whose parameters with a gradient are trained (and are kept in checkpoints). shape:
    what is saved of the trained encoder, where that is another one.
    """
    recipe.output.mkdir(parents=True, exist_ok=True)
    same = json.loads(json.dumps(asdict(recipe), default=str))
    for name in ("output", "keep", "evaluation", "checkpoint_every"):  # may change between two runs
        same.pop(name)
    same["rows_and_processes"] = schedule.plan.key
    checkpoints = Checkpoints(recipe.output / CHECKPOINTS, recipe.keep, same)
    loop = Loop(schedule.steps, recipe.checkpoint_every, recipe.seed, recipe.optimiser)
    diagnostics = Diagnostics(recipe.output)
    named = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    if watch.on_plan is not None and accelerator.is_main_process:
        watch.on_plan(schedule.plan)
    with schedule:
        done = run(loop, named, backward, accelerator, checkpoints, diagnostics, watch)
    model = None
    if accelerator.is_main_process:
        if (recipe.output / LOG).exists():
            plot_log(recipe.output / LOG, recipe.output / PLOT)
        if done == schedule.steps:
            model, encoder = finish(encoder, recipe, shape)
    return Trained(encoder, done, done == schedule.steps, model)


class Schedule:
    """Which batch an optimiser step takes: epoch after epoch of the plan, until `steps` are done.

    While the step computes, the next batches are made in a thread; use it as a context, which ends it.
    """

    def __init__(self, plan: BatchPlan, recipe: Recipe) -> None:
        self.plan = plan
        self._ends: list[int] = []  # of each epoch, in steps
        while len(self._ends) < recipe.epochs if recipe.steps is None else self._reached < recipe.steps:
            self._ends.append(self._reached + plan.steps(len(self._ends)))
        self.steps = self._reached if recipe.steps is None else recipe.steps
        self._ahead = Ahead(self._made, self.steps)

    @property
    def _reached(self) -> int:
        return self._ends[-1] if self._ends else 0

    def batch(self, step: int) -> TrainingBatch:
        """The batch of optimiser step `step`, from 0."""
        return self._ahead(step)

    def _made(self, step: int) -> TrainingBatch:
        epoch = next(e for e, end in enumerate(self._ends) if step < end)
        return self.plan.batch(epoch, step - (self._ends[epoch - 1] if epoch else 0))

    def __enter__(self) -> Schedule:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close()


def _share(whole: TrainingBatch, rank: int, world: int) -> tuple[TrainingBatch, Callable[[Tensor], Tensor]]:
    """This rank's texts, longest first, and the function that puts the scores of all ranks' queries and
    passages [B, C] in the order of the batch.

    Ranks take turns along the falling lengths, so that each has about as many tokens as the others.
    """
    if min(len(whole.queries), len(whole.passages)) < world:
        raise TrichromeError(
            f"a batch of {len(whole.queries)} queries can't be shared by {world} processes; "
            "raise batches.token_budget, or give small tasks fewer processes"
        )
    sides = []
    for texts in (whole.queries, whole.passages):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i].ids))
        places = torch.tensor([i for r in range(world) for i in order[r::world]])
        sides.append(([texts[i] for i in order[rank::world]], places.argsort()))
    (queries, rows), (passages, columns) = sides
    mine = replace(whole, queries=queries, passages=passages)
    # scores are small, embeddings are not
    return mine, lambda scores: scores[rows.to(scores.device)][:, columns.to(scores.device)]


def make_accelerator() -> Any:
    """What this process shares its steps with; the extra `train` has it."""
    accelerate = require("accelerate", "train")
    return accelerate.Accelerator()


def _device() -> str:
    return str(make_accelerator().device)
