"""One input shard to one Parquet shard; then all of them, on the actors of a Ray cluster."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from trichrome.cluster.connect import Cluster, Tally, begin, run_on_actors
from trichrome.cluster.corpus import Part, Parts, file_hash
from trichrome.cluster.folder import EncodedCorpus, Manifest, claim, shard_path
from trichrome.cluster.schema import Counts, Encoding, Passages, ShardInfo
from trichrome.cluster.shards import read_info, why_unfinished, write_shard
from trichrome.encoder import Encoder, TruncationWarning, load
from trichrome.errors import TrichromeError
from trichrome.formats.jsonl import iter_documents
from trichrome.formats.passages import cut_document
from trichrome.formats.report import ReadReport
from trichrome.index.build import payload_of
from trichrome.records import Document, Payload

_FAILURES_KEPT = 1000  # of a shard, of which its record gives the reason; all are counted
_CHECKED_AT_ONCE = 16  # shards whose sources are hashed side by side


@dataclass(frozen=True)
class ModelSource:
    """What an actor opens its encoder from. model: a name, folder or hub id, the same on every machine.
    dtype: as `trichrome.load` takes it. threads: CPU threads of an actor."""

    model: str
    dtype: str | None
    threads: int = 1

    def open(self, encoding: Encoding) -> Encoder:
        """TrichromeError where it is another model than the one that the run began with."""
        import torch

        torch.set_num_threads(self.threads)
        encoder = load(self.model, dtype=self.dtype)
        if encoder.fingerprint != encoding.fingerprint:
            raise TrichromeError(
                f"{self.model} is another model on this machine ({os.uname().nodename}): fingerprint "
                f"{encoder.fingerprint:.12}, not {encoding.fingerprint:.12}; put the same files everywhere"
            )
        if encoder.precision != encoding.dtype:
            raise TrichromeError(
                f"{self.model} computes in {encoder.precision} on {os.uname().nodename}, not in "
                f"{encoding.dtype}; say which with --dtype"
            )
        return encoder


@dataclass
class Progress:
    """How far a run is. passages: encoded by this run. shards: finished, of `total`. seconds: since the
    start. pids: of the processes that reported."""

    passages: int
    shards: int
    total: int
    seconds: float
    pids: tuple[int, ...] = ()


@dataclass
class EncodeReport:
    """What a run did.

    encoded, kept: shards made now, and found finished. redone: reason → shards that were there but did not
    count (a damaged one, or one of another model). passages: in all shards; encoded_passages: of them made
    now. counts: of all shards together. bytes: of all shards. seconds: of this run.
    """

    encoded: int = 0
    kept: int = 0
    redone: dict[str, int] = field(default_factory=dict)
    passages: int = 0
    encoded_passages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)

    def add(self, info: ShardInfo, path: Path) -> None:
        """Count one finished shard."""
        self.passages += info.rows
        self.bytes += path.stat().st_size
        mine, its = self.counts, info.counts
        for name in ("documents", "cut", "truncated", "failed"):
            setattr(mine, name, getattr(mine, name) + getattr(its, name))
        mine.failures = [*mine.failures, *its.failures][:_FAILURES_KEPT]
        for reason, count in its.left_out.items():
            mine.left_out[reason] = mine.left_out.get(reason, 0) + count


class Tell(Protocol):
    """Called with the passages of a shard that are encoded so far."""

    def __call__(self, passages: int) -> None: ...


def encode_part(
    part: Part, path: Path, encoder: Encoder, encoding: Encoding, tell: Tell | None = None
) -> ShardInfo:
    """Encode one input shard into the Parquet file `path`, a chunk at a time.

    TrichromeError: bad rows of the source, unless the encoding says to leave them out.
    """
    counts = Counts()
    read = ReadReport()
    documents = iter_documents(part.path, skip_bad=encoding.skip_bad, report=read)
    passages = _passages(documents, encoder, encoding, counts)
    chunks = _encoded(passages, encoder, encoding, counts, tell)

    def counted() -> Iterator[Passages]:
        yield from chunks
        counts.left_out = {reason: len(places) for reason, places in sorted(read.skipped.items())}

    return write_shard(path, encoding, file_hash(part.path), counted(), counts)


def _passages(
    documents: Iterable[Document], encoder: Encoder, encoding: Encoding, counts: Counts
) -> Iterator[tuple[str, str, Payload]]:
    """(id, text, payload) of each passage that a store would take."""
    for document in documents:
        counts.documents += 1
        made = cut_document(
            document,
            encoder.tokenizer.offsets,
            max_tokens=encoding.passage_tokens,
            overlap=encoding.overlap,
        )
        counts.cut += len(made) > 1
        for passage in made:
            reason = None
            try:
                payload = payload_of(passage)
                if not passage.content.strip():
                    reason = "neither title nor text to encode"
            except (TrichromeError, UnicodeEncodeError) as error:
                reason = str(error)
            if reason is None:
                yield passage.id, passage.content, payload
                continue
            counts.failed += 1
            if len(counts.failures) < _FAILURES_KEPT:
                counts.failures.append((passage.id, reason))


def _encoded(
    passages: Iterator[tuple[str, str, Payload]],
    encoder: Encoder,
    encoding: Encoding,
    counts: Counts,
    tell: Tell | None,
) -> Iterator[Passages]:
    done = 0
    while chunk := list(islice(passages, encoding.chunk)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embeddings = encoder.encode(
                [text for _, text, _ in chunk],
                "passage",
                encoding.outputs,
                token_budget=encoding.token_budget,
                multivector_dtype="float16",
            )
        for warning in caught:
            if isinstance(warning.message, TruncationWarning):
                counts.truncated += warning.message.texts
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        yield Passages([id for id, _, _ in chunk], [payload for _, _, payload in chunk], embeddings)
        done += len(chunk)
        if tell is not None:
            tell(done)


class EncodeActor:
    """An actor: one model, opened at its first shard; then shard after shard."""

    def __init__(self, source: ModelSource, encoding: Encoding, tally: Any) -> None:
        self._source, self._encoding, self._tally = source, encoding, tally
        self._encoder: Encoder | None = None

    def __call__(self, item: dict[str, str]) -> dict[str, str]:
        """{name, source, path}: of one input shard, and where its output goes."""
        begin(self._tally, item["name"])
        if self._encoder is None:
            self._encoder = self._source.open(self._encoding)

        def tell(passages: int) -> None:
            self._tally.put.remote(item["name"], passages)

        part = Part(item["name"], Path(item["source"]))
        encode_part(part, Path(item["path"]), self._encoder, self._encoding, tell)
        return {"name": item["name"]}


def encode_shards(
    parts: Parts,
    out: Path,
    encoding: Encoding,
    source: ModelSource,
    *,
    cluster: Cluster | None = None,
    again: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> EncodeReport:
    """Encode every input shard that is not finished; OUT is then an encoded corpus (see `folder`).

    A shard counts as finished where it is whole, of this encoding, and its source has not changed. An actor
    that dies is started anew and begins its shard again; nothing that it wrote under a temporary name
    counts. again: shards of another model or other settings in OUT are encoded anew; else they are refused.
    progress: called about twice a second, from another thread.
    TrichromeError: OUT holds something else, another run is at work there, bad rows, the same id twice, a
    cluster that fails. What is finished stays.
    """
    began = time.perf_counter()
    manifest = Manifest(encoding, source.model, parts.rule, [part.name for part in parts.parts])
    report = EncodeReport()
    with claim(out, manifest, again):
        todo = _unfinished(parts.parts, out, encoding, report)
        report.kept = len(parts.parts) - len(todo)
        if todo:
            _run(todo, out, encoding, source, cluster or Cluster(), report.kept, progress)
        for part in parts.parts:
            path = shard_path(out, part.name)
            info = read_info(path)
            report.add(info, path)
            if part in todo:
                report.encoded_passages += info.rows
    EncodedCorpus.open(out).check_ids()
    report.encoded = len(todo)
    report.seconds = time.perf_counter() - began
    return report


def _unfinished(parts: Sequence[Part], out: Path, encoding: Encoding, report: EncodeReport) -> list[Part]:
    """The parts that have to be encoded; the report learns why those are that are there already."""

    def why(part: Part) -> str | None:
        path = shard_path(out, part.name)
        return why_unfinished(path, encoding, file_hash(part.path)) if path.exists() else "not there yet"

    with ThreadPoolExecutor(_CHECKED_AT_ONCE) as pool:
        reasons = list(pool.map(why, parts))
    for reason in reasons:
        if reason not in (None, "not there yet"):
            report.redone[str(reason)] = report.redone.get(str(reason), 0) + 1
    return [part for part, reason in zip(parts, reasons, strict=True) if reason is not None]


def _run(
    todo: Sequence[Part],
    out: Path,
    encoding: Encoding,
    source: ModelSource,
    cluster: Cluster,
    kept: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    began = time.perf_counter()
    items = [
        {"name": p.name, "source": str(p.path.resolve()), "path": str(shard_path(out, p.name).resolve())}
        for p in todo
    ]
    done = 0

    def watch(at: Tally) -> None:
        if progress is not None:
            seconds = time.perf_counter() - began
            counts = Progress(sum(at.counts.values()), kept + done, kept + len(todo), seconds, at.pids)
            progress(counts)

    with cluster.connected(), cluster.tally(watch) as tally:
        for _ in run_on_actors(cluster, EncodeActor, (source, encoding, tally), items, source.threads):
            done += 1
