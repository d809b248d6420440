"""A `Filter` as a condition in SQL on the column payload; `filters` says what it means.

Each condition is a jsonpath in strict mode, where dots do not reach into lists, and with the test inside a
filter expression, where a value of another type is no error but no match. The operator @? uses the index on
payloads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from trichrome.index.filters import check_filter
from trichrome.index.store import Filter
from trichrome.records import JSON

_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ABSENT = '@.type() == "null" || (@.type() == "array" && @.size() == 0)'


def to_sql(where: Filter | None) -> tuple[str, dict[str, str]]:
    """A condition, and the parameters that it names; raises TrichromeError where `check_filter` does."""
    if not where:
        return "true", {}
    check_filter(where)
    paths: dict[str, str] = {}
    parts = [_condition(key, condition, paths) for key, condition in where.items()]
    return " AND ".join(parts), paths


def _condition(key: str, condition: JSON, paths: dict[str, str]) -> str:
    """The SQL of one condition; its jsonpaths are added to the parameters."""
    field = "$" + "".join(f".{json.dumps(name, ensure_ascii=False)}" for name in key.split("."))

    def exists(path: str) -> str:
        name = f"path{len(paths)}"
        paths[name] = f"strict {path}"
        return f"payload @? %({name})s::jsonpath"

    if not _has_text(key):
        return "true" if condition is None or (isinstance(condition, list) and None in condition) else "false"
    if isinstance(condition, list):
        parts = [_condition(key, value, paths) for value in condition]
        return f"({' OR '.join(parts)})" if parts else "false"
    if condition is None:
        return f"({exists(f'{field} ? (!({_ABSENT}))')}) IS NOT TRUE"
    test = _in_range(condition) if isinstance(condition, Mapping) else _equals(condition)
    if test is None:
        return "false"
    return f"({exists(f'{field} ? ({test})')} OR {exists(f'{field}[*] ? ({test})')})"


def _equals(value: JSON) -> str | None:
    """The test of a scalar; None where nothing can pass it."""
    if isinstance(value, str) and not _has_text(value):
        return None
    return f"@ == {json.dumps(value, ensure_ascii=False)}"


def _in_range(bounds: Mapping[str, JSON]) -> str | None:
    tests = ['@.type() == "number"']
    for name, bound in bounds.items():
        if not isinstance(bound, (int, float)):
            continue
        if math.isinf(bound):
            if (bound > 0) == (name in ("gt", "gte")):  # above infinity
                return None
            continue
        tests.append(f"@ {_OPERATORS[name]} {json.dumps(bound)}")
    return " && ".join(tests)


def _has_text(text: str) -> bool:
    """Whether jsonb can hold this text at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
