"""Examples in mapped files: found again row by row, in little memory, every bad row named."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import TEXTS, tiny_encoder
from trichrome.errors import TrichromeError
from trichrome.formats.flagembedding import read_examples
from trichrome.training.batches import BatchPlan, BatchSettings
from trichrome.training.examples import BadRows, Examples
from trichrome.training.lengths import token_lengths

ROWS: list[dict[str, Any]] = [
    {"query": "what is a moon?", "pos": ["light", "a light 月光"], "neg": ["a cat"], "lang": "en", "id": 7},
    {"query": "川", "pos": ["月光川"], "lang": "ja", "pos_ids": ["d1"], "pos_scores": [0.5]},
    {"query": "цукен", "pos": ["the river"], "neg": ["dog", "bird"], "prompt": "find: "},
]


def write(path: Path, lines: list[Any]) -> Path:
    """JSON lines, or strings and bytes as they are; gzip where the name says so."""
    made = [x if isinstance(x, str | bytes) else json.dumps(x, ensure_ascii=False) for x in lines]
    data = b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in made)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_are_those_of_the_reader(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [ROWS[0], "", ROWS[1], ROWS[2]])
    examples = Examples.open([path], cache=tmp_path / "cache")
    assert list(examples) == list(read_examples(path))
    assert [examples[i] for i in (2, 0, 1)] == [list(read_examples(path))[i] for i in (2, 0, 1)]
    assert [examples.lang(i) for i in range(3)] == ["en", "ja", None]
    assert examples.languages == ["en", "ja"]
    assert examples.task(0) == "rows"
    assert examples.report.read == 3
    with pytest.raises(IndexError):
        examples[3]


def test_line_ends_and_a_byte_order_mark_do_not_shift_rows(tmp_path: Path) -> None:
    lines = [json.dumps(r, ensure_ascii=False).encode() for r in ROWS]
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))  # and no end at the last line
    assert [e.query for e in Examples.open([path], cache=tmp_path / "c")] == [r["query"] for r in ROWS]


def test_several_files_are_one_sequence(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.jsonl", ROWS[:2]), write(tmp_path / "two.jsonl.gz", ROWS[2:])
    examples = Examples.open([one, two], cache=tmp_path / "cache")
    assert [e.query for e in examples] == [r["query"] for r in ROWS]
    assert [examples.task(i) for i in range(3)] == ["one", "one", "two"]
    (tmp_path / "other").mkdir()
    same = write(tmp_path / "other" / "one.jsonl", ROWS[:1])
    with pytest.raises(TrichromeError, match="two files are called one"):
        Examples.open([one, same], cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["bad.jsonl", "bad.jsonl.gz"])
def test_every_bad_row_is_named(tmp_path: Path, name: str) -> None:
    bad: list[Any] = [
        {"query": "no passage"},
        ROWS[0],
        {"query": "a number", "pos": [3]},
        "{",
        b'{"query": "\xff", "pos": ["a"]}',
        {"query": "x", "pos": ["a"], "pos_scores": [1, 2]},
        {"query": "none", "pos": []},
    ]
    path = write(tmp_path / name, bad)
    with pytest.raises(BadRows) as error:
        Examples.open([path], cache=tmp_path / "cache")
    places = [place for places in error.value.report.skipped.values() for place in places]
    assert sorted(places) == [f"{path}:{line}" for line in (1, 3, 4, 5, 6, 7)]
    for line, reason in ((1, 'no "pos"'), (3, '"pos"[0] must be a string'), (4, "the JSON is cut")):
        assert f"{path}:{line}: {reason}" in str(error.value)
    examples = Examples.open([path], skip_bad=True, cache=tmp_path / "cache")
    assert [e.query for e in examples] == [ROWS[0]["query"]]
    assert (examples.report.read, examples.report.skipped_count) == (1, 6)
    assert int(examples.files[0].rows[0]["line"]) == 2


def test_a_single_bad_row_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", [ROWS[0], {"query": "none", "pos": []}])
    with pytest.raises(BadRows, match=r"bad.jsonl:2: \"pos\" is empty.*; each row needs") as error:
        Examples.open([path], cache=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_files_that_hold_nothing_or_are_cut_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TrichromeError, match="no such file"):
        Examples.open([tmp_path / "none.jsonl"], cache=tmp_path / "cache")
    with pytest.raises(TrichromeError, match="no training example"):
        Examples.open([write(tmp_path / "empty.jsonl", [])], cache=tmp_path / "cache")
    whole = write(tmp_path / "cut.jsonl.gz", ROWS * 50).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(TrichromeError, match="cut or damaged"):
        Examples.open([tmp_path / "cut.jsonl.gz"], skip_bad=True, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob(".indexing-*"))


def test_a_changed_file_is_indexed_anew_and_a_damaged_index_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl.gz", ROWS[:1])
    assert len(Examples.open([path], cache=tmp_path / "cache")) == 1
    write(path, ROWS)
    assert len(Examples.open([path], cache=tmp_path / "cache")) == 3
    for name in ("rows.bin", "lines.jsonl", "about.json"):
        for file in (tmp_path / "cache").glob(f"*/{name}"):
            file.write_bytes(file.read_bytes()[:-7])
        assert [e.query for e in Examples.open([path], cache=tmp_path / "cache")] == [
            r["query"] for r in ROWS
        ]


def test_a_row_overwritten_under_the_map_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    examples = Examples.open([path], cache=tmp_path / "cache")
    with path.open("r+b") as file:
        file.seek(int(examples.files[0].rows[1]["offset"]))
        file.write(b"xxxx")
    assert examples[0].query == ROWS[0]["query"]
    with pytest.raises(TrichromeError, match=r"rows.jsonl:2: no longer what it was"):
        examples[1]


def test_lengths_are_the_tokenizers_and_follow_the_content(tmp_path: Path) -> None:
    texts = [text * 3 for text in TEXTS if text]
    rows = [{"query": a, "pos": [b, "moon"], "neg": [a]} for a, b in itertools.pairwise(texts)]
    path = write(tmp_path / "one.jsonl", rows)
    encoder = tiny_encoder(prompts={"query": "what ", "passage": "the "})
    examples = Examples.open([path], cache=tmp_path / "cache")
    lengths = token_lengths(examples, encoder.tokenizer, tmp_path / "cache")
    for i, example in enumerate(examples):
        tokens = encoder.tokenizer.encode([example.query], "query")
        tokens += encoder.tokenizer.encode([*example.positives, *example.negatives], "passage")
        assert lengths[i].tolist() == [len(t.ids) + t.cut for t in tokens]
    assert max(lengths[4]) > encoder.tokenizer.config.max_tokens  # uncut, so one text was longer
    moved = write(tmp_path / "two.jsonl.gz", rows)
    before = sorted((tmp_path / "cache").glob("*.lengths"))
    again = token_lengths(
        Examples.open([moved], cache=tmp_path / "cache"), encoder.tokenizer, tmp_path / "cache"
    )
    assert np.array_equal(again[4], lengths[4])
    assert sorted((tmp_path / "cache").glob("*.lengths")) == before


def test_many_rows_take_no_more_memory_than_few(tmp_path: Path) -> None:
    tokenizer = tiny_encoder().tokenizer
    settings = BatchSettings(token_budget=2000, passage_tokens=32, groups=(8, 16, 32))

    def peak(n: int) -> int:
        path = tmp_path / f"{n}.jsonl"
        with path.open("w") as file:
            for i in range(n):
                file.write(json.dumps({"query": "a" * (i % 5 + 1), "pos": ["b" * (i % 29 + 1)]}) + "\n")
        gc.collect()
        tracemalloc.start()
        plan = BatchPlan(Examples.open([path], cache=tmp_path / "c"), tokenizer, settings, tmp_path / "c")
        for step in np.linspace(0, plan.steps() - 1, 20).astype(int).tolist():
            plan.batch(1, step)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(100)  # what is made once: imports, caches
    few, many = peak(9_000), peak(36_000)
    assert many < few + 500_000  # a list of 27,000 row numbers alone is twice that
