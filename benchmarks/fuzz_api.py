"""Every endpoint of a running server against requests that its description allows, and that it forbids.

schemathesis makes good and bad requests out of the OpenAPI description; beside them go raw bodies: good JSON
with other values in it, cut, or none at all. The server is a process of its own, with a key, over an index of
each local kind. A failure is an answer that the description does not give, a 500, a traceback in the log, no
answer at all, or a server that is gone.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import schemathesis
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.control import SkipTest
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from benchmarks.fuzz_cases import damaged_bytes, damaged_json
from benchmarks.fuzz_run import Outcome, once
from benchmarks.servers import Server, running, serve_command, tiny_encoder
from trichrome.encoder import save
from trichrome.index import create_store_for, index_documents
from trichrome.records import Document
from trichrome.serving import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    ignored_auth,
]
KEY = "fuzzed"
KINDS = ("embedded", "exact")
PATIENCE = 60.0

#: A good body of each endpoint that takes one.
BODIES: dict[str, Any] = {
    "/v1/embeddings": {
        "input": ["a", "the moon"],
        "model": "m",
        "encoding_format": "base64",
        "input_type": "query",
    },
    "/embed": {"inputs": ["a", "b"], "truncate": True, "prompt_name": "query"},
    "/embed_sparse": {"inputs": "the moon", "truncate": True},
    "/rerank": {"query": "moon", "texts": ["a", "the moon"], "raw_scores": True, "weights": [1, 0.3, 1]},
    "/v1/rerank": {"query": "moon", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True},
    "/v2/rerank": {"query": "moon", "documents": ["a", "b"], "mode": "all"},
    "/encode": {"texts": ["a", "moon"], "kind": "query", "outputs": ["dense", "sparse", "multivector"]},
    "/indexes/exact/search": {
        "query": "moon",
        "mode": "all",
        "k": 3,
        "filter": {"year": {"gte": 1}},
        "explain": True,
    },
    "/indexes/embedded/search": {
        "query": "moon",
        "k": 3,
        "filter": {"lang": ["en"]},
        "weights": [1, 1, 1],
        "depth": 5,
    },
    "/indexes/exact/documents": {
        "documents": [{"id": "x", "text": "old moon", "metadata": {"a": {"b": [1, 2.5, None]}}}]
    },
    "/indexes/embedded/documents": {
        "documents": [{"id": "x", "text": "old moon " * 40, "title": "t", "lang": "en"}]
    },
    "/indexes/exact/documents/delete": {"ids": ["x", "y"]},
}


@contextmanager
def tiny_server() -> Iterator[tuple[Server, str]]:
    """`trichrome serve` of a tiny model, with a few documents in an index of each kind."""
    with tempfile.TemporaryDirectory() as temporary:
        work, encoder = Path(temporary), tiny_encoder()
        save(encoder, work / "model")
        documents = [
            Document(f"d{i}", f"the moon over the river {i}", lang="en", metadata={"year": i})
            for i in range(9)
        ]
        for kind in KINDS:
            settings = {"passage_tokens": 20, "overlap": 4}
            with create_store_for(encoder, work / kind, kind=kind, settings=settings) as store:
                index_documents(store, encoder, documents)
        command = serve_command(work / "model", [work / kind for kind in KINDS], dtype="float32")
        with running(command, work / "log", {"TRICHROME_API_KEY": KEY}) as found:
            yield found


def description(mode: GenerationMode) -> Any:
    """The server's own description, in which the name of an index is mostly one that is there.

    Requests that it forbids are all to one index: any other name is allowed, and may be one that an earlier
    request made.
    """
    found = create_app(tiny_encoder(), {}, key=KEY).openapi()
    if mode is GenerationMode.NEGATIVE:
        found["paths"] = {
            p.replace("{name}", KINDS[0]): operations for p, operations in found["paths"].items()
        }
    for path, operations in found["paths"].items():
        for operation in operations.values():
            names = [p for p in operation.get("parameters", ()) if p["name"] == "name" and p["in"] == "path"]
            for parameter in names:
                if "{name}" in path:
                    parameter["schema"] = {"enum": [*KINDS, "nothing"], "type": "string"}
                else:
                    operation["parameters"].remove(parameter)
    return schemathesis.openapi.from_dict(found)


def targets(url: str) -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """Name → (strategy of cases, what must hold of one)."""
    headers = {"Authorization": f"Bearer {KEY}"}

    def as_described(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS, headers=headers, timeout=PATIENCE)

    found: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {}
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        for result in description(mode).get_all_operations():
            operation = result.ok()
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except schemathesis.errors.InvalidSchema:  # nothing to negate: no parameter, no body
                continue
            found[f"{operation.label} ({mode.name.lower()})"] = (strategy.filter(_arrives), as_described)
    for path, body in BODIES.items():
        whole = json.dumps(body).encode()
        other = damaged_json(body).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
        found[f"POST {path} (raw)"] = (st.one_of(other, other, damaged_bytes(whole)), Raw(url, path))
    return found


def _arrives(case: Any) -> bool:
    """Whether what is wrong with a request's parameters arrives: an empty list or object is nothing in a URL,
    and parameters that no endpoint knows are passed over, as servers do."""
    known = {parameter.name for parameter in case.operation.query}
    return all(name in known and isinstance(value, str) for name, value in (case.query or {}).items())


class Raw:
    """Sends a body as it is; the answer must be JSON and no 5xx."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._address, self._path = (str(parts.hostname), int(parts.port or 0)), quote(path)

    def __call__(self, body: bytes) -> None:
        link = http.client.HTTPConnection(*self._address, timeout=PATIENCE)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
            link.request("POST", self._path, body, headers)
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        assert answer.status < 500, f"{answer.status}: {text[:300]!r}"
        made = json.loads(text)
        assert answer.status == 200 or set(made["error"]) == {"message", "type", "code", "param", "id"}, text[
            :300
        ]


def run(seconds: float, start: int = 0) -> dict[str, Outcome]:
    """Go round all targets until the time is over."""
    with tiny_server() as (server, url):
        outcomes: dict[str, Outcome] = {}
        end, number = time.monotonic() + seconds, start
        everything, barren = targets(url), set()
        while time.monotonic() < end:
            for name, (strategy, body) in everything.items():
                if name in barren or time.monotonic() > end:
                    continue
                outcome = outcomes.setdefault(name, Outcome())

                def try_one(
                    case: Any, outcome: Outcome = outcome, body: Callable[[Any], None] = body
                ) -> None:
                    outcome.cases += 1
                    body(case)

                try:
                    once(try_one, strategy, number, 20, outcome, end)
                except (SkipTest, Unsatisfiable):  # a request without parameters can't be wrong
                    barren.add(name)
                    if not outcome.cases:
                        del outcomes[name]
                    continue
                if server.process.poll() is not None:
                    outcome.failures["the server is gone"] = server.text()[-2000:]
                    return outcomes
            number += 1
        log = server.text()
        if "Traceback" in log:
            found = log[log.index("Traceback") :][:3000]
            outcomes.setdefault("the server's log", Outcome()).failures["traceback"] = found
        if server.stop():
            outcomes.setdefault("the server's end", Outcome()).failures["not in order"] = server.text()[
                -2000:
            ]
    return outcomes
