"""nDCG@10, Recall@100 and MRR@10 by ir-measures, per query, on average and per language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.extras import require
from trichrome.records import Qrels, Run

#: The metrics' names here and their names in ir-measures.
METRICS: Mapping[str, str] = {"nDCG@10": "nDCG@10", "Recall@100": "R@100", "MRR@10": "RR@10"}
#: How deep a ranking these metrics look at.
METRICS_DEPTH = 100
#: Queries whose rankings are unfolded into dictionaries at a time.
_BLOCK = 2000


def per_query(qrels: Qrels, run: Run, queries: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Metric → [Q] values in the order of `queries`, in 0 … 1.

    A query with no ranking scores 0. A document is relevant from grade 1 on; nDCG's gain is the grade, as
    in trec_eval. Errors: TrichromeError where the extra `eval` is not installed.
    """
    ir_measures = require("ir_measures")
    wanted = {ir_measures.parse_measure(theirs): ours for ours, theirs in METRICS.items()}
    place = {query: i for i, query in enumerate(queries)}
    values = {name: np.zeros(len(queries)) for name in METRICS}
    waiting = iter(queries)
    while block := list(islice(waiting, _BLOCK)):
        judged = {query: dict(qrels[query]) for query in block if qrels.get(query)}
        ranked = {query: dict(run[query]) for query in judged if query in run}
        if not judged or not any(ranked.values()):
            continue
        for result in ir_measures.iter_calc(list(wanted), judged, ranked):
            values[wanted[result.measure]][place[result.query_id]] = result.value
    return values


def means(values: Mapping[str, NDArray[Any]], rows: NDArray[Any] | None = None) -> dict[str, float]:
    """Metric → mean over all queries, or over some of them; 0 where there is none."""
    chosen = {name: column if rows is None else column[rows] for name, column in values.items()}
    return {name: float(column.mean()) if len(column) else 0.0 for name, column in chosen.items()}


def rows_by_language(langs: Sequence[str | None]) -> dict[str, NDArray[np.int64]]:
    """Language → positions of its queries, in alphabetical order; "unknown" where no language is given."""
    names = np.array([lang or "unknown" for lang in langs], dtype=object)
    return {name: np.flatnonzero(names == name) for name in sorted(set(names.tolist()))}
