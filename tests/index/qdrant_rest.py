"""Qdrant's REST interface over the client's own local mode, on loopback: what the store needs of it.

Not a Qdrant server, but what the store and qdrant-client send over the wire is read and answered here, and
failures can be put in the way. `python -m tests.index.qdrant_rest` serves until it is stopped, so that
QDRANT_URL can name it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any

from qdrant_client import QdrantClient, models


class Rest(ThreadingHTTPServer):
    """The server. requests: (method, path) of all that came. failures: what becomes of the next requests
    instead of an answer: a status, or 0 for a connection that breaks; each only for its method and path."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.local = QdrantClient(":memory:")
        self.turn = RLock()
        self.requests: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str, int]] = []
        self.headers: dict[str, str] = {}
        self.asked: dict[str, dict[str, Any]] = {}  # what local mode ignores in a collection's creation

    @property
    def url(self) -> str:
        return f"qdrant://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Rest

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        with self.server.turn:
            self.server.requests.append((self.command, path))
            self.server.headers = dict(self.headers)
            failure = self.failure(path)
            if failure == 0:
                self.close_connection = True
                return
            status, result = (failure, None) if failure else self.result(path, body)
        told: dict[str, Any] = {"time": 0.0, "status": "ok" if status == 200 else {"error": f"told {result}"}}
        if status == 200:
            told["result"] = result
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def failure(self, path: str) -> int | None:
        for i, (method, ending, status) in enumerate(self.server.failures):
            if method == self.command and path.endswith(ending):
                del self.server.failures[i]
                return status
        return None

    def result(self, path: str, body: bytes) -> tuple[int, Any]:
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if not match:
            return 404, "no such path"
        name, rest = match[1], match[2] or ""
        try:
            return 200, self.work(name, f"{self.command} {rest}", json.loads(body) if body else {})
        except ValueError as error:
            return (404 if "not found" in str(error) else 400), str(error)

    def work(self, name: str, what: str, given: dict[str, Any]) -> Any:
        local = self.server.local
        done = {"operation_id": 0, "status": "completed"}
        match what:
            case "GET /exists":
                return {"exists": local.collection_exists(name)}
            case "GET ":
                info = local.get_collection(name).model_dump(mode="json", exclude_none=True)
                info["config"]["params"] |= self.server.asked[name]
                return info
            case "PUT ":
                made = models.CreateCollection(**given)
                local.create_collection(name, made.vectors, made.sparse_vectors, metadata=made.metadata)
                kept = ("shard_number", "replication_factor", "write_consistency_factor")
                self.server.asked[name] = {key: given.get(key) or 1 for key in kept}
                return True
            case "DELETE ":
                return local.delete_collection(name)
            case "PUT /index":
                return done
            case "PUT /points":
                local.upsert(name, models.PointsList(**given).points)
                return done
            case "POST /points":
                asked = models.PointRequest(**given)
                found = local.retrieve(name, asked.ids, asked.with_payload, bool(asked.with_vector))
                return [record.model_dump(mode="json", exclude_none=True) for record in found]
            case "POST /points/delete":
                local.delete(name, models.PointIdsList(**given))
                return done
            case "POST /points/count":
                count = local.count(name, models.CountRequest(**given).filter)
                return count.model_dump(mode="json")
            case "POST /points/scroll":
                page = models.ScrollRequest(**given)
                found, offset = local.scroll(
                    name, page.filter, page.limit or 10, offset=page.offset, with_payload=page.with_payload
                )
                points = [record.model_dump(mode="json", exclude_none=True) for record in found]
                return {"points": points, "next_page_offset": offset}
            case "POST /points/query/batch":
                batch = models.QueryRequestBatch(**given)
                for request in batch.searches:
                    request.params = None  # local mode is exact, and warns of them
                answers = local.query_batch_points(name, batch.searches)
                return [answer.model_dump(mode="json", exclude_none=True) for answer in answers]
        raise ValueError(f"{what} is not found here")


@contextmanager
def serving() -> Iterator[Rest]:
    """A server of its own on a free port."""
    with Rest() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.local.close()


if __name__ == "__main__":
    Rest(6399).serve_forever()
