"""Servers in processes of their own, as a user starts them: what benchmarks.serve, crash and fuzz share."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from trichrome.encoder import BackboneConfig, Encoder, EncoderConfig
from trichrome.encoder.heads import Heads, Network
from trichrome.encoder.model import Backbone

ROOT = Path(__file__).parents[1]
_LISTENS = re.compile(r"running on (http://127\.0\.0\.1:\d+)")


def _end_with_parent() -> None:
    """Linux: a server is not left behind by a benchmark that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """A process that listens. process: to be killed. url: where. log: what it wrote, for complaints."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it; `wait` says when it listens."""
        self.log = log
        self._file: IO[bytes] = log.open("wb")
        whole = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._file, stderr=self._file, env=whole, preexec_fn=_end_with_parent
        )

    def wait(self, seconds: float = 180) -> str:
        """Its URL, once it says that it listens. SystemExit where it ends before, or takes too long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := _LISTENS.search(self.text()):
                return found[1]
            if self.process.poll() is not None:
                raise SystemExit(f"error: the server ended with {self.process.returncode}:\n{self.text()}")
            time.sleep(0.02)
        raise SystemExit(f"error: the server did not start within {seconds:.0f} s:\n{self.text()}")

    def text(self) -> str:
        """What it wrote so far."""
        return self.log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """SIGKILL: it has no chance to finish anything."""
        self.process.kill()
        self.process.wait()
        self._file.close()

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, as a service manager does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()


def serve_command(model: Path, indexes: Sequence[Path] = (), *, dtype: str = "auto") -> list[str]:
    """`trichrome serve` of a model folder on a free port."""
    names = [str(path) for path in indexes]
    command = [sys.executable, "-m", "trichrome.cli.main", "serve", *names, "--model", str(model)]
    return [*command, "--dtype", dtype, "--port", "0"]


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Server, str]]:
    """A server and its URL; killed at the end."""
    server = Server(command, log, environment)
    try:
        yield server, server.wait()
    finally:
        server.kill()


_WORDS = [
    "river",
    "moon",
    "cat",
    "dog",
    "bird",
    "light",
    "old",
    "small",
    "over",
    "under",
    "the",
    "of",
    "what",
    "is",
]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?.,!éßяйцукен月光川"


def tiny_encoder(max_tokens: int = 64, hidden: int = 32) -> Encoder:
    """An encoder with all three outputs that costs next to nothing: random weights, the same everywhere."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in _WORDS), *_LETTERS]
    scores = [0.0] * 4 + [-2.0] + [-3.0 - 0.1 * i for i in range(len(pieces) - 5)]
    words = Tokenizer(Unigram(list(zip([*pieces, "<mask>"], [*scores, 0.0], strict=True)), unk_id=3))
    words.normalizer = normalizers.NFKC()
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    words.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    shape = BackboneConfig(
        vocab_size=words.get_vocab_size(), hidden=hidden, layers=1, heads=2, ffn=2 * hidden,
        positions=max_tokens + 2, first_position=2,
    )  # fmt: skip
    config = EncoderConfig(
        name="tiny", max_tokens=max_tokens, cls_id=0, eos_id=2, pad_id=1, unscored_ids=(0, 1, 2, 3),
        multivector_dim=hidden // 2, backbone=shape,
    )  # fmt: skip
    network = Network(Backbone(shape), Heads(config, hidden))
    draw = np.random.RandomState(0)  # frozen, unlike the generators
    for name, weight in sorted(network.named_parameters()):
        values = draw.normal(0, 0.3, tuple(weight.shape)) + ("norm" in name and name.endswith("weight"))
        weight.data.copy_(torch.from_numpy(values.astype(np.float32)))
    return Encoder(network, words, config, device="cpu")
