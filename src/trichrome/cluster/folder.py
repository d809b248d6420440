"""An encoded corpus as a folder: encoded.json says how it is made, shards/*.parquet hold it, input/ what was
cut to make it.

Shards are in the order of their names in the manifest, and so are passages: row r of the corpus is the r-th
passage of the shards one after another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from trichrome.cluster.schema import Encoding, ShardInfo
from trichrome.cluster.shards import read_columns, read_info
from trichrome.errors import TrichromeError
from trichrome.storage import write_json

_OPENED_AT_ONCE = 16


@dataclass(frozen=True)
class Manifest:
    """encoding: of every shard. model: what opens the encoder. rule: how the corpus was cut. names: of the
    shards, in order."""

    encoding: Encoding
    model: str
    rule: str
    names: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "encoding": self.encoding.to_json(),
            "model": self.model,
            "rule": self.rule,
            "shards": self.names,
        }


def shard_path(out: Path, name: str) -> Path:
    """Where the shard of an input shard lies."""
    return out / "shards" / f"{name}.parquet"


def is_encoded(path: Path) -> bool:
    """Whether a path is the folder of an encoded corpus."""
    return (path / "encoded.json").is_file()


def read_manifest(out: Path) -> Manifest:
    """TrichromeError: no encoded corpus, or of another version."""
    file = out / "encoded.json"
    try:
        row = json.loads(file.read_bytes())
        return Manifest(Encoding.from_json(row["encoding"]), row["model"], row["rule"], row["shards"])
    except FileNotFoundError:
        raise TrichromeError(
            f"{out}: not an encoded corpus (it has no encoded.json); make one with `trichrome cluster encode`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrichromeError(
            f"{file}: damaged, or of another version ({error!r}); encode the corpus again"
        ) from None


@contextmanager
def claim(out: Path, manifest: Manifest, again: bool) -> Iterator[None]:
    """Hold a folder for one run that writes it. Before and after, what killed processes left is removed.

    TrichromeError: it is another corpus', model's or setting's (unless `again`), or another run holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrichromeError(f"{out}: another run is encoding into this folder; wait for its end") from None
    try:
        if is_encoded(out):
            _refuse_another(out, read_manifest(out), manifest, again)
        write_json(out / "encoded.json", manifest.to_json())
        _remove_abandoned(out)
        yield
        _remove_abandoned(out)
    finally:
        lock.release()


def _refuse_another(out: Path, old: Manifest, new: Manifest, again: bool) -> None:
    if (old.rule, old.names) != (new.rule, new.names):
        raise TrichromeError(
            f"{out}: this folder holds another corpus or cut ({len(old.names)} shards, {old.rule}; now "
            f"{len(new.names)}, {new.rule}); choose another folder, or remove this one"
        )
    if old.encoding != new.encoding and not again:
        raise TrichromeError(
            f"{out}: its shards were made with {old.encoding.differences(new.encoding)}; run it as before, "
            "choose another folder, or encode all of it anew with --again"
        )


def _remove_abandoned(out: Path) -> None:
    """Temporary files of shards; nobody else writes here while the lock is held."""
    for file in (out / "shards").glob(".*.parquet.*"):
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class EncodedCorpus:
    """A finished encoded corpus.

    infos: of the shards, in the manifest's order. starts: [shards + 1] the row at which each begins.
    """

    out: Path
    manifest: Manifest
    infos: list[ShardInfo]
    starts: NDArray[np.int64]

    @classmethod
    def open(cls, out: Path) -> EncodedCorpus:
        """TrichromeError: not encoded to the end, a shard that is damaged or of another model."""
        manifest = read_manifest(out)
        paths = [shard_path(out, name) for name in manifest.names]
        if missing := [path for path in paths if not path.is_file()]:
            raise TrichromeError(
                f"{out}: {len(missing):,} of {len(paths):,} shards are not finished; run `trichrome cluster "
                "encode` again, it goes on where it stopped"
            )
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            infos = list(pool.map(read_info, paths))
        for path, info in zip(paths, infos, strict=True):
            if info.encoding != manifest.encoding:
                raise TrichromeError(
                    f"{path}: made with {info.encoding.differences(manifest.encoding)}; run `trichrome "
                    "cluster encode` again, which makes this shard anew"
                )
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([i.rows for i in infos], dtype=np.int64)])
        return cls(out, manifest, infos, starts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def encoding(self) -> Encoding:
        return self.manifest.encoding

    @property
    def paths(self) -> list[Path]:
        """Of the shards, in order."""
        return [shard_path(self.out, name) for name in self.manifest.names]

    def keys(self) -> NDArray[np.int64]:
        """[N] the hashes of all ids, 8 bytes a passage."""
        return self._column("key")

    def document_keys(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(keys [n], rows [n]) of the passages that were cut from a document."""
        rows, keys = [], []
        for path, start in zip(self.paths, self.starts[:-1].tolist(), strict=True):
            column = read_columns(path, ["document_key"]).column("document_key").combine_chunks()
            known = np.flatnonzero(np.asarray(column.is_valid()))
            rows.append(known + start)
            keys.append(np.asarray(column.drop_null(), np.int64))
        empty = np.empty(0, np.int64)
        return np.concatenate([*keys, empty]), np.concatenate([*rows, empty])

    def rows_of_language(self, lang: str) -> NDArray[np.int64]:
        """The rows of one language, ascending; only shards that hold it are read."""
        found = [np.empty(0, np.int64)]
        for path, info, start in zip(self.paths, self.infos, self.starts[:-1].tolist(), strict=True):
            if info.langs.get(lang):
                found.append(language_rows(path, lang) + start)
        return np.concatenate(found)

    def check_ids(self) -> None:
        """TrichromeError where one id stands for two passages; takes 16 bytes a passage."""
        keys = self.keys()
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        if len(same):
            first, second = order[same[0]], order[same[0] + 1]
            places = " and ".join(f"{path.name} row {row}" for path, row in map(self._place, (first, second)))
            raise TrichromeError(
                f"{self.out}: {len(same):,} ids are given twice, the first in {places}; give every document "
                "its own id, and encode again"
            )

    def split(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(shard, rows within it) of rows [n] that ascend."""
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(shards).tolist():
            yield shard, rows[shards == shard] - self.starts[shard]

    def _place(self, row: int) -> tuple[Path, int]:
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.paths[shard], int(row - self.starts[shard])

    def _column(self, name: str) -> NDArray[np.int64]:
        parts: Sequence[Any] = [read_columns(path, [name]).column(name).to_numpy() for path in self.paths]
        return np.concatenate([*parts, np.empty(0, np.int64)])


def language_rows(path: Path, lang: str) -> NDArray[np.int64]:
    """The rows of a shard that are of one language."""
    column = read_columns(path, ["lang"]).column("lang").to_numpy(zero_copy_only=False)
    return np.flatnonzero(column == lang).astype(np.int64)
