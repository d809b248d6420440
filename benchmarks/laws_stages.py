"""The law of the stages (e): RetroMAE, then contrastive pre-training, then fine-tuning, each adds something.

On a sibling that is small enough: the first layers of the bare base with CLS pooling, and the words of one
language. Japanese, because there are enough unlabelled paragraphs, questions about some of them to tune
on, and held-out paragraphs with questions to measure on.
"""

from __future__ import annotations

import random
from pathlib import Path

import trichrome
from benchmarks.laws_common import (
    Law,
    Paired,
    Room,
    all_above_zero,
    all_texts,
    part_of,
    sentence_pair,
    sibling,
    smallest,
)
from benchmarks.laws_retrieval import METRIC, dense_report, finished, mine_bm25, watch
from trichrome.encoder import Encoder, NewHeads, save
from trichrome.evaluation import load_task
from trichrome.formats.flagembedding import read_examples, write_examples
from trichrome.records import TrainingExample
from trichrome.training.batches import BatchSettings
from trichrome.training.recipe import Optimiser, Recipe
from trichrome.training.stages import contrastive, retromae

#: Layers of twelve, and words of 250,037.
LAYERS, WORDS = 3, 8000
LABELLED, UNLABELLED, MEASURED_ON = "jaquad-train", ("jaquad-train", "jsquad-valid"), "jaquad-dev"
_TOKENS = 192
_RATE = 2e-4


def stages(room: Room) -> Law:
    """(e) Three ways to the same fine-tuning."""
    sizes, work = room.sizes, room.work / "e"
    labelled = mine_bm25(room, [LABELLED], {LABELLED: 2 * sizes.rows}, work)
    texts, pairs = _unlabelled(room, work)
    start = _start(room, work, [texts, Path(labelled[0])])

    one = _recipe(start, texts, work / "retromae", sizes.retromae_steps, 1)
    finished(retromae(one, watch(room, "e, RetroMAE")), one)
    two = _recipe(work / "retromae" / "model", pairs, work / "contrastive", sizes.contrastive_steps, 1)
    finished(contrastive(two, watch(room, "e, contrastive")), two)

    bases = {
        "fine-tuning": start,
        "RetroMAE + fine-tuning": work / "retromae" / "model",
        "RetroMAE + contrastive + fine-tuning": work / "contrastive" / "model",
    }
    task = part_of(load_task(room.task(MEASURED_ON)), sizes.queries, sizes.documents)
    values, before = {}, {}
    for i, (name, base) in enumerate(bases.items()):
        tuned = _tuned(room, base, labelled, work / f"tuned-{i}", name)
        values[name] = dense_report(room, tuned, task).per_query["dense"][METRIC]
        bare = dense_report(room, trichrome.load(base, device="cpu"), task)
        before[name] = round(100 * bare.means["dense"][METRIC], 2)
    paired = Paired([values])
    names = list(bases)
    steps = {
        "RetroMAE": paired.difference(names[1], names[0]),
        "contrastive pre-training": paired.difference(names[2], names[1]),
    }
    return Law(
        "(e) RetroMAE, then contrastive pre-training, then fine-tuning: each stage adds; effect: the smaller "
        "of the two steps in nDCG@10 points of Dense",
        smallest(steps),
        all_above_zero(steps),
        {
            "steps": {name: interval.to_json() for name, interval in steps.items()},
            "nDCG@10": {name: round(paired.mean(name), 2) for name in names},
            "nDCG@10 before fine-tuning": before,
            "task": task.name,
            "queries": len(task.queries),
            "layers": LAYERS,
            "words": WORDS,
            "optimiser_steps": [sizes.retromae_steps, sizes.contrastive_steps, sizes.tuning_steps],
            "interval": "paired bootstrap over queries; one run of each arm, same seed",
        },
    )


def _unlabelled(room: Room, work: Path) -> tuple[Path, Path]:
    """Training files of the paragraphs without their questions: whole, and as (a sentence, the rest)."""
    texts, pairs = work / "texts.jsonl", work / "pairs.jsonl"
    if not (texts.is_file() and pairs.is_file()):
        rows = [row for name in UNLABELLED for row in read_examples(room.train(name))]
        paragraphs = list(dict.fromkeys(row.positives[0].replace(" [SEP] ", "\n") for row in rows))
        chance = random.Random(0)
        write_examples(texts, [TrainingExample(text[:20].strip(), (text,)) for text in paragraphs])
        made = [sentence_pair(text, chance) for text in paragraphs]
        write_examples(pairs, [pair for pair in made if pair is not None])
    return texts, pairs


def _start(room: Room, work: Path, files: list[Path]) -> Path:
    """The folder of the sibling that all arms begin with."""
    folder = work / "start"
    if not folder.is_dir():
        room.tell("e: make the sibling")
        bare = NewHeads(sparse=False, multivector_dim=None)
        base = trichrome.load("small-base", new_heads=bare, device="cpu")
        save(sibling(base, all_texts(files), LAYERS, WORDS, pooling="cls"), folder)
    return folder


def _recipe(model: Path, data: Path, output: Path, steps: int, group_size: int) -> Recipe:
    return Recipe(
        model=str(model),
        data=(str(data),),
        output=output,
        train="all",
        steps=steps,
        dropout=0.0,
        precision="bfloat16",
        sub_batch_tokens=16384,
        batches=BatchSettings(
            token_budget=8192, group_size=group_size, query_tokens=48, passage_tokens=_TOKENS, by="any"
        ),
        optimiser=Optimiser(rate=_RATE),
        checkpoint_every=40,
        keep=1,
    )


def _tuned(room: Room, base: Path, labelled: tuple[str, ...], output: Path, name: str) -> Encoder:
    recipe = _recipe(base, Path(labelled[0]), output, room.sizes.tuning_steps, 2)
    return finished(contrastive(recipe, watch(room, f"e, {name}")), recipe)
