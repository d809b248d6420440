"""URLs of collections of a Qdrant server or cluster, and connections to them.

    qdrant://host:6333/collection           over HTTP
    qdrant+https://host:6333/collection     over HTTPS
    qdrant+file:///folder/collection        the client's local mode: a small engine in Python inside this
                                            process, for trials and tests; one process at a time

Settings follow a question mark: what a new collection gets (shards, replicas, write_consistency,
quantization=int8), and how the server is asked (timeout in seconds, retries, grpc_port). The API key comes
from the environment variable QDRANT_API_KEY.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from trichrome.errors import StoreLocked, TrichromeError
from trichrome.extras import require
from trichrome.index.urls import shown

_SERVERS = {"qdrant": "http", "qdrant+https": "https"}
_NUMBERS = {"shards": 1, "replicas": 1, "write_consistency": 1, "timeout": 1, "retries": 0, "grpc_port": 1}
_PORT = 6333
KEY_VARIABLE = "QDRANT_API_KEY"


@dataclass(frozen=True)
class Address:
    """A collection and how to reach it.

    shown: the URL for messages. server: the base URL of the REST interface, None in local mode. folder: of
    local mode, None on a server. shards, replicas, write_consistency, quantization: of a collection that is
    created; None leaves them to the server. timeout: seconds of one request. retries: how often a request is
    repeated that failed for a passing reason. grpc_port: asks over gRPC instead of REST.
    """

    shown: str
    collection: str
    server: str | None
    folder: Path | None
    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None
    quantization: str | None = None
    timeout: int = 60
    retries: int = 6
    grpc_port: int | None = None


def parse(url: str) -> Address:
    """The address that a URL stands for. TrichromeError says what is wrong with it."""
    where = shown(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise TrichromeError(f"{where}: not a URL ({error})") from None
    settings = _settings(where, options)
    if parts.fragment:
        raise TrichromeError(f"{where}: a '#' in the name of a collection or folder is written %23")
    path, _, name = parts.path.rpartition("/")
    collection = unquote(name)
    if parts.scheme == "qdrant+file":
        if parts.netloc or not path or not collection:
            raise TrichromeError(f"{where}: write qdrant+file:///folder/collection, with three slashes")
        if settings:
            raise TrichromeError(f"{where}: local mode has no settings; leave out what follows '?'")
        return Address(where, collection, None, Path(unquote(path)))
    if parts.username is not None or parts.password is not None:
        raise TrichromeError(f"{where}: no key belongs in a URL; set {KEY_VARIABLE}")
    if not host or not collection or path.strip("/"):
        raise TrichromeError(f"{where}: write {parts.scheme}://host:{_PORT}/collection")
    host = f"[{host}]" if ":" in host else host
    server = f"{_SERVERS[parts.scheme]}://{host}:{port or _PORT}"
    return Address(where, collection, server, None, **settings)


def _settings(where: str, options: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options:
        if name in found:
            raise TrichromeError(f"{where}: {name} is given twice")
        if name == "quantization":
            if value != "int8":
                raise TrichromeError(f"{where}: quantization must be int8, not {value!r}")
            found[name] = value
        elif name not in _NUMBERS:
            known = ", ".join([*_NUMBERS, "quantization"])
            raise TrichromeError(f"{where}: unknown setting {name!r}; there are {known}")
        elif not value.isascii() or not value.isdigit() or int(value) < _NUMBERS[name]:
            raise TrichromeError(f"{where}: {name} must be a number from {_NUMBERS[name]}, not {value!r}")
        else:
            found[name] = int(value)
    return found


def connect(address: Address, create: bool = False) -> Any:
    """A QdrantClient for an address. create: whether local mode may make its folder.

    Raises StoreLocked where another client has the local folder open. A server is not asked yet.
    """
    client: Any = require("qdrant_client", "cluster").QdrantClient
    if address.folder is None:
        return client(
            url=address.server,
            api_key=os.environ.get(KEY_VARIABLE),
            timeout=address.timeout,
            prefer_grpc=address.grpc_port is not None,
            grpc_port=address.grpc_port or _PORT + 1,
            check_compatibility=False,  # a warning on a thread of its own; a wrong answer is an error anyway
        )
    if not create and not (address.folder / "meta.json").is_file():
        raise TrichromeError(f"{address.shown}: there is no such folder of Qdrant's local mode")
    try:
        return client(path=str(address.folder), force_disable_check_same_thread=True)
    except RuntimeError as error:
        if "already accessed" in str(error):
            raise StoreLocked(
                f"{address.shown}: the folder is open elsewhere; close it there, or wait"
            ) from None
        raise TrichromeError(f"{address.shown}: could not be opened ({error})") from error
    except (OSError, ValueError, LookupError) as error:
        raise TrichromeError(f"{address.shown}: could not be opened ({error})") from error
