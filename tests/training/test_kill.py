"""`trichrome train` killed by the system in the middle, twice, goes on to the very same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import WORDS, tiny_encoder
from trichrome.encoder import save
from trichrome.training.diagnostics import read_log

pytest.importorskip("accelerate")
pytest.importorskip("peft")

STEPS = 60
RECIPE = f"""
model: tiny
data: [pairs.jsonl]
output: whole
train: lowrank
lowrank: {{rank: 4}}
steps: {STEPS}
batches: {{token_budget: 600, query_tokens: 16, passage_tokens: 32, group_size: 3, groups: [8, 16, 64]}}
optimiser: {{rate: 2.0e-3, head_rate: 2.0e-2}}
sub_batch_tokens: 64
checkpoint_every: 5
"""


def write_work(folder: Path) -> None:
    """A tiny model, rows whose queries share words with their passages, and a recipe."""
    save(tiny_encoder(), folder / "tiny")
    draw = random.Random(0)
    rows = []
    for _ in range(40):
        words = draw.sample(WORDS, 6)
        negatives = [" ".join(draw.sample(WORDS, draw.randint(3, 9))) for _ in range(3)]
        rows.append({"query": " ".join(draw.sample(words, 2)), "pos": [" ".join(words)], "neg": negatives})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trichrome.cli.main", "train", "unified", "-c", "recipe.yaml"]
    environment = os.environ | {"TRICHROME_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--output", output],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_at(folder: Path, output: str, step: int) -> None:
    """Kill a run -9 when its log has come to a step."""
    process = start(folder, output)
    log = folder / output / "log.jsonl"
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= step:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    write_work(tmp_path)
    whole = start(tmp_path, "whole")
    for step in (13, 31):
        kill_at(tmp_path, "killed", step)
        assert not (tmp_path / "killed" / "model").exists()
        assert len(list((tmp_path / "killed" / "checkpoints").glob("step-*"))) > 0
    resumed = start(tmp_path, "killed")
    for process in (whole, resumed):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    for name in ("model/model.safetensors", "deltas.safetensors", "heads.safetensors"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("whole", "killed"))
        assert one == other, name
    logs = [read_log(tmp_path / run / "log.jsonl") for run in ("whole", "killed")]
    assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]] == list(range(1, STEPS + 1))
    assert [r["loss/total"] for r in logs[0]] == [r["loss/total"] for r in logs[1]]
