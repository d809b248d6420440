"""The commands with an index in PostgreSQL: a URL where a name goes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import DOCUMENTS, Command
from tests.index.places import postgres_place


def test_index_search_and_info_take_a_url(run: Command, documents: Path) -> None:
    with postgres_place() as place:
        missing = run("search", place, "password")
        assert missing.code == 1
        assert "there is no index at postgresql://" in missing.err

        made = run("index", documents, "--to", place, "--json")
        assert made.code == 0, made.err
        assert made.json()["stored"] == len(DOCUMENTS)
        again = run("index", documents, "--to", place, "--json")
        assert again.json()["unchanged"] == len(DOCUMENTS)

        hits = run("search", place, "I forgot my password", "--json", "-k", 2)
        assert hits.code == 0, hits.err
        assert hits.json()[0]["id"] == "password.md"
        assert None not in (hits.json()[0][name] for name in ("dense", "sparse", "multivector"))

        told = run("info", place, "--json")
        assert told.json()["kind"] == "postgres"
        assert told.json()["size"] == "on the server"
