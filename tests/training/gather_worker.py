"""One of two processes of test_gather.py: `python gather_worker.py RANK FOLDER PORT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.training.test_gather import SHARES, WORLD, joint_loss
from tests.training.test_split_batch import ALL, trainable, training_batch
from trichrome.training.gather import gather
from trichrome.training.split_batch import split_batch_backward, sub_batches


def main(rank: int, folder: Path, port: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    encoder = trainable()
    batch = training_batch(encoder)
    queries, passages = (
        [texts[i] for i in rows]
        for texts, rows in zip((batch.queries, batch.passages), SHARES[rank], strict=True)
    )
    wrapped = DistributedDataParallel(encoder.network)
    for budget in (1000, 30):  # the whole share at once, and in sub-batches, more on one rank than the other
        encoder.network.zero_grad()
        parts = [sub_batches(texts, budget, encoder.config.pad_id) for texts in (queries, passages)]
        loss = split_batch_backward(wrapped, *parts, joint_loss(batch.target), ALL, gather=gather)
        torch.save(
            {"loss": loss, "gradients": {n: p.grad for n, p in encoder.network.named_parameters()}},
            folder / f"{rank}-{budget}.pt",
        )
    del wrapped
    dist.barrier()  # a process that leaves early tears down connections that the other still uses
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
