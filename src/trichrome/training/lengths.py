"""How many tokens the texts of training data have, counted once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trichrome.encoder.tokenizer import TextTokenizer
from trichrome.storage import atomic_write, default_cache
from trichrome.training.examples import ExampleFile, Examples
from trichrome.training.mapped import MappedArray

#: Texts that are tokenised at a time, and rows that are looked at at a time.
_TEXTS, _ROWS = 2048, 1 << 13
#: CLS and EOS.
_SPECIAL = 2


class Lengths:
    """Token counts of every text of some examples, uncut, prompts, CLS and EOS included; mapped from files.

    `lengths[i]` is row i's [1 + P + N] counts: its query's, its positives', its negatives'.
    """

    def __init__(self, examples: Examples, counts: list[MappedArray]) -> None:
        self.examples = examples
        self._counts = dict(zip((id(f) for f in examples.files), counts, strict=True))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        file, number = self.examples.place(i)
        row = file.rows[number]
        start = int(row["texts"])
        stop = start + 1 + int(row["positives"]) + int(row["negatives"])
        found: NDArray[np.int32] = self._counts[id(file)].read(start, stop)
        return found

    def chunks(self) -> Iterator[tuple[int, int, NDArray[np.void], NDArray[np.int32], NDArray[np.int64]]]:
        """Pieces of each file in turn: (which file, number of the first row among all rows, rows [n] of ROW,
        counts [T] of all their texts, first [n] the place of each row's query in counts)."""
        before = 0
        for number, file in enumerate(self.examples.files):
            counts = self._counts[id(file)]
            for start in range(0, len(file), _ROWS):
                rows = file.rows.read(start, start + _ROWS)
                last = rows[-1]
                begin, end = (
                    int(rows["texts"][0]),
                    int(last["texts"] + 1 + last["positives"] + last["negatives"]),
                )
                yield number, before + start, rows, counts.read(begin, end), rows["texts"] - begin
            before += len(file)


def token_lengths(examples: Examples, tokenizer: TextTokenizer, cache: str | Path | None = None) -> Lengths:
    """Count now what was not counted yet. The counts are kept by the files' contents and the tokenizer.

    cache: as in Examples.open. Further CLS tokens under MCLS are not counted.
    """
    folder = Path(cache) if cache is not None else default_cache() / "training"
    rules = json.dumps(dict(tokenizer.config.prompts), sort_keys=True, ensure_ascii=False)
    reader = hashlib.sha256((tokenizer.tokenizer.to_str() + rules).encode()).hexdigest()[:16]
    counts = []
    for file in examples.files:
        path = folder / f"{file.digest}-{reader}.lengths"
        size = _texts(file)
        if not path.is_file() or path.stat().st_size != 4 * size:
            with atomic_write(path) as out:
                for part in _counted(file, tokenizer):
                    out.write(part.tobytes())
        counts.append(MappedArray.open(path, np.dtype(np.int32)))
    return Lengths(examples, counts)


def _texts(file: ExampleFile) -> int:
    """How many texts the file's rows have."""
    if not len(file):
        return 0
    last = file.rows[len(file) - 1]
    return int(last["texts"] + 1 + last["positives"] + last["negatives"])


def _counted(file: ExampleFile, tokenizer: TextTokenizer) -> Iterator[NDArray[np.int32]]:
    """Token counts of the file's texts in their order, in pieces."""
    prompts = tokenizer.config.prompts
    texts: list[str] = []
    for i in range(len(file)):
        example = file[i]
        texts.append(prompts["query"] + (example.prompt or "") + example.query)
        texts += [prompts["passage"] + text for text in (*example.positives, *example.negatives)]
        if len(texts) >= _TEXTS or i == len(file) - 1:
            yield np.array([len(ids) + _SPECIAL for ids in tokenizer.plain(texts)], np.int32)
            texts = []
