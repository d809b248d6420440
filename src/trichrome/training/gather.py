"""Cross-device negatives: every process sees the embeddings of all, with gradients, for all three outputs.

The backward pass sums an embedding's gradients over the processes. With the joint batch's loss on every
process and gradients averaged over the processes (as DistributedDataParallel does), the result is exactly the
gradient of one process with the joint batch: W equal losses, summed, over W.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from trichrome.training.encoded import Encoded


def gather(encoded: Encoded, group: dist.ProcessGroup | None = None) -> Encoded:
    """The texts of all processes, in the order of their ranks; each may have its own number and padding.

    Every process must call it, with the same outputs; and every process must go back through the result.
    """
    mine = torch.tensor(encoded.ids.shape, device=encoded.ids.device)
    shapes = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(shapes, mine, group)
    rows = [int(s[0]) for s in shapes]
    longest = max(int(s[1]) for s in shapes)
    ids = _joined(_padded(encoded.ids, longest), rows, group)
    mask = _joined(_padded(encoded.vector_mask, longest).byte(), rows, group).bool()
    padded = [t if t is encoded.dense else _padded(t, longest) for t in encoded.tensors()]
    outputs = _Gather.apply(rows, group, *padded)  # type: ignore[no-untyped-call]
    return Encoded(ids, mask, encoded.dense, encoded.sparse_weights, encoded.vectors).with_tensors(outputs)


class _Gather(torch.autograd.Function):
    """Tensors [N, …] → [ΣN, …] each. One node for all, so that every process reduces in the same order."""

    @staticmethod
    def forward(
        ctx: Any, rows: list[int], group: dist.ProcessGroup | None, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.rows, ctx.group = rows, group
        return tuple(_joined(t, rows, group) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        start = sum(ctx.rows[: dist.get_rank(ctx.group)])
        own = slice(start, start + ctx.rows[dist.get_rank(ctx.group)])
        summed = []
        for gradient in gradients:
            whole = gradient.clone(memory_format=torch.contiguous_format)  # others may hold it too
            dist.all_reduce(whole, group=ctx.group)
            summed.append(whole[own])
        return None, None, *summed


def _padded(tensor: Tensor, length: int) -> Tensor:
    """[N, L, …] → [N, length, …]."""
    return F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, length - tensor.shape[1]))


def _joined(tensor: Tensor, rows: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """[N, …] of each process → [ΣN, …]; collectives want equal shapes, so the shorter are filled up."""
    most = max(rows)
    whole = tensor.new_empty(len(rows), most, *tensor.shape[1:])
    filled = tensor.new_zeros(most, *tensor.shape[1:])
    filled[: len(tensor)] = tensor
    dist.all_gather(list(whole.unbind()), filled, group)
    if len(set(rows)) == 1:
        return whole.flatten(0, 1)
    return torch.cat([part[:n] for part, n in zip(whole, rows, strict=True)])
