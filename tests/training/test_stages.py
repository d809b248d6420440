"""Stages on a tiny encoder: they learn, they resume to the same bits, they leave a model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import WORDS, tiny_encoder
from trichrome.encoder import load, save
from trichrome.errors import TrichromeError
from trichrome.training import stages
from trichrome.training.batches import BatchSettings
from trichrome.training.diagnostics import read_log
from trichrome.training.loop import Watch
from trichrome.training.lowrank import LowRank
from trichrome.training.recipe import Objective, Optimiser, Recipe

pytest.importorskip("accelerate")
pytest.importorskip("peft")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model and two files of examples whose queries share words with their passages."""
    monkeypatch.setenv("TRICHROME_CACHE", str(tmp_path / "cache"))
    save(tiny_encoder(), tmp_path / "tiny")
    draw = random.Random(0)
    for name in ("one", "two"):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for i in range(24):
                words = draw.sample(WORDS, 6)
                row = {
                    "query": " ".join(draw.sample(words, 2)),
                    "pos": [" ".join(words)],
                    "neg": [" ".join(draw.sample(WORDS, draw.randint(3, 9))) for _ in range(i % 4)],
                    "id": f"{name}-{i}",
                }
                file.write(json.dumps(row) + "\n")
    return tmp_path


def recipe(work: Path, name: str = "run", **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "model": str(work / "tiny"),
        "data": (str(work / "*.jsonl"),),
        "output": work / name,
        "steps": 12,
        "batches": BatchSettings(
            token_budget=600, query_tokens=16, passage_tokens=32, group_size=3, groups=(8, 16, 64)
        ),
        "optimiser": Optimiser(rate=2e-3, head_rate=2e-2, warmup=0.2),
        "sub_batch_tokens": 64,
        "checkpoint_every": 4,
    }
    return Recipe(**{**settings, **changes})


ALL: list[tuple[Callable[..., stages.Trained], dict[str, Any]]] = [
    (stages.retromae, {}),
    (stages.contrastive, {}),
    (stages.contrastive, {"objective": Objective(ranking="mann_whitney", temperature=0.05)}),
    (stages.contrastive, {"objective": Objective(ranking="pairwise", temperature=0.05)}),
    (stages.contrastive, {"objective": Objective(ranking="lambda_rank", temperature=0.05, rank_cut=20)}),
    (stages.heads, {}),
    (stages.unified, {}),
    (stages.unified, {"train": "lowrank", "lowrank": LowRank(rank=4)}),
]


IDS = ["retromae", "contrastive", "mann_whitney", "pairwise", "lambda_rank", "heads", "unified", "low"]


@pytest.mark.parametrize(("stage", "changes"), ALL, ids=IDS)
def test_a_stage_lowers_its_loss_and_leaves_a_model(
    work: Path, stage: Callable[..., stages.Trained], changes: dict[str, Any]
) -> None:
    trained = stage(recipe(work, steps=40, dropout=0.0, **changes))
    assert trained.finished
    assert trained.model is not None
    records = read_log(work / "run" / "log.jsonl")
    trains_heads = stage in (stages.heads, stages.unified)
    log = [r["loss/sparse"] + r["loss/multivector"] if trains_heads else r["loss/total"] for r in records]
    assert len(log) == 40
    assert sum(log[-8:]) < 0.97 * sum(log[:8])
    assert (work / "run" / "training.png").stat().st_size > 1000
    again = load(trained.model, device="cpu")
    texts = ["the old cat sings", "moon"]
    for name in ("dense", "sparse", "multivector"):
        one, other = getattr(again.encode(texts), name), getattr(trained.encoder.encode(texts), name)
        if name == "dense":
            assert (one == other).all()
        else:
            assert str(one) == str(other) or len(one) == len(other)


