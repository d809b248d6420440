"""FlagEmbedding's training JSONL: one query with its positive and negative passages a line.

Keys: ``query`` (string), ``pos`` (array, at least one), ``neg`` (array, may be empty or absent),
``pos_scores`` and ``neg_scores`` (numbers, one a passage, or null), ``prompt``, ``type``, ``lang``.
Beyond its own: ``id`` (what the row is about), ``pos_ids`` and ``neg_ids`` (document ids, one a passage).
Other keys are no part of a TrainingExample and stay in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trichrome.formats.jsonl import encodable
from trichrome.formats.lines import fault, id_field, json_rows, kind, text_field, write_lines
from trichrome.formats.report import ReadReport, Records
from trichrome.records import TrainingExample

EXAMPLE_FIX = (
    'each row needs "query" (a string) and "pos" (an array of strings); mend it, or read with skip_bad=True'
)


def read_examples(path: str | Path, *, skip_bad: bool = False) -> Records[TrainingExample]:
    """The examples of a file, plain or gzip; streamed anew at each iteration, with `.report` of the latest.

    skip_bad: leave bad rows out and list them in the report, by reason, as path:line; else the first one
    raises.
    TrichromeError: a bad row (file, line, reason), a missing file, a cut gzip.
    """
    path = Path(path)
    if not path.is_file():
        raise fault(path, "no such file", "check the path")
    return Records(
        path, "flagembedding", lambda report: iter_examples(path, skip_bad=skip_bad, report=report)
    )


def iter_examples(
    path: str | Path, *, skip_bad: bool = False, report: ReadReport | None = None
) -> Iterator[TrainingExample]:
    """Stream the examples of a file; see read_examples."""
    rows = json_rows(path, example_from_row, fix=EXAMPLE_FIX, skip_bad=skip_bad, report=report)
    return (example for _, example in rows)


def example_from_row(row: dict[str, Any]) -> TrainingExample:
    """One example from its JSON object. ValueError or TypeError says what is wrong with it."""
    example = TrainingExample(
        query=text_field(row, "query"),
        positives=_texts(row, "pos"),
        negatives=_texts(row, "neg") if row.get("neg") is not None else (),
        positive_scores=_scores(row, "pos_scores", "pos"),
        negative_scores=_scores(row, "neg_scores", "neg"),
        prompt=None if row.get("prompt") is None else text_field(row, "prompt"),
        type=None if row.get("type") is None else text_field(row, "type"),
        lang=None if row.get("lang") is None else text_field(row, "lang"),
        id=None if row.get("id") is None else id_field(row, "id"),
        positive_ids=_ids(row, "pos_ids", "pos"),
        negative_ids=_ids(row, "neg_ids", "neg"),
    )
    _refuse_blank(example)
    return example


def _refuse_blank(example: TrainingExample) -> None:
    """A blank text can't be learnt from, and shows up only much later, as a loss that won't fall."""
    if not example.query.strip():
        raise ValueError('"query" is empty')
    for name, texts in (("pos", example.positives), ("neg", example.negatives)):
        for i, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f'"{name}"[{i}] is empty')


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    if name not in row:
        raise ValueError(f'no "{name}"')
    values = row[name]
    if not isinstance(values, list):
        raise TypeError(f'"{name}" must be an array of strings, got a {kind(values)}: {values!r:.60}')
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f'"{name}"[{i}] must be a string, got a {kind(value)}: {value!r:.60}')
    if name == "pos" and not values:
        raise ValueError('"pos" is empty: at least one positive passage is needed')
    return tuple(values)


def _scores(row: dict[str, Any], name: str, passages: str) -> tuple[float, ...] | None:
    values = row.get(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise TypeError(f'"{name}" must be an array of numbers, got a {kind(values)}: {values!r:.60}')
    for i, value in enumerate(values):
        if type(value) not in (int, float):
            raise TypeError(f'"{name}"[{i}] must be a number, got a {kind(value)}: {value!r:.60}')
    if len(values) != len(row.get(passages) or ()):
        raise ValueError(
            f'"{name}" holds {len(values)} scores for {len(row.get(passages) or ())} "{passages}"'
        )
    return tuple(float(value) for value in values)


def _ids(row: dict[str, Any], name: str, passages: str) -> tuple[str, ...] | None:
    values = row.get(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise TypeError(f'"{name}" must be an array of ids, got a {kind(values)}: {values!r:.60}')
    for i, value in enumerate(values):
        if type(value) not in (int, str):
            raise TypeError(f'"{name}"[{i}] must be a string, got a {kind(value)}: {value!r:.60}')
    if len(values) != len(row.get(passages) or ()):
        raise ValueError(f'"{name}" holds {len(values)} ids for {len(row.get(passages) or ())} "{passages}"')
    return tuple(str(value) for value in values)


def write_examples(path: str | Path, examples: Iterable[TrainingExample]) -> int:
    """Write examples (gzip where the name ends in .gz), whole or not at all; returns how many.

    TrichromeError: an example with a blank query or passage, or a score that is NaN or infinite.
    """
    return write_lines(path, _lines(Path(path), examples))


def _lines(path: Path, examples: Iterable[TrainingExample]) -> Iterator[str]:
    for number, example in enumerate(examples, 1):
        try:
            _refuse_blank(example)
        except ValueError as error:
            raise fault(f"{path}:{number}", str(error), "leave that example out") from None
        row: dict[str, Any] = {
            "query": example.query,
            "pos": list(example.positives),
            "neg": list(example.negatives),
            "pos_scores": None if example.positive_scores is None else list(example.positive_scores),
            "neg_scores": None if example.negative_scores is None else list(example.negative_scores),
            "prompt": example.prompt,
            "type": example.type,
            "lang": example.lang,
            "id": example.id,
            "pos_ids": None if example.positive_ids is None else list(example.positive_ids),
            "neg_ids": None if example.negative_ids is None else list(example.negative_ids),
        }
        yield encodable(path, number, {name: value for name, value in row.items() if value is not None})
