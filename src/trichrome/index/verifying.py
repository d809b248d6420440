"""Whether a copy is as its source: counts, a sample of documents, and the answers to sample queries.

The queries are stored documents: their vectors are put to both stores as a question's are. So the check needs
no model, and covers what the stores do: what they keep, find and score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.embeddings import SIGNALS, Embedding, Embeddings
from trichrome.index.store import Store

#: Share of the source's hits that a copy must find, over all queries: graphs miss a few on either side.
AGREEMENT = 0.95
#: How far a copy's numbers and scores may lie from the source's, relative to those above 1: float16 rounds to
#: 0.0005, and int8 copies are scored again.
TOLERANCE = 0.005
#: The same for token vectors in a dtype of a copy that rounds further by design.
COARSER = {"int4": 0.1}
#: The same for dense vectors where a copy makes codes of them: unit vectors are never farther apart. Such a
#: copy finds what the codes are good for, so no share of hits is too small.
CODED = {"pq": 2.0}
#: Scores so near to each other count as equal: any of their documents may come last.
_TIES = 1e-3


@dataclass(frozen=True)
class Verification:
    """What a comparison of two stores found.

    source, target: numbers of documents. compared: documents compared number by number. payloads, tokens:
    ids of those whose payload differs, or whose tokens do. vectors: signal → the largest difference of a
    stored number, 0 where they are the same bit for bit. queries: how many were put to both. agreement:
    signal → the share of the source's hits that the target found (equal scores count as the same). scores:
    signal → the largest difference of a score. problems: what is wrong, in words; none if the copy is good.
    """

    source: int
    target: int
    compared: int
    payloads: list[str]
    tokens: list[str]
    vectors: dict[str, float]
    queries: int
    agreement: dict[str, float]
    scores: dict[str, float]
    problems: list[str] = field(default_factory=list)


def verify_copy(
    source: Store,
    target: Store,
    sample: Sequence[str],
    *,
    queries: int = 50,
    k: int = 10,
    agreement: float = AGREEMENT,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare a store with its copy.

    sample: ids to compare; the first `queries` of them are the queries, k hits each. agreement, tolerance:
    what is a problem; see `AGREEMENT`, `TOLERANCE` and, for the token vectors of coarser copies, `COARSER`.
    """
    counts = source.count(), target.count()
    there = [id for id, row in zip(sample, target.rows_of(sample).tolist(), strict=True) if row >= 0]
    payloads, tokens, vectors = _compare(source, target, there)
    asked = there[:queries]
    shares, scores = _answers(source, target, source.embeddings(source.rows_of(asked)), k)
    found = Verification(*counts, len(there), payloads, tokens, vectors, len(asked), shares, scores)
    limits = dict.fromkeys(SIGNALS, tolerance)
    limits["multivector"] = max(tolerance, COARSER.get(target.manifest.multivector_dtype, 0.0))
    least = dict.fromkeys(SIGNALS, agreement)
    if (dtype := target.manifest.dense_dtype) in CODED and dtype != source.manifest.dense_dtype:
        limits["dense"], least["dense"] = max(tolerance, CODED[dtype]), 0.0
    found.problems.extend(_problems(found, len(sample) - len(there), least, limits))
    return found


def _compare(
    source: Store, target: Store, ids: Sequence[str]
) -> tuple[list[str], list[str], dict[str, float]]:
    """Ids whose payloads differ, ids whose tokens do, and the largest difference of numbers by signal."""
    ours, theirs = source.rows_of(ids), target.rows_of(ids)
    pairs = zip(ids, source.payloads(ours), target.payloads(theirs), strict=True)
    payloads = [id for id, a, b in pairs if a != b]
    tokens: list[str] = []
    largest = dict.fromkeys(_signals(source), 0.0)
    for start in range(0, len(ids), 50):
        part = slice(start, start + 50)
        rows = zip(ids[part], source.embeddings(ours[part]), target.embeddings(theirs[part]), strict=True)
        for id, a, b in rows:
            same = _same_tokens(a, b)
            if not same:
                tokens.append(id)
            for signal in largest:
                if same or signal == "dense":
                    name = "token_weights" if signal == "sparse" else signal
                    difference = _difference(getattr(a, name), getattr(b, name))
                    largest[signal] = max(largest[signal], difference)
    return payloads, tokens, largest


