"""Connections to a PostgreSQL database: a pool, work tried again after a drop, errors in one line."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from trichrome.errors import TrichromeError
from trichrome.index.postgres_wire import Raw
from trichrome.index.urls import shown

T = TypeVar("T")

#: Where a URL names a database and no index in it.
DEFAULT_INDEX = "trichrome"
#: Connections a process opens at most.
POOL_SIZE = 8
#: Seconds for which work is tried again while the server is away or others are in the way.
PATIENCE = 30.0
#: Seconds that connecting for the first time may take.
_CONNECT_TIMEOUT = 10
#: Seconds for which a connection is waited for in any case.
_WAIT = 5.0
_NAME = re.compile(r"[^\0/]+")
#: Deadlock, serialization failure, and a key that another client inserted meanwhile: the next try sees it.
_IN_THE_WAY = ("40P01", "40001", "23505")
#: The server is stopping, starting, or has no connection left.
_AWAY = ("57P01", "57P02", "57P03", "53300")

logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())  # failures are raised, not only logged


@dataclass(frozen=True)
class PostgresPlace:
    """A URL taken apart. conninfo: what the driver connects with. index: the schema that holds the store.
    shown: the URL without a password."""

    conninfo: str
    index: str
    shown: str


class _RawDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Raw) -> bytes:
        return obj


def parse_url(url: str) -> PostgresPlace:
    """postgresql://[USER@]HOST[:PORT]/DATABASE[/INDEX][?OPTIONS], the options being libpq's.

    TrichromeError for a URL with more parts, or a name that a schema can't have.
    """
    parts = urlsplit(url)
    names = [unquote(name) for name in parts.path.strip("/").split("/")]
    if len(names) > 2 or parts.fragment:
        raise TrichromeError(f"{shown(url)}: write postgresql://USER@HOST/DATABASE/INDEX")
    index = names[1] if len(names) == 2 else DEFAULT_INDEX
    if not _NAME.fullmatch(index) or len(index.encode()) > 63 or index.startswith("pg_"):
        raise TrichromeError(
            f"{shown(url)}: an index's name is that of a schema: at most 63 bytes, not beginning with pg_"
        )
    database = parts.path.strip("/").split("/")[0]
    conninfo = f"postgresql://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")
    return PostgresPlace(conninfo, index, shown(url))


@contextmanager
def connect(place: PostgresPlace) -> Iterator[Connection[Any]]:
    """One connection, in autocommit mode. Whatever the server refuses meanwhile is a TrichromeError."""
    try:
        with psycopg.connect(
            place.conninfo, autocommit=True, **_timeout(place), application_name="trichrome"
        ) as connection:
            connection.adapters.register_dumper(Raw, _RawDumper)
            yield connection
    except psycopg.Error as error:
        raise refusal(place, error) from error


class Database:
    """The pooled connections of one open store."""

    def __init__(self, place: PostgresPlace) -> None:
        self.place = place
        self._pool: ConnectionPool[Connection[Any]] = ConnectionPool(
            place.conninfo,
            kwargs={"autocommit": True, "application_name": "trichrome", **_timeout(place)},
            min_size=1,
            max_size=POOL_SIZE,
            configure=lambda connection: connection.adapters.register_dumper(Raw, _RawDumper),
            num_workers=1,
            open=True,
        )

    def run(self, work: Callable[[Connection[Any]], T]) -> T:
        """What `work` returns, given a connection in autocommit mode.

        It is called again where the connection dropped or another client was in the way, for PATIENCE
        seconds: so it must come to the same if a try that seemed to fail was carried out after all.
        Anything else that the server refuses is a TrichromeError.
        """
        deadline = time.monotonic() + PATIENCE
        pause = 0.01
        while True:
            connection = self._take(deadline)
            try:
                return work(connection)
            except psycopg.Error as error:
                dropped = connection.closed or error.sqlstate in _AWAY
                if not (dropped or error.sqlstate in _IN_THE_WAY) or time.monotonic() > deadline:
                    raise refusal(self.place, error) from error
            finally:
                self._give_back(connection)
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            if dropped:
                self._pool.check()  # the others are likely gone too

    def close(self) -> None:
        self._pool.close()

    def check_open(self) -> None:
        """TrichromeError once `close` was called."""
        if self._pool.closed:
            raise closed_error(self.place)

    def _take(self, deadline: float) -> Connection[Any]:
        try:
            return self._pool.getconn(max(_WAIT, deadline - time.monotonic()))
        except PoolClosed as error:
            raise closed_error(self.place) from error
        except PoolTimeout as error:
            raise TrichromeError(
                f"{self.place.shown}: no connection within {PATIENCE:.0f} s; what was acknowledged is "
                "stored; start the server, or free connections, and run it again"
            ) from error

    def _give_back(self, connection: Connection[Any]) -> None:
        try:
            self._pool.putconn(connection)  # one that broke is replaced
        except ValueError:  # the pool was closed meanwhile
            connection.close()


def closed_error(place: PostgresPlace) -> TrichromeError:
    return TrichromeError(f"{place.shown}: this store was closed; open it again")


def refusal(place: PostgresPlace, error: psycopg.Error) -> TrichromeError:
    """The server's error as one line with its cure, where there is a known one."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    cures = {
        "53100": "; nothing of this change is stored; make room on the server and run it again",
        "42501": "; ask for the rights, or use another database or index",
        "3D000": "; create the database first",
    }
    cure = cures.get(error.sqlstate or "", "")
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        said, cure = said[-1:], "; is the server running, and is the URL right?"
    return TrichromeError(f"{place.shown}: PostgreSQL: {said[0]}{cure}")


def _timeout(place: PostgresPlace) -> dict[str, Any]:
    return {} if "connect_timeout" in place.conninfo else {"connect_timeout": _CONNECT_TIMEOUT}
