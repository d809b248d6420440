"""A `Filter` in the words of qdrant-client; `filters` says what it means."""

from __future__ import annotations

import math
import sys
from typing import Any

from trichrome.extras import require
from trichrome.index.filters import check_filter
from trichrome.index.points import EXACT_INTEGERS, field_path
from trichrome.index.store import Filter
from trichrome.records import JSON

models: Any = require("qdrant_client.models", "cluster")


def to_models(where: Filter | None) -> Any:
    """The client's form of a filter, None for none; raises TrichromeError where `check_filter` does."""
    if not where:
        return None
    check_filter(where)
    return models.Filter(must=[_condition(field_path(key), condition) for key, condition in where.items()])


def nothing() -> Any:
    """The condition that no point satisfies."""
    return models.HasIdCondition(has_id=[])


def _condition(path: str, condition: JSON) -> Any:
    if isinstance(condition, list):
        if not condition:  # nothing is any of nothing
            return nothing()
        texts = [value for value in condition if isinstance(value, str)]
        if len(texts) == len(condition):
            return models.FieldCondition(key=path, match=models.MatchAny(any=texts))
        return models.Filter(should=[_condition(path, value) for value in condition])
    if isinstance(condition, dict):
        return _range(path, {k: float(v) for k, v in condition.items() if isinstance(v, (int, float))})
    if condition is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    if isinstance(condition, (bool, str)) or (
        isinstance(condition, int) and abs(condition) >= EXACT_INTEGERS
    ):
        return models.FieldCondition(key=path, match=models.MatchValue(value=condition))
    return _range(path, {"gte": float(condition), "lte": float(condition)})


def _range(path: str, bounds: dict[str, float]) -> Any:
    """A range of finite bounds, for JSON has no infinity: the largest float stands for it."""
    largest, made = sys.float_info.max, {}
    for name, bound in bounds.items():
        if math.isfinite(bound):
            made[name] = bound
        elif (bound > 0) == name.startswith("g"):  # greater than infinity, or less than minus infinity
            return nothing()
        else:  # any number will do, and says so without taking the place of another bound
            made.setdefault("lte" if bound > 0 else "gte", math.copysign(largest, bound))
    return models.FieldCondition(key=path, range=models.Range(**made))
