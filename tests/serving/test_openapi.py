"""The OpenAPI description is true: schemathesis sends what it allows and what it forbids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.serving.live import Live, make_store, running
from tests.tiny import tiny_encoder
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
KEY = "schema-key"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("stores")
    encoder = tiny_encoder()
    stores = {kind: make_store(folder / kind, encoder, kind) for kind in ("exact", "embedded")}
    with running(encoder, stores, key=KEY) as live:
        yield live


def description() -> Any:
    found = create_app(tiny_encoder(), {}, key=KEY).openapi()
    for path, operations in found["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):  # indexes that are there, mostly
                if parameter["name"] == "name" and "{name}" in path:
                    parameter["schema"] = {"enum": ["exact", "embedded", "nothing"], "type": "string"}
    return schemathesis.openapi.from_dict(found)


schema = description()


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: Any, guarded: Live) -> None:
    case.call_and_validate(
        base_url=guarded.url, checks=CHECKS, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    )
