"""Which payloads a filter lets through: the meaning that every store gives to a `Filter`.

A filter maps keys to conditions, and all must hold. A key reaches into objects with dots ("source.page").
The condition is
    a string, number or boolean   the field equals it (1 equals 1.0; true is not 1)
    null                          the field is absent, null or an empty list
    a list of such values         the field equals any of them (an empty list lets nothing through)
    {"gte": a, "lt": b, …}        the field is a number in the range; gt, gte, lt, lte
Where the field holds a list, one of its elements must satisfy the condition. Dots do not reach into lists.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping

from trichrome.errors import TrichromeError
from trichrome.index.store import Filter
from trichrome.records import JSON, Payload

RANGE_OPERATORS = ("gt", "gte", "lt", "lte")


def check_filter(where: Filter) -> None:
    """Raise TrichromeError, naming the key, for a condition that has no meaning."""
    if not isinstance(where, Mapping):
        raise TrichromeError(f"a filter must map keys to conditions, got {type(where).__name__}")
    for key, condition in where.items():
        if not isinstance(key, str) or not all(key.split(".")) or set(key) & {'"', "\\"}:
            raise TrichromeError(
                f"filter key {key!r}: must be names joined by dots, without quotes and backslashes"
            )
        if isinstance(condition, Mapping):
            _check_range(key, condition)
        else:
            for value in condition if isinstance(condition, list) else [condition]:
                if not isinstance(value, (str, bool, int, float)) and value is not None:
                    raise TrichromeError(f"filter {key!r}: cannot compare with {value!r:.60}")
                if isinstance(value, float) and not math.isfinite(value):
                    raise TrichromeError(f"filter {key!r}: {value} is not a JSON number")


def _check_range(key: str, condition: Mapping[str, JSON]) -> None:
    if not condition or not set(condition) <= set(RANGE_OPERATORS):
        raise TrichromeError(f"filter {key!r}: a range takes {', '.join(RANGE_OPERATORS)}, got {condition!r}")
    for name, bound in condition.items():
        if not isinstance(bound, (int, float)) or isinstance(bound, bool) or math.isnan(bound):
            raise TrichromeError(f"filter {key!r}: {name} must be a number, got {bound!r:.60}")


def matches(payload: Payload, where: Filter) -> bool:
    """Whether a payload satisfies every condition of a filter."""
    return all(satisfies(field_of(payload, key), condition) for key, condition in where.items())


def field_of(payload: Payload, key: str) -> JSON:
    """The value under a dotted key, None where there is none."""
    value: JSON = payload
    for name in key.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def satisfies(value: JSON, condition: JSON) -> bool:
    """Whether one field's value satisfies one condition (which `check_filter` has passed)."""
    if isinstance(condition, list):
        return any(satisfies(value, choice) for choice in condition)
    if condition is None:
        return value is None or value == []
    if isinstance(value, list):
        return any(satisfies(element, condition) for element in value if not isinstance(element, list))
    if isinstance(condition, dict):
        return _in_range(value, condition)
    if isinstance(condition, bool) or isinstance(value, bool):
        return value is condition
    return value == condition


def _in_range(value: JSON, bounds: Mapping[str, JSON]) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return all(
        compare[name](value, bound) for name, bound in bounds.items() if isinstance(bound, (int, float))
    )
