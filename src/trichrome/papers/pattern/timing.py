"""What a query costs in encoders that are set beside each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from trichrome.encoder import Encoder


def milliseconds_each(encoders: Sequence[Encoder], texts: Sequence[str]) -> list[float]:
    """Of one query at a time, from its text to its dense vector: the median over the texts, by encoder.

    Each text goes through all encoders in turn, so that whatever else the machine does meets all of them.
    """
    spent: list[list[float]] = [[] for _ in encoders]
    for text in [texts[0], *texts]:  # the first time is a warm-up
        for encoder, times in zip(encoders, spent, strict=True):
            begun = time.perf_counter()
            encoder.encode([text], "query", ("dense",))
            times.append(time.perf_counter() - begun)
    return [1000 * median(times[1:]) for times in spent]
