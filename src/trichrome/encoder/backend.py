"""What runs a network: the seam between `Encoder`, which knows texts, and torch or onnxruntime.

A backend takes one batch of token ids and gives its outputs as columns. `Encoder` does everything else:
prompts, cuts, batches under a token budget, several devices side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from trichrome.encoder.columns import BatchColumns
from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.cpu import Packing
from trichrome.encoder.forward import run_batch
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.tokenizer import Tokens
from trichrome.errors import TrichromeError

#: Padded tokens a forward pass; the best found on 2 CPU cores. GPUs take more.
CPU_TOKENS, GPU_TOKENS = 2048, 65536


class Backend(Protocol):
    """Where and how the three outputs are computed. It can be pickled: worker processes take a copy."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def precision(self) -> str:
        """float32, bfloat16, float16 or int8: of the network's products; heads are in float32 always."""

    @property
    def dense_dim(self) -> int:
        """Width of the dense output."""

    @property
    def parameters(self) -> int:
        """Number of weights."""

    @property
    def token_budget(self) -> int:
        """Padded tokens of one forward pass, unless the caller says otherwise."""

    @property
    def network(self) -> Network:
        """The torch network, which training changes. TrichromeError where there is none."""

    def run(self, tokens: Sequence[Tokens], outputs: Sequence[str]) -> BatchColumns:
        """The chosen outputs of B texts in one forward pass, from one thread at a time."""

    def to(self, device: str | None = None, precision: str | None = None) -> None:
        """Move to a device, or compute in another precision. TrichromeError where it can't."""

    def with_pooling(self, config: EncoderConfig) -> Backend:
        """The same weights with the pooling that a config names."""


class TorchBackend:
    """A `Backend` on torch, on any device; on CPUs with packed weights (see `cpu`)."""

    def __init__(self, network: Network, pad_id: int) -> None:
        self.network = network.eval()
        self._pad_id = pad_id
        self._packing = Packing()

    def __reduce__(self) -> tuple[Any, ...]:
        return TorchBackend, (self.network, self._pad_id)  # packed weights can't be pickled, nor need they

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def precision(self) -> str:
        return str(next(self.network.backbone.parameters()).dtype).removeprefix("torch.")

    @property
    def dense_dim(self) -> int:
        width: int = self.network.backbone.config.hidden  # type: ignore[union-attr, assignment]
        return width

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.network.parameters())

    @property
    def token_budget(self) -> int:
        return CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS

    def run(self, tokens: Sequence[Tokens], outputs: Sequence[str]) -> BatchColumns:
        return run_batch(self._packing.of(self.network), tokens, outputs, self._pad_id)

    def to(self, device: str | None = None, precision: str | None = None) -> None:
        if device is not None:
            self.network.to(device)
        if precision is not None:
            kind = getattr(torch, precision, None)
            if kind not in (torch.float32, torch.bfloat16, torch.float16):
                raise TrichromeError(
                    f"unknown precision {precision!r}; torch computes in float32, bfloat16 or float16 "
                    "(int8: load the model with backend='onnx')"
                )
            self.network.backbone.to(kind)

    def with_pooling(self, config: EncoderConfig) -> TorchBackend:
        heads = Heads(config, self.dense_dim)
        heads.sparse, heads.multivector = self.network.heads.sparse, self.network.heads.multivector
        made = TorchBackend(Network(self.network.backbone, heads), self._pad_id)
        made.to(str(self.device))  # the new heads' own tensors
        return made