def _same_tokens(a: Embedding, b: Embedding) -> bool:
    ids = a.token_ids is None or b.token_ids is None or np.array_equal(a.token_ids, b.token_ids)
    return ids and (
        a.multivector is None or b.multivector is None or len(a.multivector) == len(b.multivector)
    )


def _answers(
    source: Store, target: Store, queries: Embeddings, k: int
) -> tuple[dict[str, float], dict[str, float]]:
    """signal → share of hits found, signal → largest difference of scores."""
    signals = _signals(source)
    wanted, found = dict.fromkeys(signals, 0), dict.fromkeys(signals, 0)
    apart = dict.fromkeys(signals, 0.0)
    for query in queries:
        met: list[str] = []
        for signal in signals:
            if signal == "multivector":
                continue
            ours, theirs = source.search(signal, query, k), target.search(signal, query, k)
            ids = target.ids(theirs.rows)
            rows = source.rows_of(ids)
            known = rows >= 0
            scores = source.scores(signal, query, rows[known])  # what the source gives to the target's hits
            apart[signal] = max(apart[signal], _difference(scores, theirs.scores[known]))
            floor = ours.scores[-1] if len(ours.scores) else np.inf
            good = int((scores >= floor - _TIES * max(1.0, abs(float(floor)))).sum())
            wanted[signal] += len(ours.rows)
            found[signal] += min(good, len(ours.rows))
            met += [id for id, row in zip(ids, rows.tolist(), strict=True) if row >= 0]
        if "multivector" in signals and met:
            met = list(dict.fromkeys(met))
            a = source.scores("multivector", query, source.rows_of(met))
            b = target.scores("multivector", query, target.rows_of(met))
            apart["multivector"] = max(apart["multivector"], _difference(a, b))
    shares = {signal: found[signal] / wanted[signal] for signal in signals if wanted[signal]}
    return shares, apart


def _problems(
    found: Verification, missing: int, least: Mapping[str, float], limits: Mapping[str, float]
) -> list[str]:
    problems = []
    if found.source != found.target:
        more = "; delete the others with --prune" if found.target > found.source else ""
        problems.append(f"the source holds {found.source:,} documents, the target {found.target:,}{more}")
    if missing:
        problems.append(f"{missing:,} documents of the sample are not in the target")
    for ids, what in ((found.payloads, "payloads"), (found.tokens, "tokens")):
        if ids:
            problems.append(f"the {what} of {len(ids):,} documents differ, the first {ids[0]!r}")
    for signal, difference in found.vectors.items():
        if difference > limits[signal]:
            problems.append(f"{signal} vectors differ by up to {difference:.3g}; copy with --again")
    for signal, share in found.agreement.items():
        if share < least[signal]:
            wanted = f"under {least[signal]:.1%}"
            problems.append(f"{signal} search finds {share:.1%} of the source's hits, {wanted}")
    for signal, difference in found.scores.items():
        if difference > limits[signal]:
            problems.append(f"{signal} scores differ by up to {difference:.3g}, over {limits[signal]:g}")
    return problems


def _signals(store: Store) -> list[str]:
    """The signals that a store holds."""
    there = {
        "dense": store.manifest.dense_dim is not None,
        "sparse": store.manifest.sparse,
        "multivector": store.manifest.multivector_dim is not None,
    }
    return [signal for signal, held in there.items() if held]


def _difference(a: NDArray[np.floating[Any]] | None, b: NDArray[np.floating[Any]] | None) -> float:
    """The largest difference of two arrays' numbers, relative to those above 1."""
    if a is None or b is None or not a.size:
        return 0.0
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return float((np.abs(a - b) / np.maximum(1.0, np.abs(a))).max())
