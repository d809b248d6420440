"""copy, from a folder to Qdrant's local mode and back, with the built-in model's index."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command, Outcome
from trichrome.index import open_store


def test_a_copy_elsewhere_and_back_is_searched_alike(
    run: Command, notes: Outcome, documents: Path, tmp_path: Path
):
    there = f"qdrant+file://{tmp_path}/qdrant/notes"
    first = run("copy", "notes", there, "--json")
    assert first.code == 0, first.err
    summary = first.json()
    assert (summary["copied"], summary["unchanged"], summary["kind"]) == (4, 0, "qdrant")
    assert summary["verified"]["agreement"] == {"dense": 1.0, "sparse": 1.0}
    assert summary["verified"]["problems"] == []
    again = run("copy", "notes", there, "--json").json()
    assert (again["copied"], again["unchanged"]) == (0, 4)
    back = run("copy", there, f"{tmp_path}/back", "--kind", "exact")
    assert back.code == 0, back.err
    assert "copied     4 documents" in back.out
    assert "dense the same, sparse the same, multivector the same" in back.out
    question = ("how do I reset my password", "--json")
    wanted = run("search", "notes", *question).json()
    for copy in (there, f"{tmp_path}/back"):
        found = run("search", copy, *question).json()
        assert [hit["id"] for hit in found] == [hit["id"] for hit in wanted]
        assert found[0]["score"] == pytest.approx(wanted[0]["score"], abs=1e-3)
    assert run("info", there, "--json").json()["documents"] == "4"
    assert run("index", documents, "--to", there, "--json").json()["unchanged"] == 4


def test_a_copy_that_differs_ends_with_1(run: Command, notes: Outcome, tmp_path: Path):
    copy = f"{tmp_path}/copy"
    assert run("copy", "notes", copy, "--kind", "exact").code == 0
    with open_store(copy) as store:
        [row] = store.rows_of(["password.md"])
        store.add(["other"], store.embeddings(store.rows_of(["password.md"])), [{}])
        assert row >= 0
    differs = run("copy", "notes", copy, "--json")
    assert differs.code == 1
    assert differs.json()["verified"]["problems"]
    assert "error: the source holds 4 documents, the target 5" in differs.err
    assert run("copy", "notes", copy, "--prune").code == 0


def test_a_copy_of_codes_alone_is_searched(run: Command, notes: Outcome, tmp_path: Path):
    codes = f"{tmp_path}/codes"
    made = run("copy", "notes", codes, "--dense-dtype", "pq", "--json")
    assert made.code == 0, made.err
    summary = made.json()
    assert (summary["kind"], summary["dense_dtype"]) == ("exact", "pq")
    assert run("info", codes, "--json").json()["dense_dtype"] == "pq"
    found = run("search", codes, "how do I reset my password", "--mode", "dense", "--json").json()
    assert found[0]["id"] == "password.md"
    with open_store(codes) as store:
        assert store.dense_codes(store.rows_of(["password.md"])).shape == (1, 48)
    again = run("copy", codes, f"{tmp_path}/again", "--kind", "exact", "--json").json()
    assert again["dense_dtype"] == "pq"
    assert again["verified"]["vectors"]["dense"] < 1e-6
    other = run("copy", "notes", codes, "--dense-dtype", "float32")
    assert "has dense_dtype pq, not float32" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("copy", "nowhere", "notes"), "there is no index 'nowhere'"),
        (("copy", "notes", "notes"), "cannot be copied to where it is"),
        (("copy", "notes", "http://host/x"), "no store has the scheme 'http'"),
        (("copy", "notes", "qdrant+file://relative/x"), "with three slashes"),
        (("copy", "notes", "qdrant://key@host/x"), "QDRANT_API_KEY"),
        (("copy", "notes", "qdrant://127.0.0.1:1/x?retries=0"), "could not be reached"),
        (("search", "qdrant+file:///nowhere/x", "?"), "there is no index at qdrant+file:///nowhere/x"),
    ],
)
def test_what_cannot_be_copied(run: Command, notes: Outcome, arguments: tuple[str, ...], message: str):
    failed = run(*arguments)
    assert failed.code == 1
    assert message in " ".join(failed.err.split())
    assert failed.out == ""
