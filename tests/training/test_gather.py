"""Two real processes with cross-device negatives give the gradients of one with the joint batch."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.test_split_batch import ALL, assert_same, gradients, trainable, training_batch
from trichrome.encoder.batching import collate
from trichrome.training.encoded import Encoded, encode, score_matrices
from trichrome.training.losses.unified import unified
from trichrome.training.target import Target

WORLD = 2
#: Queries and passages of each rank: unequal in number and in length.
SHARES = [([0, 1, 2], [0, 1, 2, 3, 4]), ([3], [5, 6, 7])]


def joint_loss(target: Target) -> Callable[[Encoded, Encoded], Tensor]:
    return lambda q, p: unified(score_matrices(q, p), target)["total"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gather")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.training.gather_worker"]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(folder), str(port)],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        ends = [w.communicate(timeout=120)[1] for w in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [w.returncode for w in workers] == [0, 0], "\n".join(ends)
    return folder


@pytest.mark.parametrize("budget", [1000, 30])
@pytest.mark.parametrize("rank", range(WORLD))
def test_two_processes_give_the_joint_batchs_gradients(results: Path, rank: int, budget: int) -> None:
    encoder = trainable()
    batch = training_batch(encoder)
    q, p = (
        encode(encoder.network, collate(texts, encoder.config.pad_id), ALL)
        for texts in (batch.queries, batch.passages)
    )
    loss = joint_loss(batch.target)(q, p)
    torch.autograd.backward(loss)
    expected = gradients(encoder)
    assert all(g.norm() > 0 for g in expected.values())
    found = torch.load(results / f"{rank}-{budget}.pt")
    assert abs(loss.item() - found["loss"].item()) <= 1e-5 * loss.item()
    assert_same(expected, found["gradients"])
