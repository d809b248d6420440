"""Clients of a server, in a process of their own: each sends a request when the one before is answered.

    python -m benchmarks.serve_client URL TEXTS.json --clients 16 --seconds 5 --count 2000

TEXTS.json: a list of texts; each request POSTs one of them to /embed. The connections stay open, and the
client is bare (asyncio's streams, no HTTP library), so that little of the machine's time goes to asking. The
last line is JSON: requests, errors, seconds, and the latencies in milliseconds, sorted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import typer

#: Seconds after which a request without an answer is an error.
PATIENCE = 60.0


@dataclass
class Tally:
    """What became of the requests. problems: the first few, for people."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    problems: list[str] = field(default_factory=list)

    def failed(self, why: str) -> None:
        self.errors += 1
        self.problems = [*self.problems, why][:5]


def request(host: str, text: str) -> bytes:
    """The bytes of one request."""
    body = json.dumps({"inputs": text}).encode()
    head = f"POST /embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
) -> tuple[int, bytes]:
    """Send a request; the status and the body of its answer."""
    writer.write(data)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return status, await reader.readexactly(length)


async def client(
    address: tuple[str, int],
    requests: list[bytes],
    turn: itertools.count[int],
    count: int,
    end: float,
    tally: Tally,
) -> None:
    """One client: asks until the time is over or `count` requests were sent by all clients together."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        while time.perf_counter() < end and (n := next(turn)) < count:
            start = time.perf_counter()
            try:
                answer = exchange(reader, writer, requests[n % len(requests)])
                status, body = await asyncio.wait_for(answer, PATIENCE)
            except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                tally.failed(repr(error))
                return
            if status != 200 or not body.startswith(b"[["):
                tally.failed(f"{status}: {body[:200]!r}")
                continue
            tally.latencies.append(1000 * (time.perf_counter() - start))
    finally:
        writer.close()


async def drive(url: str, texts: list[str], clients: int, seconds: float, count: int) -> dict[str, object]:
    """All clients at once; what they saw."""
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    requests = [request(parts.netloc, text) for text in texts]
    tally, turn = Tally(), itertools.count()
    start = time.perf_counter()
    everybody = (client(address, requests, turn, count, start + seconds, tally) for _ in range(clients))
    await asyncio.gather(*everybody)
    return {
        "requests": len(tally.latencies),
        "errors": tally.errors,
        "seconds": time.perf_counter() - start,
        "latencies_ms": sorted(round(ms, 3) for ms in tally.latencies),
        "problems": tally.problems,
    }


def main(
    url: str, texts: Path, clients: int = 16, seconds: float = 5.0, count: int = 2000, seed: int = 0
) -> None:
    """Ask a server and print what came of it."""
    some = json.loads(texts.read_text("utf-8"))
    random.Random(seed).shuffle(some)
    print(json.dumps(asyncio.run(drive(url, some, clients, seconds, count))))


if __name__ == "__main__":
    typer.run(main)
