"""Shards on disk: one Parquet file each, written whole or not at all, checked before it counts, read in
streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trichrome.cluster.schema import (
    COLUMNS,
    OUTPUT_COLUMNS,
    Checksum,
    Counts,
    Encoding,
    Passages,
    ShardInfo,
    from_table,
    schema,
    to_table,
)
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.storage import atomic_write

#: Under which a file's metadata hold the ShardInfo.
_INFO = b"trichrome"


def write_shard(
    path: Path, encoding: Encoding, source: str, chunks: Iterable[Passages], counts: Counts
) -> ShardInfo:
    """Write the chunks as one shard, a row group each; the file takes its name when it is whole on disk.

    source: sha256 of what the chunks are read from. counts: complete when the last chunk was given.
    The same chunks give the same bytes, as long as pyarrow is the same.
    """
    parquet = require("pyarrow.parquet", "cluster")
    checksum, langs, rows = Checksum(), Counter[str](), 0
    texts = [name for name in schema(encoding).names if name in ("id", "lang", "payload")]
    with (
        atomic_write(path) as file,
        parquet.ParquetWriter(
            file,
            schema(encoding),
            # numbers hardly shrink, and a dictionary of them would only cost time
            compression={name: "zstd" if name in texts else "none" for name in schema(encoding).names},
            use_dictionary=["lang"],
            write_statistics=["key"],
            write_page_checksum=True,
        ) as writer,
    ):
        for chunk in chunks:
            table = to_table(chunk, encoding)
            writer.write_table(table, row_group_size=max(1, len(chunk.ids)))
            checksum.add(from_table(table))
            langs.update(str(payload.get("lang") or "") for payload in chunk.payloads)
            rows += len(chunk.ids)
        info = ShardInfo(rows, checksum.hex(), source, encoding, counts, dict(sorted(langs.items())))
        writer.add_key_value_metadata({_INFO: info.to_json().encode()})
    return info


def read_info(path: Path) -> ShardInfo:
    """What a shard says of itself. TrichromeError: no shard, cut short, or not all there."""
    with _opened(path) as file:
        try:
            info = ShardInfo.from_json((file.metadata.metadata or {})[_INFO])
        except (KeyError, ValueError, TypeError) as error:
            raise TrichromeError(
                f"{path}: a Parquet file, but no shard of this version ({error!r}); encode it again"
            ) from None
        if file.metadata.num_rows != info.rows:
            raise TrichromeError(
                f"{path}: damaged: {file.metadata.num_rows} rows where {info.rows} were written; encode it "
                "again"
            )
    return info


def why_unfinished(path: Path, encoding: Encoding, source: str) -> str | None:
    """Why a shard has to be encoded (again); None where it is there, whole, and of this model and source."""
    if not path.is_file():
        return "not there yet"
    try:
        info = read_info(path)
    except TrichromeError:
        return "damaged"
    if info.encoding != encoding:
        return f"made with {info.encoding.differences(encoding)}"
    return None if info.source == source else "its source has changed"


def verify_shard(path: Path) -> None:
    """Read all of a shard. TrichromeError where anything is not as it was written."""
    info, checksum = read_info(path), Checksum()
    for passages in read_shard(path):
        checksum.add(passages)
    if checksum.hex() != info.checksum:
        raise TrichromeError(f"{path}: damaged: its content is not what was written; encode it again")


def read_shard(
    path: Path, outputs: Sequence[str] | None = None, columns: Sequence[str] = COLUMNS
) -> Iterator[Passages]:
    """A shard's passages, a row group at a time: what is held in memory is one chunk.

    outputs: those that are read; all that the shard holds where None. columns: others that are read.
    TrichromeError: damaged, or an output that the shard does not hold.
    """
    with _opened(path) as file:
        wanted = columns_of(file.schema_arrow.names, outputs, columns, path)
        for group in range(file.num_row_groups):
            yield from_table(_group(file, group, wanted, path))


def read_columns(path: Path, names: Sequence[str]) -> Any:
    """Some columns of a whole shard as an Arrow table. TrichromeError: damaged."""
    with _opened(path) as file:
        groups = [_group(file, group, list(names), path) for group in range(file.num_row_groups)]
        if not groups:
            return (
                require("pyarrow", "cluster")
                .schema([file.schema_arrow.field(n) for n in names])
                .empty_table()
            )
        return require("pyarrow", "cluster").concat_tables(groups)


def read_rows(
    path: Path, rows: NDArray[np.int64], outputs: Sequence[str], columns: Sequence[str] = COLUMNS
) -> Any:
    """Some rows [n], ascending, of a shard as an Arrow table; row groups that hold none are not read."""
    pa = require("pyarrow", "cluster")
    with _opened(path) as file:
        wanted = columns_of(file.schema_arrow.names, outputs, columns, path)
        tables, start = [], 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            local = rows[(rows >= start) & (rows < end)] - start
            if len(local):
                tables.append(_group(file, group, wanted, path).take(local))
            start = end
        if not tables:
            return pa.schema([file.schema_arrow.field(name) for name in wanted]).empty_table()
        return pa.concat_tables(tables)


def columns_of(
    names: Sequence[str], outputs: Sequence[str] | None, columns: Sequence[str], path: Path
) -> list[str]:
    """The columns to read for some outputs. TrichromeError: an output that the shard does not hold."""
    wanted = list(columns)
    for output in OUTPUT_COLUMNS if outputs is None else outputs:
        there = set(OUTPUT_COLUMNS[output]) <= set(names)
        if outputs is not None and not there:
            raise TrichromeError(f"{path}: the shard holds no {output} output; encode it with that output")
        if there:
            wanted += OUTPUT_COLUMNS[output]
    return wanted


def _group(file: Any, group: int, names: list[str], path: Path) -> Any:
    arrow = require("pyarrow", "cluster")
    try:
        return file.read_row_group(group, columns=names, use_threads=False)
    except (arrow.ArrowException, OSError) as error:
        raise TrichromeError(f"{path}: damaged in row group {group} ({error}); encode it again") from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    arrow, parquet = require("pyarrow", "cluster"), require("pyarrow.parquet", "cluster")
    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise TrichromeError(f"{path}: no such shard; encode the corpus to the end first") from None
    except (arrow.ArrowException, OSError) as error:
        raise TrichromeError(f"{path}: not a Parquet file, or cut short ({error}); encode it again") from None
    with file:
        yield file
