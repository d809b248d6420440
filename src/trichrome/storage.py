"""Files that are whole or absent: atomic writing, and safetensors read through a memory map."""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trichrome.errors import TrichromeError

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_COPY_BYTES = 64 << 20
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def default_cache() -> Path:
    """Where what can be made again is kept: $TRICHROME_CACHE, or ~/.cache/trichrome."""
    given = os.environ.get("TRICHROME_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "trichrome"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name only when everything is on disk.

    An error in the block, or a full disk, leaves what was there before and removes the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        sync_directory(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill, which takes its name only when the block has ended.

    TrichromeError where `path` is there already and not an empty folder. After an error nothing is left.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise TrichromeError(f"{path} exists already and is not an empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        yield folder
        folder.replace(path)
    sync_directory(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_directory(path: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders can't be opened, as on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: object) -> None:
    """Write indented UTF-8 JSON atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def save_arrays(
    path: str | Path,
    arrays: Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as one safetensors file, atomically.

    An array may be given in pieces along its first axis; memory-mapped ones are never copied whole.
    """
    pieces = {name: [a] if isinstance(a, np.ndarray) else list(a) for name, a in arrays.items()}
    # the widest first, so that every array starts at a multiple of its item size
    pieces = dict(sorted(pieces.items(), key=lambda item: -item[1][0].dtype.itemsize))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, parts in pieces.items():
        if parts[0].dtype not in _NAMES or len({p.dtype for p in parts}) > 1:
            raise TypeError(f"{name}: dtype {parts[0].dtype} cannot be stored in safetensors")
        size = sum(p.nbytes for p in parts)
        header[name] = {
            "dtype": _NAMES[parts[0].dtype],
            "shape": [sum(len(p) for p in parts), *parts[0].shape[1:]],
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned, so that mapped arrays are too
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for parts in pieces.values():
            for part in parts:
                step = max(1, _COPY_BYTES // max(1, part[:1].nbytes))
                for start in range(0, len(part), step):
                    file.write(np.ascontiguousarray(part[start : start + step]).data)


def load_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its arrays. TrichromeError where it isn't one."""
    header, _ = _header(Path(path))
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TrichromeError(f"{path}: damaged: its metadata are not texts")
    return metadata


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the byte where its arrays begin."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise TrichromeError(f"{path}: not a safetensors file, or cut short")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise TrichromeError(
                f"{path}: not a safetensors file: its header is not JSON ({error})"
            ) from None
    if not isinstance(header, dict):
        raise TrichromeError(f"{path}: not a safetensors file: its header is no object")
    return header, 8 + length


def load_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Open a safetensors file; each array is a read-only view of a memory map.

    TrichromeError: another kind of file, one that is cut short, or a header that doesn't fit what follows.
    """
    path = Path(path)
    header, start = _header(path)
    size = path.stat().st_size
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=0)
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            dtype = np.dtype(_DTYPES[kind])
            numbers = [begin, end, *shape]
            if not all(type(number) is int and number >= 0 for number in numbers) or begin > end:
                raise ValueError("sizes must be whole numbers")
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError(f"{kind} {shape} does not take {end - begin} bytes")
            if start + end > size:
                raise TrichromeError(
                    f"{path}: cut short: {name} should end at byte {start + end}, the file has {size}"
                )
            arrays[name] = data[start + begin : start + end].view(dtype).reshape(shape)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, TrichromeError):
                raise
            raise TrichromeError(f"{path}: the entry of {name!r} is damaged ({error})") from None
    return arrays
