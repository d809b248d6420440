"""The folder in which a server's indexes are made and removed by its clients."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp

from trichrome.index import Store, create_store
from trichrome.records import JSON
from trichrome.serving.errors import Refusal
from trichrome.serving.protocol import ServedEncoder
from trichrome.storage import sync_directory

#: A name that is a folder's anywhere, and needs no quoting in an address or a shell.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

_REMOVED = ".removed-"


class Shelf:
    """A folder with one store a name. Other stores that a server has open are none of its business."""

    def __init__(self, folder: Path, settings: Mapping[str, JSON], names: Iterable[str] = ()) -> None:
        """settings: kept with every new index, so that other commands open the same model. names: served
        indexes that lie in the folder already."""
        self._folder, self._settings = folder, dict(settings)
        self.names = set(names)
        for left in folder.glob(f"{_REMOVED}*"):  # by a server that was killed meanwhile
            shutil.rmtree(left, ignore_errors=True)

    def create(
        self, name: str, encoder: ServedEncoder, kind: str, passage_tokens: int | None, overlap: int | None
    ) -> Store:
        """An empty store, on disk whole or not at all.

        Refusal 422 for a name that can't be a folder's, 409 where one is there that this server doesn't
        serve. TrichromeError where the disk fails.
        """
        if not re.match(NAME_PATTERN, name) or name.endswith("."):
            raise Refusal(
                422,
                "an index is named by at most 100 letters, digits, '.', '_' and '-', the first a letter or "
                f"a digit: {name!r}",
                param="name",
            )
        path = self._folder / name
        if path.exists():
            message = f"{name!r} is taken by an index that this server does not serve: choose another name"
            raise Refusal(409, message, param="name")
        cut = {"passage_tokens": passage_tokens, "overlap": overlap}
        store = create_store(
            path,
            kind=kind,
            model=encoder.name,
            fingerprint=encoder.fingerprint,
            dense_dim=encoder.dense_dim,
            sparse="sparse" in encoder.signals,
            multivector_dim=encoder.config.multivector_dim,
            settings={**self._settings, **{k: v for k, v in cut.items() if v is not None}},
        )
        self.names.add(name)
        return store

    def remove(self, name: str, store: Store) -> None:
        """Close a store and remove its folder, of which nothing is left under its name after a crash.
        OSError where the folder can't be moved away; the store is open then as before."""
        away = Path(mkdtemp(prefix=_REMOVED, dir=self._folder))
        try:
            (self._folder / name).rename(away / name)
        except OSError:
            away.rmdir()
            raise
        sync_directory(self._folder)
        self.names.discard(name)
        store.close()
        shutil.rmtree(away, ignore_errors=True)  # what stays behind goes at the next start
