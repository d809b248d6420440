"""Split-batch: a batch of any size in the memory of one sub-batch (M3 paper, 3.4; GradCache, Gao 2021).

The loss needs the embeddings of the whole batch, but not the network's activations. So every sub-batch is
encoded without a graph; one loss over all embeddings gives each its gradient; then every sub-batch is
encoded again, now with a graph, and its gradient goes back through the network. Loss and gradients equal
those of one pass over the whole batch, for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trichrome.encoder.batching import collate
from trichrome.encoder.heads import Batch
from trichrome.encoder.tokenizer import Tokens
from trichrome.training.encoded import Encoded, concatenate, encode


def split_batch_backward(
    network: nn.Module,
    queries: Sequence[Batch],
    passages: Sequence[Batch],
    loss: Callable[[Encoded, Encoded], Tensor],
    signals: Sequence[str],
    gather: Callable[[Encoded], Encoded] | None = None,
    scale: float = 1.0,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Tensor:
    """Add the gradients of `scale * loss` to the network's parameters; returns the loss, detached.

    queries, passages: sub-batches, padded each to its own length, in the order of the target's rows and
    columns. loss: (queries, passages) of the whole batch → scalar. With one sub-batch on each side nothing
    is computed twice.

    gather: makes the embeddings of all ranks of this rank's (trichrome.training.gather), for queries and
    passages alike; `loss` is then the joint batch's, the same on every rank.

    backward: called once, with the scaled loss, so that `accelerator.backward` puts its own factors in.

    DistributedDataParallel: only the last backward pass goes through the wrapper, so gradients are averaged
    over the ranks once, whatever the number of sub-batches on each rank; the passes before it run the module
    inside, whose gradients add up unsynchronised, as under `no_sync()`. The last passages sub-batch has to
    use every trainable parameter: freeze the heads that are not in `signals`.
    """
    if not queries or not passages:
        raise ValueError("split_batch_backward needs queries and passages")
    synced = isinstance(network, DistributedDataParallel)
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    with nullcontext(_nothing) if synced else _one_gradient_a_table(inner) as collect:
        if len(queries) == len(passages) == 1:
            q, p = encode(inner, queries[0], signals), encode(network, passages[0], signals)
            value = loss(q, p) if gather is None else loss(gather(q), gather(p))
            backward(value * scale)
            return value.detach()

        batches = [*queries, *passages]
        states: list[list[Tensor]] = []
        parts: list[Encoded] = []
        for i, batch in enumerate(batches):
            states.append(_rng_states(batch.ids.device))
            # alone, the last one's graph may stay: it is the first that is needed
            with torch.set_grad_enabled(not synced and i == len(batches) - 1):
                parts.append(encode(inner, batch, signals))
        kept = parts[-1].tensors()
        q, p = _leaves(parts[: len(queries)]), _leaves(parts[len(queries) :])
        del parts
        value = loss(q, p) if gather is None else loss(gather(q), gather(p))
        backward(value * scale)
        gradients = [*_split(q, queries), *_split(p, passages)]
        del q, p

        if not synced:
            _back(kept, gradients.pop())
            collect()
        del kept
        for i, gradient in enumerate(gradients):
            with _rng(batches[i].ids.device, states[i]):
                again = encode(network if i == len(batches) - 1 else inner, batches[i], signals)
            _back(again.tensors(), gradient)
            del again
            collect()
        return value.detach()


def _back(outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Through the network; with a frozen base, the dense output needs no gradient."""
    learnt = [(x, g) for x, g in zip(outputs, gradients, strict=True) if x.requires_grad]
    torch.autograd.backward([x for x, _ in learnt], [g for _, g in learnt])


@contextmanager
def _one_gradient_a_table(network: nn.Module) -> Iterator[Callable[[], None]]:
    """Within, embedding tables get one gradient as large as themselves, not one for every sub-batch.

    A vocabulary of 250,002 makes that gradient the largest tensor of a step. Lookups give gradients of the
    looked-up rows alone; `collect` adds them up after a backward pass.
    """
    tables = [
        m
        for m in network.modules()
        if isinstance(m, nn.Embedding) and isinstance(m.weight, nn.Parameter) and not m.sparse
    ]
    tables = [m for m in tables if m.weight.requires_grad]
    sums = [m.weight.grad for m in tables]

    def collect() -> None:
        for i, table in enumerate(tables):
            gradient, table.weight.grad = table.weight.grad, None
            if gradient is None:
                continue
            total = sums[i]
            if total is None:
                total = sums[i] = torch.zeros_like(table.weight)
            if gradient.is_sparse:
                total.index_add_(0, gradient._indices()[0], gradient._values())
            else:
                total.add_(gradient)

    for table in tables:
        table.sparse, table.weight.grad = True, None
    try:
        yield collect
        collect()
    finally:
        for table, total in zip(tables, sums, strict=True):
            table.sparse, table.weight.grad = False, total


def _nothing() -> None:
    """DistributedDataParallel reduces whole gradients, so they are left to it."""


def _leaves(parts: Sequence[Encoded]) -> Encoded:
    """One batch whose outputs collect gradients."""
    with torch.no_grad():
        whole = concatenate(parts)
    return whole.with_tensors([t.detach().requires_grad_() for t in whole.tensors()])


def _split(whole: Encoded, batches: Sequence[Batch]) -> Iterator[list[Tensor]]:
    """The gradients of each sub-batch, at its own padded length, in the order of Encoded.tensors()."""
    start = 0
    for batch in batches:
        n, length = batch.ids.shape
        rows = slice(start, start + n)
        yield [_grad(t)[rows] if t is whole.dense else _grad(t)[rows, :length] for t in whole.tensors()]
        start += n


def _grad(leaf: Tensor) -> Tensor:
    """Zeros where the loss did not use an output at all."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _rng_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def _rng(device: torch.device, states: Sequence[Tensor]) -> Iterator[None]:
    """Dropout as it was; the generators go on afterwards from where they stood."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield


# sub-batches


def sub_batch_rows(texts: Sequence[Tokens], budget: int) -> list[list[Tokens]]:
    """Texts in their order, cut into parts of rows × longest row ≤ budget tokens (or of one text alone)."""
    parts: list[list[Tokens]] = []
    longest = 0
    for text in texts:
        longest = max(longest, len(text.ids))
        if not parts or (len(parts[-1]) + 1) * longest > budget:
            parts.append([])
            longest = len(text.ids)
        parts[-1].append(text)
    return parts


def sub_batches(texts: Sequence[Tokens], budget: int, pad_id: int) -> list[Batch]:
    """The same, padded."""
    return [collate(part, pad_id) for part in sub_batch_rows(texts, budget)]
