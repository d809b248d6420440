"""A server on loopback, in a thread of this process: the real application, uvicorn, sockets and stores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import uvicorn

from tests.tiny import tiny_encoder
from trichrome import Document
from trichrome.embeddings import Embeddings
from trichrome.encoder import Encoder
from trichrome.encoder.tokenizer import Tokens
from trichrome.index import Store, create_store, index_documents
from trichrome.serving import Limits, Shelf, create_app, server

DOCUMENTS = [
    Document("moon", "the moon light over the river", lang="en", metadata={"year": 2020}),
    Document("cat/old", "the old cat sings", lang="en", metadata={"year": 2021}),
    Document("bird", "a small green bird", title="bird", lang="de", metadata={"year": 2022}),
    Document("川", "月光川", lang="ja", metadata={"year": 2023}),
]


class Gated(Encoder):
    """The tiny encoder, which encodes only while the gate is open, and says when a pass has begun.

    failing: token ids that break a pass."""

    def __init__(self) -> None:
        tiny = tiny_encoder()
        super().__init__(tiny.network, tiny.tokenizer.tokenizer, tiny.config, "cpu", tiny.fingerprint)
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.failing: int | None = None
        self.passes: list[int] = []  # texts of each

    def encode_tokens(self, tokens: Sequence[Tokens], outputs: Sequence[str]) -> Embeddings:
        self.begun.set()
        assert self.gate.wait(60)
        if self.failing is not None and any(self.failing in t.ids for t in tokens):
            raise RuntimeError("secret detail of the engine")
        self.passes.append(len(tokens))
        return super().encode_tokens(tokens, outputs)


@dataclass
class Live:
    """A running server and a client of it."""

    url: str
    session: requests.Session
    uvicorn: uvicorn.Server
    thread: threading.Thread

    def get(self, path: str, **named: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=60, **named)

    def delete(self, path: str, **named: Any) -> requests.Response:
        return self.session.delete(self.url + path, timeout=60, **named)

    def post(self, path: str, body: Any = None, **named: Any) -> requests.Response:
        return self.session.post(self.url + path, json=body, timeout=60, **named)

    def ok(self, path: str, body: Any) -> Any:
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()


def make_store(path: Path, encoder: Encoder, kind: str, documents: Sequence[Document] = DOCUMENTS) -> Store:
    store = create_store(
        path,
        kind=kind,
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        dense_dim=encoder.dense_dim,
        sparse=True,
        multivector_dim=encoder.config.multivector_dim,
        settings={"passage_tokens": 20, "overlap": 4},
    )
    index_documents(store, encoder, documents)
    return store


@contextmanager
def running(
    encoder: Encoder,
    stores: Mapping[str, Store] | None = None,
    *,
    limits: Limits | None = None,
    key: str | None = None,
    token_budget: int = 512,
    shelf: Shelf | None = None,
) -> Iterator[Live]:
    app = create_app(encoder, stores or {}, limits=limits, key=key, token_budget=token_budget, shelf=shelf)
    made = server(app, "127.0.0.1", 0)
    made.config.log_config = None
    bound = made.config.bind_socket()
    thread = threading.Thread(target=made.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    try:
        with requests.Session() as session:
            if key:
                session.headers["Authorization"] = f"Bearer {key}"
            live = Live(url, session, made, thread)
            while not made.started:
                time.sleep(0.01)
                assert thread.is_alive()
            assert live.get("/ready").status_code == 200
            yield live
    finally:
        made.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
