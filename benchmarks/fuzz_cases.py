"""How good files are damaged: hypothesis strategies over bytes, JSON, safetensors headers and gzip.

A case is one file of a folder in another state. What a reader must make of it: something, or a
TrichromeError that names the file; see benchmarks.fuzz_run.
"""

from __future__ import annotations

import copy
import gzip
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

_NUMBERS = [0, 1, 2, 3, 7, 31, 32, 127, 128, 255, 256, 1000, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64]
_WORDS = [
    "",
    " ",
    "a",
    "id",
    "\0",
    "\ud7ff",
    "é",
    "月",
    "F32",
    "I64",
    "float16",
    "..",
    "/",
    "NaN",
    "-1",
    "{",
    "[",
]

#: Any JSON, small.
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([*_NUMBERS, *(-n for n in _NUMBERS), 0.5, -1e-300, 1e308, float("nan"), float("inf")])
    | st.sampled_from(_WORDS)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """Some bytes changed, cut, put in, doubled or taken from elsewhere; or something else altogether."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=200))
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(made)))
        action = draw(st.sampled_from(["set", "cut", "put", "number", "drop", "double"]))
        if action == "set" and at < len(made):
            made[at] = draw(st.integers(0, 255))
        elif action == "cut":
            del made[at:]
        elif action == "put":
            some = st.sampled_from(list(tokens)) if tokens else st.binary(max_size=8)
            made[at:at] = draw(some | st.binary(max_size=8))
        elif action == "number":
            form = draw(st.sampled_from(["<H", "<I", "<Q", "<i", "<f"]))
            value = draw(st.sampled_from(_NUMBERS))
            made[at : at + struct.calcsize(form)] = _packed(form, value)
        elif action == "drop":
            del made[at : at + draw(st.integers(1, 16))]
        else:
            made[at:at] = made[at : at + draw(st.integers(1, 16))]
    return bytes(made)


def _packed(form: str, value: int) -> bytes:
    if form[1] in "HIQ":
        return struct.pack(form, value % (1 << 8 * struct.calcsize(form)))
    return struct.pack(form, float(value) if form[1] == "f" else (value + 2**31) % 2**32 - 2**31)


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which a few places are others, gone, or there twice."""
    made = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(made))
        if not places:
            return draw(json_values)
        holder, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if action == "replace":
            holder[key] = draw(json_values)
        elif action == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=4))] = draw(json_values)
        else:
            holder.insert(key, draw(json_values))
    return made


def _places(value: Any) -> Any:
    """(container, key) of everything inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


@st.composite
def damaged_rows(draw: st.DrawFn, data: bytes) -> bytes:
    """JSONL of which one row is another object, or no object."""
    lines = data.split(b"\n")
    at = draw(st.integers(0, max(0, len(lines) - 2)))
    row = draw(damaged_json(json.loads(lines[at])))
    lines[at] = json.dumps(row, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


@st.composite
def damaged_header(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    (length,) = struct.unpack_from("<Q", data)
    header = draw(damaged_json(json.loads(data[8 : 8 + length])))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@st.composite
def damaged_whole(draw: st.DrawFn, data: bytes) -> bytes:
    """A JSON file that says something else."""
    return json.dumps(draw(damaged_json(json.loads(data)))).encode("utf-8", "surrogatepass")


_BY_SUFFIX: Mapping[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    "json": damaged_whole,
    "jsonl": damaged_rows,
    "safetensors": damaged_header,
}


def damaged_file(name: str, data: bytes, tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """A file of this name in another state: by what it holds, by its bytes, or packed and then damaged."""
    ways = [damaged_bytes(data, tokens)]
    if special := _BY_SUFFIX.get(name.rpartition(".")[2]):
        ways = [special(data), special(data), damaged_bytes(data, tokens)]
    packed = gzip.compress(data, mtime=0)
    return st.integers(0, 19).flatmap(lambda n: damaged_bytes(packed) if n == 0 else st.one_of(ways))


def cases(files: Mapping[str, bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[tuple[str, bytes]]:
    """(name, contents) of one file of a folder that is damaged."""
    return st.sampled_from(sorted(files)).flatmap(
        lambda name: damaged_file(name, files[name], tokens).map(lambda data: (name, data))
    )