@pytest.mark.parametrize("changes", [{}, {"train": "lowrank"}], ids=["all", "lowrank"])
def test_a_stopped_run_goes_on_to_the_same_bits(work: Path, changes: dict[str, Any]) -> None:
    whole = stages.unified(recipe(work, "whole", **changes))
    left = iter([False] * 7)
    stopped = stages.unified(recipe(work, "parts", **changes), Watch(stop=lambda: next(left, True)))
    assert (stopped.steps, stopped.finished, stopped.model) == (7, False, None)
    resumed = stages.unified(recipe(work, "parts", **changes))
    assert resumed.finished
    one, other = (load_file(work / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.steps == resumed.steps == 12
    assert [r["step"] for r in read_log(work / "parts" / "log.jsonl")] == list(range(1, 13))


def test_batches_of_one_topic_with_balanced_negatives_go_on_to_the_same_bits(work: Path) -> None:
    path = work / "taught.jsonl"
    with path.open("w") as file:
        for i, line in enumerate((work / "one.jsonl").read_text().splitlines()):
            row = json.loads(line) | {"neg": ["the moon", "a dog", "green light", "what is small"]}
            scores = {"pos_scores": [2.0], "neg_scores": [0.0, 0.1, 0.2, 1.5]} if i % 2 else {}
            file.write(json.dumps(row | scores) + "\n")
    batches = BatchSettings(max_rows=4, group_size=3, topic_size=8, margin_bins=3)
    same: dict[str, Any] = {"data": (str(path),), "batches": batches, "steps": 8}
    stages.contrastive(recipe(work, "whole", **same))
    left = iter([False] * 3)
    assert stages.contrastive(recipe(work, "parts", **same), Watch(stop=lambda: next(left, True))).steps == 3
    assert stages.contrastive(recipe(work, "parts", **same)).finished
    one, other = (load_file(work / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    log = read_log(work / "whole" / "log.jsonl")
    assert sum(r["unscored"] for r in log[:6]) == 12  # an epoch: every second row of 24 has no scores


def test_only_what_a_stage_trains_changes(work: Path) -> None:
    before = {k: v.clone() for k, v in load(work / "tiny").network.state_dict().items()}
    changed = {
        "contrastive": lambda name: name.startswith("backbone."),
        "heads": lambda name: name.startswith("heads."),
    }
    for name, expected in changed.items():
        made = getattr(stages, name)(recipe(work, name, steps=3)).encoder.network.state_dict()
        moved = {k for k, v in made.items() if not torch.equal(v, before[k])}
        assert moved
        assert all(expected(k) for k in moved)


def test_other_settings_do_not_go_on_from_a_checkpoint(work: Path) -> None:
    stages.heads(recipe(work, steps=4))
    with pytest.raises(ValueError, match="seed"):
        stages.heads(recipe(work, steps=4, seed=1))


@pytest.mark.parametrize("name", ["listwise_kl", "kl", "margin_mse", "wasserstein", "adversarial"])
def test_a_teacher_in_the_data_is_followed(work: Path, name: Any) -> None:
    """The teacher puts each row's negatives above its positive."""
    path = work / "taught.jsonl"
    with path.open("w") as file:
        for line in (work / "one.jsonl").read_text().splitlines():
            row = json.loads(line)
            row["neg"] = row["neg"] or ["under the moon"]
            scores = {"pos_scores": [0.0], "neg_scores": [4.0] * len(row["neg"])}
            file.write(json.dumps({**row, **scores}) + "\n")
    asked = {"adversarial": 50.0} if name == "adversarial" else {"teacher": 50.0, "teacher_loss": name}
    objective = Objective(**asked)
    trained = stages.unified(recipe(work, data=(str(path),), steps=40, dropout=0.0, objective=objective))
    assert trained.finished
    accuracy = [r["accuracy/dense"] for r in read_log(work / "run" / "log.jsonl")]
    assert sum(accuracy[-5:]) < sum(accuracy[:5])


def test_sizes_are_measured_on_a_gpu_only(work: Path) -> None:
    if torch.cuda.is_available():
        made = stages.unified(recipe(work, measure_sizes=True, steps=2))
        assert made.finished
        assert json.loads((work / "run" / "sizes.json").read_text())
        return
    with pytest.raises(TrichromeError, match="a CPU does not say how much fits"):
        stages.unified(recipe(work, measure_sizes=True))
    with pytest.raises(TrichromeError, match="measure_sizes is for stages on pairs"):
        stages.retromae(recipe(work, measure_sizes=True))
    assert not (work / "run").exists()
