"""Exported encoders on disk, and onnxruntime as a `Backend` on CPUs.

A folder of `trichrome export` holds
    model.onnx, model.onnx.data   the graph (see `onnx_graph`) and its weights
    tokenizer.json, trichrome.json   as in trichrome's own layout
    onnx.json                     what the graph is: `Exported`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trichrome.embeddings import SIGNALS
from trichrome.encoder.batching import collate
from trichrome.encoder.columns import BatchColumns, to_columns
from trichrome.encoder.config import POOLINGS, EncoderConfig
from trichrome.encoder.heads import Network, Outputs
from trichrome.encoder.onnx_graph import OUTPUTS
from trichrome.encoder.tokenizer import Tokens
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.storage import write_json

GRAPH, DATA, DESCRIPTION = "model.onnx", "model.onnx.data", "onnx.json"
FORMAT = 1
PRECISIONS = ("float32", "int8")

#: Padded tokens a forward pass; the best found on 2 CPU cores.
ONNX_TOKENS = 2048


@dataclass(frozen=True)
class Exported:
    """What an exported graph is.

    precision: float32 or int8. fingerprint: of the encoder it was exported from, whose stores it can query.
    dense_dim: width of the dense output. parameters: number of weights. format: of the folder.
    """

    precision: str
    fingerprint: str
    dense_dim: int
    parameters: int
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Into onnx.json."""
        write_json(folder / DESCRIPTION, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """From onnx.json. TrichromeError where it is damaged or of another version."""
        path = folder / DESCRIPTION
        try:
            values: Any = json.loads(path.read_text("utf-8"))
            found = cls(**values)
            known = found.format == FORMAT and found.precision in PRECISIONS
        except (OSError, ValueError, TypeError) as error:
            names = ", ".join(f.name for f in fields(cls))
            raise TrichromeError(f"{path}: expected an object of {names} ({error}); export again") from None
        if not known:
            raise TrichromeError(f"{path}: another version (this one reads {FORMAT}); export again")
        return found


class OnnxBackend:
    """A `Backend` on onnxruntime. It is opened by `to`, with as many threads as torch uses."""

    def __init__(self, folder: Path, config: EncoderConfig) -> None:
        self.folder, self.exported = folder, Exported.read(folder)
        self._config = config
        self._session: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxBackend, (self.folder, self._config)  # a worker opens its own

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def precision(self) -> str:
        return self.exported.precision

    @property
    def dense_dim(self) -> int:
        return self.exported.dense_dim

    @property
    def parameters(self) -> int:
        return self.exported.parameters

    @property
    def token_budget(self) -> int:
        return ONNX_TOKENS

    @property
    def network(self) -> Network:
        raise TrichromeError(
            f"{self.folder}: an exported graph cannot be trained or exported again; "
            "load the model that it was made from"
        )

    def to(self, device: str | None = None, precision: str | None = None) -> None:
        """Open the graph. TrichromeError for anything but a CPU and the precision of the export."""
        if device is not None and torch.device(device).type != "cpu":
            raise TrichromeError(f"an exported graph runs on the CPU, not on {device}; use the torch backend")
        if precision not in (None, self.precision):
            raise TrichromeError(
                f"{self.folder}: exported in {self.precision}, not {precision}; export again in that, "
                "or leave the precision out"
            )
        if self._session is None:
            self._session = _open(self.folder / GRAPH, torch.get_num_threads())

    def with_pooling(self, config: EncoderConfig) -> OnnxBackend:
        made = OnnxBackend(self.folder, config)
        made._session = self._session
        return made

    def run(self, tokens: Sequence[Tokens], outputs: Sequence[str]) -> BatchColumns:
        self.to()
        batch = collate(tokens, self._config.pad_id)
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": batch.ids.numpy(),
            "attention_mask": batch.mask.numpy().astype(np.int64),
            "pooling": np.array(POOLINGS.index(self._config.pooling), np.int64),
        }
        wanted = [signal for signal in SIGNALS if signal in outputs]
        arrays = self._session.run([OUTPUTS[signal] for signal in wanted], feeds)
        made = {signal: torch.from_numpy(array) for signal, array in zip(wanted, arrays, strict=True)}
        weights = made.get("sparse")
        return to_columns(
            Outputs(
                made.get("dense"),
                None if weights is None else weights * batch.scored,  # a prompt's tokens have none
                made.get("multivector"),
                batch.scored,
            ),
            batch.ids,
        )


def _open(path: Path, threads: int) -> Any:
    """An InferenceSession on the CPU."""
    ort = require("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # batches differ in shape: plans for each would only take memory
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # onnxruntime raises many kinds
        raise TrichromeError(f"{path}: cannot be opened: {error}".splitlines()[0]) from None
