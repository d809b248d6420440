"""Which values a field of an index has: what a page offers as filters."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from trichrome.index import Store

#: Passages looked at, and values told, at most: no request reads a large index whole.
READ, TOLD = 100_000, 1000


def count_values(store: Store, field: str) -> dict[str, Any]:
    """{"values": [{"value", "count"}], the most frequent first, "read", "complete"}.

    field: a top-level key of the payload. Strings are counted, alone or in a list.
    """
    counts: Counter[str] = Counter()
    read = 0
    for _, payload in islice(store.scan(fields=[field]), READ):
        read += 1
        value = payload.get(field)
        counts.update(v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str))
    told = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOLD]
    return {
        "values": [{"value": value, "count": count} for value, count in told],
        "read": read,
        "complete": read == store.count() and len(told) == len(counts),
    }
