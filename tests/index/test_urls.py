"""Places: what is a URL, what it stands for, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from trichrome.errors import TrichromeError
from trichrome.index import create_store, open_store
from trichrome.index.qdrant_address import Address, parse
from trichrome.index.urls import is_url, kind_of, last_name, shown


def test_a_place_is_a_folder_or_a_url() -> None:
    assert is_url("qdrant://host/notes")
    assert not any(
        is_url(place) for place in ("notes", "./a/b", "/a:/b", "C:\\notes", Path("qdrant://host/n"))
    )
    assert kind_of("QDRANT://host/notes") == "qdrant"
    assert [last_name(place) for place in ("qdrant://h:1/notes?shards=2", "/a/b", Path("b"))] == [
        "notes", "b", "b"
    ]  # fmt: skip


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert shown("qdrant://host:6333/a@b") == "qdrant://host:6333/a@b"


def test_a_url_of_qdrant() -> None:
    plain = parse("qdrant://host/notes")
    assert plain == Address("qdrant://host/notes", "notes", "http://host:6333", None)
    url = "qdrant+https://[::1]:99/a%20b?shards=3&replicas=2&write_consistency=2&quantization=int8&timeout=9"
    full = parse(url + "&retries=0&grpc_port=6334")
    assert (full.server, full.collection) == ("https://[::1]:99", "a b")
    assert (full.shards, full.replicas, full.write_consistency, full.quantization) == (3, 2, 2, "int8")
    assert (full.timeout, full.retries, full.grpc_port) == (9, 0, 6334)
    local = parse("qdrant+file:///a/b%23/notes")
    assert (local.server, local.folder, local.collection) == (None, Path("/a/b#"), "notes")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/notes", "no store has the scheme 'http'; write a folder, or one of qdrant://"),
        ("qdrant://host", "write qdrant://host:6333/collection"),
        ("qdrant://host/", "write qdrant://host:6333/collection"),
        ("qdrant:///notes", "write qdrant://host:6333/collection"),
        ("qdrant://host/a/b", "write qdrant://host:6333/collection"),
        ("qdrant://host:port/a", "not a URL"),
        ("qdrant://:key@host/a", r"qdrant://:\*\*\*@host/a: no key belongs in a URL; set QDRANT_API_KEY"),
        ("qdrant://host/a#b", "is written %23"),
        ("qdrant://host/a?shards=0", "shards must be a number from 1"),
        ("qdrant://host/a?shards=two", "shards must be a number from 1"),
        ("qdrant://host/a?shards=1&shards=2", "shards is given twice"),
        ("qdrant://host/a?shard=1", "unknown setting 'shard'; there are shards"),
        ("qdrant://host/a?quantization=int4", "quantization must be int8"),
        ("qdrant+file://a/b", "with three slashes"),
        ("qdrant+file:///a", "with three slashes"),
        ("qdrant+file:///a/b?shards=2", "local mode has no settings"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, message: str) -> None:
    with pytest.raises(TrichromeError, match=message):
        open_store(url)


def test_a_place_says_its_kind() -> None:
    shape = {"model": "m", "fingerprint": "f", "dense_dim": 2, "sparse": False, "multivector_dim": None}
    with pytest.raises(TrichromeError, match="this place is of the kind qdrant, not 'exact'"):
        create_store("qdrant://host/notes", kind="exact", **shape)
    with pytest.raises(TrichromeError, match="unknown kind of store 'qdrant'; in a folder there are"):
        create_store("notes", kind="qdrant", **shape)
