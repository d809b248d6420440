"""The stage `query_tower`: a small encoder learns a large one's outputs for queries (see `towers`)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from trichrome.encoder.batching import collate
from trichrome.encoder.checkpoints import load
from trichrome.encoder.encoder import Encoder
from trichrome.errors import TrichromeError
from trichrome.training.batches import reading
from trichrome.training.encoded import encode
from trichrome.training.evaluate import evaluator
from trichrome.training.loop import Watch
from trichrome.training.observations import gradient_norms
from trichrome.training.prepare import prepare
from trichrome.training.recipe import Recipe
from trichrome.training.split_batch import sub_batch_rows
from trichrome.training.stages import Trained, drive, make_accelerator, make_schedule
from trichrome.training.towers import finished, match, pupil, same_tokens


def query_tower(recipe: Recipe, watch: Watch | None = None) -> Trained:
    """Train `recipe.tower.layers` of the model's layers to give `recipe.tower.teacher`'s outputs for the
    queries of the data, whose passages are not looked at.

    What is left searches the teacher's indexes, in the modes that its outputs allow, and encodes no
    documents. TrichromeError: see `towers.pupil`; a recipe that doesn't train all weights.
    """
    if recipe.train != "all":
        raise TrichromeError(f"query_tower trains all weights; the recipe says train: {recipe.train}")
    if recipe.measure_sizes:
        raise TrichromeError("measure_sizes is for stages on pairs; give query_tower a batches.token_budget")
    watch = watch or Watch()
    recipe = replace(recipe, batches=replace(recipe.batches, group_size=1))
    accelerator = make_accelerator()
    device, processes = str(accelerator.device), accelerator.num_processes
    teacher = load(recipe.tower.teacher or recipe.model, device=device, dtype=recipe.precision)
    encoder = pupil(prepare(recipe, device, ("sparse", "multivector")), teacher, recipe.tower)
    encoder.network.train()
    network = accelerator.prepare(encoder.network)
    schedule = make_schedule(recipe, encoder, accelerator)
    theirs = reading(teacher.tokenizer, recipe.batches.query_tokens)

    def backward(step: int) -> dict[str, float]:
        whole = schedule.batch(step)
        order = sorted(range(len(whole.queries)), key=lambda i: -len(whole.queries[i].ids))
        order = order[accelerator.process_index :: processes]
        examples = [schedule.plan.examples[whole.rows[i]] for i in order]
        mine = [whole.queries[i] for i in order]
        asked = theirs.encode([(e.prompt or "") + e.query for e in examples], "query")
        same_tokens(mine, asked, encoder.signals)
        record: dict[str, float] = {}
        done = 0
        for part in sub_batch_rows(mine, recipe.sub_batch_tokens):
            batch = collate(part, encoder.config.pad_id).to(accelerator.device)
            same = collate(asked[done : done + len(part)], teacher.config.pad_id).to(accelerator.device)
            done += len(part)
            with torch.no_grad():
                wanted = encode(teacher.network, same, encoder.signals)
            with nullcontext() if done == len(mine) else accelerator.no_sync(network):
                losses = match(encode(network, batch, encoder.signals), wanted, recipe.tower)
                share = len(part) / len(mine)
                accelerator.backward(losses["total"] * share)
            for name, value in losses.items():
                record[f"loss/{name}"] = record.get(f"loss/{name}", 0.0) + share * value.item()
        return (
            record
            | gradient_norms(encoder.network)
            | {
                "queries": float(len(whole.queries)),
                "tokens": float(sum(len(t.ids) for t in whole.queries)),
                "cut": float(sum(bool(t.cut) for t in whole.queries)),
            }
        )

    if watch.evaluate is None and recipe.evaluation.tasks and accelerator.is_main_process:
        tell = evaluator(encoder, recipe.evaluation, schedule.steps, documents=teacher)
        watch = replace(watch, evaluate=tell)

    def shape(trained: Encoder) -> Encoder:
        return finished(trained, teacher)

    return drive(recipe, encoder, encoder.network, accelerator, backward, schedule, watch, shape)
