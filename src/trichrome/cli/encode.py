"""`trichrome encode`: texts to a file of embeddings, or to sparse weights as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trichrome.cli.console import Stopped, bar, counting_cuts, note, print_json
from trichrome.cli.settings import JsonOption, ModelOption, PrecisionOption, open_model
from trichrome.errors import TrichromeError

if TYPE_CHECKING:
    from trichrome.encoder import Progress


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
        str | None, typer.Option(help="Of dense,sparse,multivector; all that the model has by default.")
    ] = None,
    dtype: PrecisionOption = "float32",
    devices: Annotated[str | None, typer.Option(help="Several, side by side: cuda:0,cuda:1")] = None,
    token_budget: Annotated[int | None, typer.Option(min=16, help="Padded tokens a forward pass.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Encode texts: one safetensors file of all outputs, or (--json) {token: weight} of each text.

    The file opens with trichrome.Embeddings.load; its ids stand in FILE.ids.json, in the same order.
    """
    if (to is None) == (not as_json):
        raise typer.BadParameter("give --to FILE for embeddings, or --json for sparse weights (one of them)")
    ids, texts = read_texts(source)
    if not texts:
        raise TrichromeError(f"{source}: no text to encode")
    wanted = ["sparse"] if as_json else outputs.split(",") if outputs else None
    encoder = open_model(model, dtype)
    try:
        with bar("encode", len(texts)) as shown, counting_cuts() as cut:
            embeddings = encoder.encode(
                texts,
                kind,
                wanted,
                token_budget=token_budget,
                devices=devices.split(",") if devices else None,
                progress=_shown(shown.at),
            )
    except KeyboardInterrupt:
        raise Stopped("stopped; nothing was written") from None
    if count := cut():
        note(f"{count:,} of {len(texts):,} texts were cut to the {encoder.config.max_tokens} tokens read")
    if to is None:
        rows = embeddings.sparse_tokens(encoder.token)
        print_json([{"id": id, "sparse": row} for id, row in zip(ids, rows, strict=True)])
        return
    from trichrome.storage import write_json

    write_json(to.with_name(f"{to.name}.ids.json"), ids)
    embeddings.save(to)
    note(f"wrote {to} ({', '.join(embeddings.signals)} of {len(texts):,} texts) and {to.name}.ids.json")


def read_texts(source: str) -> tuple[list[str], list[str]]:
    """Ids and texts of a file, or of stdin for "-": JSONL documents, or one text a line (ids 1, 2, …).

    Blank lines of a text file are left out, which shows in the ids. TrichromeError: file and line.
    """
    from trichrome.formats.detect import sniff
    from trichrome.formats.jsonl import iter_documents
    from trichrome.formats.lines import read_lines

    if source != "-":
        if not Path(source).is_file():
            raise TrichromeError(f"{source}: no such file; give a text file, a JSONL file, or - for stdin")
        if sniff(Path(source)) == "jsonl":
            documents = list(iter_documents(source))
            return [d.id for d in documents], [d.content for d in documents]
        lines = [(str(number), line) for number, line in read_lines(source) if line.strip()]
        return [id for id, _ in lines], [line for _, line in lines]
    return _read_stdin()


def _read_stdin() -> tuple[list[str], list[str]]:
    """As a file's; JSONL where the first line is an object."""
    from trichrome.formats.jsonl import document_from_row

    found: dict[str, str] = {}
    rows = None
    for number, data in enumerate(sys.stdin.buffer, 1):
        try:
            line = data.decode().rstrip("\r\n")
            if not line.strip():
                continue
            rows = line.startswith("{") if rows is None else rows
            if rows:
                document = document_from_row(json.loads(line))
                id, text = document.id, document.content
            else:
                id, text = str(number), line
            if id in found:
                raise ValueError(f"the id {id!r} was given before")
        except (ValueError, TypeError) as error:
            raise TrichromeError(f"stdin:{number}: {error}; give UTF-8 text or JSONL documents") from None
        found[id] = text
    return list(found), list(found.values())


def _shown(at: Callable[[float], None]) -> Callable[[Progress], None]:
    return lambda progress: at(progress.texts)
