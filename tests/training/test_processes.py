"""`trichrome train` in two processes trains what one process trains, with every batch shared between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_kill import RECIPE, write_work
from trichrome.training.diagnostics import read_log

pytest.importorskip("accelerate")
pytest.importorskip("peft")

COMMAND = [
    sys.executable,
    "-m",
    "trichrome.cli.main",
    "train",
    "unified",
    "-c",
    "recipe.yaml",
    "--steps",
    "5",
]


def train(folder: Path, output: str, world: int) -> list[tuple[str, str]]:
    """What each of the processes printed on stdout and stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"TRICHROME_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true"}
    if world > 1:  # what torchrun and accelerate launch set
        environment |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [*COMMAND, "--output", output],
            cwd=folder,
            env=environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        printed = [worker.communicate(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * world, "\n".join(err for _, err in printed)
    return printed


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    write_work(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE + "dropout: 0.0\n")
    (alone,) = train(tmp_path, "one", 1)
    first, second = train(tmp_path, "two", 2)
    assert first[0] == alone[0].replace("one/", "two/")
    assert second[0] == ""
    logs = [read_log(tmp_path / run / "log.jsonl") for run in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 5
    for one, two in zip(*logs, strict=True):
        assert two["queries"] == one["queries"]
        for name in ("loss/total", "loss/dense", "loss/sparse", "loss/multivector", "grad/backbone"):
            assert two[name] == pytest.approx(one[name], rel=2e-3), name
    start = load_file(tmp_path / "tiny" / "model.safetensors")
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    for name, weights in one.items():
        moved = (weights - start[name]).norm()
        assert torch.dist(weights, two[name]) <= 0.02 * moved + 1e-6, name
