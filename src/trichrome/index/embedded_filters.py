"""A `Filter` in the words of Qdrant Edge; `filters` says what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import qdrant_edge as engine

from trichrome.index.filters import check_filter
from trichrome.index.points import EXACT_INTEGERS, field_path
from trichrome.index.store import Filter
from trichrome.records import JSON


def to_engine(where: Filter | None) -> engine.Filter | None:
    """The engine's form of a filter; raises TrichromeError where `check_filter` does."""
    if not where:
        return None
    check_filter(where)
    return engine.Filter(must=[_condition(field_path(key), condition) for key, condition in where.items()])


def _condition(path: str, condition: JSON) -> Any:  # any of the engine's conditions
    if isinstance(condition, list):
        if not condition:  # nothing is any of nothing
            return engine.HasIdCondition(set())
        texts = [value for value in condition if isinstance(value, str)]
        if len(texts) == len(condition):
            return engine.FieldCondition(path, match=engine.MatchAny(texts))
        return engine.Filter(should=[_condition(path, value) for value in condition])
    if isinstance(condition, dict):
        return engine.FieldCondition(path, range=engine.RangeFloat(**_bounds(condition)))
    if condition is None:
        return engine.IsEmptyCondition(path)
    if isinstance(condition, bool):  # the binding takes Python's own booleans for the integers 0 and 1
        value: Any = np.bool_(condition)
        return engine.FieldCondition(path, match=engine.MatchValue(value))
    if isinstance(condition, str) or (isinstance(condition, int) and abs(condition) >= EXACT_INTEGERS):
        return engine.FieldCondition(path, match=engine.MatchValue(condition))
    return engine.FieldCondition(path, range=engine.RangeFloat(gte=condition, lte=condition))


def _bounds(condition: dict[str, JSON]) -> dict[str, float]:
    return {name: float(bound) for name, bound in condition.items() if isinstance(bound, (int, float))}
