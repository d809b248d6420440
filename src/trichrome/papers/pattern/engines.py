"""Other people's engines, where they are installed, to set beside trichrome's own parts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import Sparse
from trichrome.extras import require
from trichrome.index.seismic import Effort
from trichrome.index.seismic_build import Blocking


def has_pyseismic() -> bool:
    """Whether `pyseismic-lsr`, the authors' engine, is installed."""
    return find_spec("seismic") is not None


class PySeismic:
    """The engine of Seismic's authors (`pip install pyseismic-lsr`) over sparse rows, on one thread."""

    def __init__(self, texts: Sparse, how: Blocking) -> None:
        """TrichromeError where it is not installed. Its draws are its own: no seed."""
        engine = require("seismic", "seismic")
        self._tokens, columns = np.unique(np.asarray(texts.ids), return_inverse=True)
        self._string = engine.get_seismic_string()
        with _quiet():
            rows = engine.SeismicDatasetLV(len(self._tokens))
            rows.add_documents_by_id(
                [str(i) for i in range(len(texts))],
                columns.astype(np.int64),
                np.asarray(texts.weights, np.float32),
                np.asarray(texts.indptr, np.int64),
            )
            start = time.perf_counter()
            self._index = engine.SeismicIndexLV.build_from_dataset(
                rows,
                n_postings=how.postings or len(texts),
                centroid_fraction=how.centres,
                min_cluster_size=how.smallest,
                summary_energy=how.energy,
                max_fraction=how.longest,
                num_threads=1,
            )
            #: Seconds that building the index took.
            self.seconds = time.perf_counter() - start

    def search(
        self, queries: Sequence[tuple[NDArray[Any], NDArray[Any]]], k: int, effort: Effort
    ) -> tuple[list[NDArray[np.int64]], float]:
        """The texts found for each query, best first, and the seconds that all of them took."""
        numbers = np.array([str(i) for i in range(len(queries))]).astype(self._string)
        tokens, weights = [], []
        for ids, values in queries:
            known = np.isin(ids, self._tokens)
            tokens.append(np.searchsorted(self._tokens, ids[known]).astype(str).astype(self._string))
            weights.append(np.asarray(values[known], np.float32))
        cut = effort.cut or max((len(t) for t in tokens), default=1)
        start = time.perf_counter()
        answers = self._index.batch_search(numbers, tokens, weights, k, cut, effort.factor, num_threads=1)
        seconds = time.perf_counter() - start
        made = [np.empty(0, np.int64)] * len(queries)
        for hits in answers:
            if hits:
                made[int(hits[0][0])] = np.array([int(text) for _, _, text in hits], np.int64)
        return made, seconds


@contextmanager
def _quiet() -> Iterator[None]:
    """What an engine says on stdout goes nowhere: stdout is for results."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
