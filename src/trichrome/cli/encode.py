"""`trichrome encode`: texts to a file of embeddings, or to lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trichrome.cli.console import Bar, Stopped, bar, counting_cuts, note
from trichrome.cli.settings import ModelOption, PrecisionOption, open_model
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.embeddings import Embeddings
    from trichrome.encoder import Encoder, Progress

#: Texts held in memory, and what Ctrl-C loses at most; more with --devices, whose workers start anew for
#: each chunk.
CHUNK, CHUNK_OF_MANY_DEVICES = 1024, 65_536


def encode(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Text lines, JSONL documents, or - (stdin).")],
    to: Annotated[
        Path | None, typer.Option("--to", "-o", help="Safetensors file to write; ids go beside it.")
    ] = None,
    model: ModelOption = "small",
    kind: Annotated[
        Literal["passage", "query"], typer.Option(help="Which prompt the model reads.")
    ] = "passage",
    outputs: Annotated[
        str | None,
        typer.Option(help="Of dense,sparse,multivector; all that the model has (with --json, sparse)."),
    ] = None,
    dtype: PrecisionOption = "float32",
    devices: Annotated[str | None, typer.Option(help="Several, side by side: cuda:0,cuda:1")] = None,
    token_budget: Annotated[int | None, typer.Option(min=16, help="Padded tokens a forward pass.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON for each text on stdout, nothing else there.")
    ] = False,
) -> None:
    """Encode texts: a safetensors file of all outputs, or (--json) lines of {id, sparse: {token: weight}}.

    The file opens with trichrome.Embeddings.load (token vectors in float16); its ids stand in FILE.ids.json,
    in the same order. After a stop, the same command goes on where it was.
    """
    if (to is None) == (not as_json):
        raise typer.BadParameter("give --to FILE for embeddings, or --json for lines of JSON (one of them)")
    texts = read_texts(source)
    if not texts.ids:
        raise TrichromeError(f"{source}: no text to encode")
    wanted = [name.strip() for name in outputs.split(",")] if outputs else ["sparse"] if as_json else None
    encoder = open_model(model, dtype)
    with bar("encode", len(texts.ids)) as shown, counting_cuts() as cut:
        job = Job(encoder, kind, wanted, token_budget, devices.split(",") if devices else None, shown)
        if to is None:
            job.print_lines(texts)
        else:
            job.write(texts, to)
    if count := cut():
        note(f"{count:,} of {len(texts.ids):,} texts were cut to the {encoder.config.max_tokens} tokens read")
    if to is not None:
        note(f"wrote {to} ({len(texts.ids):,} texts) and {to.name}.ids.json")


class Job:
    """How texts are encoded, and the bar that shows how far it is."""

    def __init__(
        self,
        encoder: Encoder,
        kind: str,
        outputs: list[str] | None,
        token_budget: int | None,
        devices: list[str] | None,
        shown: Bar,
    ) -> None:
        self._encoder, self._kind, self._outputs = encoder, kind, outputs
        self._settings: dict[str, Any] = {
            "token_budget": token_budget,
            "devices": devices,
            "progress": self._passed,
        }
        self._chunk = CHUNK_OF_MANY_DEVICES if devices else CHUNK
        self._shown = shown
        self._done = self._free = self._encoding = 0  # texts: finished, found on disk, of this chunk

    def write(self, texts: Texts, path: Path) -> None:
        """All outputs in one file, chunk by chunk; the ids beside it."""
        from trichrome.encoder.corpus import encode_corpus
        from trichrome.storage import write_json

        try:
            encode_corpus(
                self._encoder,
                texts.read(),
                path,
                self._kind,
                self._outputs,
                chunk=self._chunk,
                done=self._chunk_done,
                **self._settings,
            )
        except KeyboardInterrupt:
            raise Stopped(
                f"stopped; {self._done:,} texts are kept beside {path}, the same command goes on from there"
            ) from None
        write_json(path.with_name(f"{path.name}.ids.json"), texts.ids)

    def print_lines(self, texts: Texts) -> None:
        """One JSON object a line, as soon as its chunk is encoded."""
        ids, stream = iter(texts.ids), iter(texts.read())
        while batch := list(islice(stream, self._chunk)):
            made = self._encoder.encode(batch, self._kind, self._outputs, **self._settings)
            for id, row in zip(islice(ids, len(batch)), rows(made, self._encoder.token), strict=True):
                sys.stdout.write(json.dumps({"id": id, **row}, ensure_ascii=False) + "\n")
            self._chunk_done(self._done + len(batch))

    def _passed(self, progress: Progress) -> None:
        self._encoding = progress.texts
        self._shown.at(self._done + self._encoding, self._free)

    def _chunk_done(self, done: int) -> None:
        if not self._encoding:  # it was on disk already: no work, which the rate leaves out
            self._free += done - self._done
        self._done, self._encoding = done, 0
        self._shown.at(done, self._free)


def rows(embeddings: Embeddings, token: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    """Each text's outputs as JSON values: dense [D], sparse {token: weight}, multivector [T, d']."""
    for one in embeddings:
        row: dict[str, Any] = {}
        if one.dense is not None:
            row["dense"] = one.dense.tolist()
        if one.token_ids is not None and one.token_weights is not None:
            pairs = zip(one.token_ids.tolist(), one.token_weights.tolist(), strict=True)
            row["sparse"] = {token(id): weight for id, weight in pairs}
        if one.multivector is not None:
            row["multivector"] = one.multivector.tolist()
        yield row


@dataclass(frozen=True)
class Texts:
    """ids: of all texts, in order. read: the texts, streamed anew at each call."""

    ids: list[str]
    read: Callable[[], Iterable[str]]


def read_texts(source: str) -> Texts:
    """The texts of a file, or of stdin for "-": JSONL documents, or one text a line (ids 1, 2, …).

    A file is read through once for its ids, so that a bad line shows before anything is encoded. Blank lines
    of a text file are left out, which shows in the ids. TrichromeError: file and line.
    """
    from trichrome.formats.detect import sniff
    from trichrome.formats.jsonl import iter_documents
    from trichrome.formats.lines import read_lines

    if source == "-":
        found = _read_stdin()
        return Texts(list(found), found.values)
    path = Path(source)
    if not path.is_file():
        raise TrichromeError(f"{source}: no such file; give a text file, a JSONL file, or - for stdin")
    if sniff(path) == "jsonl":
        return Texts(
            [document.id for document in iter_documents(path)],
            lambda: (document.content for document in iter_documents(path)),
        )
    return Texts(
        [str(number) for number, line in read_lines(path) if line.strip()],
        lambda: (line for _, line in read_lines(path) if line.strip()),
    )


def _read_stdin() -> dict[str, str]:
    """Id → text, as of a file; JSONL where the first line is an object."""
    from trichrome.formats.jsonl import document_from_row

    found: dict[str, str] = {}
    as_rows = None
    for number, data in enumerate(sys.stdin.buffer, 1):
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if not line.strip():
                continue
            as_rows = line.startswith("{") if as_rows is None else as_rows
            if as_rows:
                document = document_from_row(json.loads(line))
                id, text = document.id, document.content
            else:
                id, text = str(number), line
            if id in found:
                raise ValueError(f"the id {id!r} was given before")
        except (ValueError, TypeError) as error:
            raise TrichromeError(f"stdin:{number}: {error}; give UTF-8 text or JSONL documents") from None
        found[id] = text
    return found
