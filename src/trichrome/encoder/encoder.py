"""Encoder: texts to Embeddings, all three outputs in one forward pass."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer

from trichrome.embeddings import SIGNALS, Embeddings
from trichrome.encoder.backend import Backend, TorchBackend
from trichrome.encoder.batching import token_budget_batches
from trichrome.encoder.columns import BatchColumns, ColumnWriter
from trichrome.encoder.config import EncoderConfig
from trichrome.encoder.heads import Network
from trichrome.encoder.tokenizer import TextTokenizer, Tokens, TokenSpans
from trichrome.encoder.workers import WorkerPool
from trichrome.errors import TrichromeError

#: A text that two different tokenizers hardly cut alike: scripts, case, accents, widths, digits, spaces.
_PROBE = (
    "The Quick-Brown fox's 1,234.5 naïve cafés!\n  Ünïcödé e\u0301 Москва Ελλάδα ירושלים القاهرة हिन्दी ไทย "
    "日本語テスト 한국어 中文 ｆｕｌｌ ﬁ Việt Nam İstanbul ß 🙂 <tag> {json: [1, 2]} __init__ http://a.b/c?d=e"
)


class TruncationWarning(UserWarning):
    """Texts were longer than the encoder reads. texts: how many; tokens: how many tokens were not read."""

    def __init__(self, texts: int, of: int, tokens: int, limit: int) -> None:
        super().__init__(
            f"{texts} of {of} texts were cut to {limit} tokens ({tokens} tokens not read); "
            "cut long documents into passages, or use an encoder with more positions"
        )
        self.texts, self.tokens = texts, tokens


@dataclass(frozen=True)
class Progress:
    """How far an `encode` call is. tokens: read so far; truncated: texts cut; seconds: since start."""

    texts: int
    total: int
    tokens: int
    truncated: int
    seconds: float


class Encoder:
    """A network, its tokenizer and its settings.

    Made by `trichrome.load`. backend: what runs the network. fingerprint: a hash of settings, tokenizer and
    weights as loaded; stores keep it, so that no query of another model is answered. Precision is no part of
    it, nor is the backend: they round differently, but it is one model.
    """

    def __init__(
        self,
        network: Network | Backend,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        device: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """A torch network goes to `device`, by default a GPU where there is one; a backend stays where it is
        unless told, and needs its fingerprint given."""
        self.backend: Backend
        if isinstance(network, Network):
            self.backend = TorchBackend(network, config.pad_id)
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        else:
            self.backend = network
        self.config = config
        self.tokenizer = TextTokenizer(tokenizer, config)
        self.fingerprint = fingerprint or _fingerprint(self.network, tokenizer, config)
        self.to(device)

    @property
    def name(self) -> str:
        """The model's name, for people and manifests."""
        return self.config.name

    @property
    def signals(self) -> tuple[str, ...]:
        """The outputs this encoder has."""
        has = {"dense": True, "sparse": self.config.sparse, "multivector": bool(self.config.multivector_dim)}
        return tuple(s for s in SIGNALS if has[s])

    @property
    def queries_of(self) -> str | None:
        """Of a query tower, the fingerprint of the encoder whose indexes it searches; else None."""
        return self.config.queries_of

    @property
    def dense_dim(self) -> int:
        """Width of the dense output."""
        return self.backend.dense_dim

    @property
    def network(self) -> Network:
        """The torch network, for training. TrichromeError where an exported graph runs in its place."""
        return self.backend.network

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.backend.device

    @property
    def precision(self) -> str:
        """float32, bfloat16, float16 or int8."""
        return self.backend.precision

    def to(self, device: str | None = None, dtype: str | torch.dtype | None = None) -> Encoder:
        """Move to a device and set the backbone's precision ("float32", "bfloat16", "float16"), in place.

        bfloat16 is about three times as fast on CPUs with AMX and on GPUs; heads stay in float32.
        """
        precision = str(dtype).removeprefix("torch.") if dtype is not None else None
        self.backend.to(device, precision)
        return self

    def with_pooling(self, pooling: str, mcls_every: int | None = None) -> Encoder:
        """The same weights with another pooling (`cls`, `mean`, `mcls`); it has its own fingerprint."""
        every = mcls_every or self.config.mcls_every
        config = replace(self.config, pooling=pooling, mcls_every=every)  # type: ignore[arg-type]
        fingerprint = hashlib.sha256(f"{self.fingerprint} {pooling} {every}".encode()).hexdigest()
        backend = self.backend.with_pooling(config)
        return Encoder(backend, self.tokenizer.tokenizer, config, fingerprint=fingerprint)

    # text

    def token(self, token_id: int) -> str:
        """The vocabulary's spelling of a token id."""
        return self.tokenizer.token(token_id)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without prompt, special tokens or cut."""
        return self.tokenizer.plain(texts)

    def token_spans(self, text: str, kind: str = "passage") -> TokenSpans:
        """The token and the characters behind each row of the text's multi-vector output."""
        return self.tokenizer.spans(text, kind)

    # encoding

    def encode(
        self,
        texts: Sequence[str],
        kind: str = "passage",
        outputs: Sequence[str] | None = None,
        *,
        token_budget: int | None = None,
        devices: Sequence[str] | None = None,
        multivector_dtype: str = "float32",
        progress: Callable[[Progress], None] | None = None,
    ) -> Embeddings:
        """All outputs of all texts, in the order of the texts.

        kind: "query" or "passage", which prompt is put before. outputs: any of dense, sparse, multivector;
        all that the encoder has by default. token_budget: padded tokens a forward pass. devices: several
        of them run side by side, one process each ("cuda:0", "cuda:1", or "cpu" repeated); a worker that
        dies is an error. multivector_dtype: float32 or float16. progress: called after each forward pass.

        Texts that are longer than `config.max_tokens` are cut, with a TruncationWarning that counts them.
        """
        outputs = self._outputs(outputs)
        tokens = self.tokenizer.encode(texts, kind)
        cut = [t.cut for t in tokens if t.cut]
        if cut:
            warning = TruncationWarning(len(cut), len(texts), sum(cut), self.config.max_tokens)
            warnings.warn(warning, stacklevel=2)
        columns = ColumnWriter(
            [sum(t.scored) for t in tokens],
            outputs,
            self.dense_dim,
            self.config.multivector_dim or 0,
            np.dtype(multivector_dtype),
        )
        budget = token_budget or self.backend.token_budget
        batches = token_budget_batches([len(t.ids) for t in tokens], budget)
        start, done, read = time.perf_counter(), 0, 0
        for rows, made in self._forward_all(tokens, batches, tuple(outputs), devices):
            columns.put(rows, made)
            done += len(rows)
            read += sum(len(tokens[i].ids) for i in rows)
            if progress is not None:
                progress(Progress(done, len(texts), read, len(cut), time.perf_counter() - start))
        return columns.finish()

    def encode_tokens(self, tokens: Sequence[Tokens], outputs: Sequence[str]) -> Embeddings:
        """The chosen outputs of texts that `tokenizer.encode` made, in one forward pass, for a server that
        batches the texts of many requests itself. Call it from one thread at a time."""
        widths = (self.dense_dim, self.config.multivector_dim or 0)
        columns = ColumnWriter([sum(t.scored) for t in tokens], outputs, *widths, np.dtype(np.float32))
        if tokens:
            columns.put(range(len(tokens)), self.backend.run(tokens, tuple(outputs)))
        return columns.finish()

    def _forward_all(
        self,
        tokens: list[Tokens],
        batches: list[list[int]],
        outputs: tuple[str, ...],
        devices: Sequence[str] | None,
    ) -> Iterator[tuple[list[int], BatchColumns]]:
        texts = ((rows, [tokens[i] for i in rows]) for rows in batches)
        if not devices:
            for rows, batch in texts:
                yield rows, self.backend.run(batch, outputs)
            return
        with closing(WorkerPool(self.backend, devices)) as pool:
            yield from pool.run(texts, outputs)

    def _outputs(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        if outputs is None:
            return self.signals
        if isinstance(outputs, str):
            outputs = (outputs,)
        for name in outputs:
            if name not in self.signals:
                raise TrichromeError(f"{self.name} has no output {name!r}, only {', '.join(self.signals)}")
        return tuple(s for s in SIGNALS if s in outputs)


def _fingerprint(network: Network, tokenizer: Tokenizer, config: EncoderConfig) -> str:
    """sha256 over settings (the name aside), what the tokenizer does, and the weights in float32."""
    settings = {k: v for k, v in config.to_json().items() if k != "name"}
    probe = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    described = json.dumps([settings, tokenizer.get_vocab_size(), probe], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
