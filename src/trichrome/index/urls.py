"""Places of stores: a folder, or the URL of a store on a server; and which module serves which scheme.

A new kind of server is a module with the four functions of `Server`, its schemes in `SCHEMES`, and one branch
in `server_of`. Secrets come from the environment; one that a URL carries all the same is hidden by `shown`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, TypeAlias, TypeGuard
from urllib.parse import urlsplit

from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.index.store import Manifest, Store

Place: TypeAlias = "str | Path"

#: Scheme → kind of store, which the manifest names too.
SCHEMES = {
    "qdrant": "qdrant",
    "qdrant+https": "qdrant",
    "qdrant+file": "qdrant",
    "postgresql": "postgres",
    "postgres": "postgres",
}
#: The kinds of stores on servers.
SERVER_KINDS = tuple(dict.fromkeys(SCHEMES.values()))

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)


class Server(Protocol):
    """What a module offers that keeps stores behind URLs. All raise TrichromeError for a URL that is wrong,
    a server that can't be reached, and a store that is damaged or of another version."""

    def create_at(self, url: str, manifest: Manifest) -> Store:
        """Create an empty store, whole or not at all, and open it; refused where one is there already."""

    def open_at(self, url: str) -> Store:
        """Open the store at a URL; refused where there is none."""

    def manifest_at(self, url: str) -> Manifest:
        """The manifest of the store at a URL, without opening it; refused where there is none."""

    def exists_at(self, url: str) -> bool:
        """Whether there is a store at a URL."""


def is_url(place: Place) -> TypeGuard[str]:
    """Whether a place is a URL; anything else is a folder."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def kind_of(url: str) -> str:
    """The kind of store that a URL's scheme stands for; TrichromeError for a scheme that stands for none."""
    match = _URL.fullmatch(url)
    scheme = match[1].lower() if match else ""
    if scheme not in SCHEMES:
        raise TrichromeError(
            f"{shown(url)}: no store has the scheme {scheme!r}; write a folder, or one of "
            + ", ".join(f"{known}://" for known in SCHEMES)
        )
    return SCHEMES[scheme]


def server_of(url: str) -> Server:
    """The module that serves a URL's scheme; imported here, for each needs packages of an extra."""
    match kind_of(url):
        case "qdrant":
            from trichrome.index import qdrant_server

            return qdrant_server
        case "postgres":
            for package in ("psycopg", "psycopg_pool"):
                require(package, "cluster")
            from trichrome.index import postgres_server

            return postgres_server
        case kind:
            raise AssertionError(f"no module serves {kind}")


def shown(place: Place) -> str:
    """A place as messages may show it: without a password."""
    if not is_url(place):
        return str(place)
    masked = re.sub(r"(://[^/?#@:]*:)[^/?#]*@", r"\1***@", place)
    return re.sub(r"([?&]password=)[^&#]*", r"\1***", masked)


def last_name(place: Place) -> str:
    """The last part of a place's path, which names it where a short name is wanted."""
    if is_url(place):
        return urlsplit(place).path.rstrip("/").rpartition("/")[2]
    return Path(place).name
