"""What posting lists in blocks are, for `seismic` to search and `seismic_build` to make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trichrome.embeddings import check_offsets

Array: TypeAlias = NDArray[Any]


class Blocks(NamedTuple):
    """The lists of m tokens: B blocks, P postings, E numbers of summaries.

    tokens: [m] int32 token ids, ascending. lists: [m+1] int64, list t has the blocks lists[t]:lists[t+1].
    starts: [B+1] int64, block b has texts[starts[b]:starts[b+1]]. texts: [P] int32, ascending in a block.
    steps: [B] float32; a code c of block b's summary stands for c · steps[b]. entries: [m+1] int64, the
    summaries of list t are entries[t]:entries[t+1] of the three that follow, by token, then by block.
    ids: [E] int32 token ids. places: [E] uint16, which block of the list. codes: [E] uint8, 1…255.
    """

    tokens: Array
    lists: Array
    starts: Array
    texts: Array
    steps: Array
    entries: Array
    ids: Array
    places: Array
    codes: Array

    @property
    def nbytes(self) -> int:
        """Without the tokens, which the postings hold as well."""
        return sum(array.nbytes for array in self[1:])


DTYPES: Mapping[str, type] = {
    "tokens": np.int32,
    "lists": np.int64,
    "starts": np.int64,
    "texts": np.int32,
    "steps": np.float32,
    "entries": np.int64,
    "ids": np.int32,
    "places": np.uint16,
    "codes": np.uint8,
}


def check_blocks(blocks: Blocks, n: int) -> None:
    """ValueError where a number would lead outside of an array, for n texts: compiled code does not look."""
    for name, dtype in DTYPES.items():
        array = getattr(blocks, name)
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"blocks.{name}: {array.dtype} of shape {array.shape}")
    check_offsets("blocks.lists", blocks.lists, len(blocks.steps))
    check_offsets("blocks.starts", blocks.starts, len(blocks.texts))
    check_offsets("blocks.entries", blocks.entries, len(blocks.ids))
    m, wanted = len(blocks.tokens), len(blocks.ids)
    lengths = (len(blocks.lists) - 1, len(blocks.entries) - 1, len(blocks.starts) - 1)
    if lengths != (m, m, len(blocks.steps)) or {len(blocks.places), len(blocks.codes)} != {wanted}:
        raise ValueError("the parts of its blocks differ in length")
    if len(blocks.texts) and (blocks.texts.min() < 0 or blocks.texts.max() >= n):
        raise ValueError("its blocks name documents that are not there")
    if not _places_fit(blocks):
        raise ValueError("its summaries name blocks that are not there")


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _places_fit(blocks: Blocks) -> bool:
    for t in range(len(blocks.tokens)):
        count = blocks.lists[t + 1] - blocks.lists[t]
        for e in range(blocks.entries[t], blocks.entries[t + 1]):
            if blocks.places[e] >= count:
                return False
    return True
