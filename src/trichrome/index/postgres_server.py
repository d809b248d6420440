"""Stores in PostgreSQL behind postgresql://[USER@]HOST[:PORT]/DATABASE[/INDEX]: create, open, refuse.

INDEX is the schema that holds the store's tables (`postgres_schema`); `postgres_store` says what it does.
"""

from __future__ import annotations

from trichrome.index import postgres_schema as schema
from trichrome.index.postgres_pool import connect, parse_url
from trichrome.index.postgres_store import PostgresStore
from trichrome.index.store import Manifest


def create_at(url: str, manifest: Manifest) -> PostgresStore:
    """Create an empty store and open it."""
    place = parse_url(url)
    with connect(place) as connection:
        schema.create(connection, place, manifest)
    return open_at(url)


def open_at(url: str) -> PostgresStore:
    """Open the store at a URL; tables of an older version are upgraded."""
    place = parse_url(url)
    with connect(place) as connection:
        manifest = schema.upgrade(connection, place)
        kind = schema.TOKEN_TYPES[manifest.multivector_dtype]
        found = connection.execute(b"SELECT %s::regtype::oid::bigint", [kind]).fetchone()
    assert found is not None
    return PostgresStore(place, manifest, found[0])


def manifest_at(url: str) -> Manifest:
    """The manifest of the store at a URL."""
    place = parse_url(url)
    with connect(place) as connection:
        return schema.read(connection, place)[1]


def exists_at(url: str) -> bool:
    """Whether there is a store at a URL."""
    place = parse_url(url)
    with connect(place) as connection:
        return schema.present(connection, place)
