"""The tables of a store in PostgreSQL: made in one transaction, upgraded in one, refused if they are newer.

A store is a schema of the database:
    store       one row: the version of these tables and the manifest
    documents   one row a document: row_id (a new one whenever its content changes), key (a hash of the id,
                which may be longer than what PostgreSQL indexes), id, payload, and its vectors
Version 2 adds the inverted index of the sparse vectors, which `postgres_sparse` fills and reads:
    segments    ranges of row_id that are in postings
    postings    of a segment and a token id, which documents have it and with what weights
"""

from __future__ import annotations

import json
from typing import Any

from psycopg import Connection, errors

from trichrome.errors import TrichromeError
from trichrome.index.manifests import manifest_json, parse_manifest
from trichrome.index.postgres_pool import PostgresPlace
from trichrome.index.postgres_wire import SPARSE_DIMENSIONS
from trichrome.index.store import Manifest

#: The version of the tables that this code reads and writes.
VERSION = 2
#: The oldest pgvector with all that is used: scans that go on until a filter let enough through.
PGVECTOR = (0, 8)
#: What pgvector's types and its index on halfvec take.
MAX_DENSE, MAX_TOKEN_WIDTH = 4_000, 16_000
#: The vector types of the tokens by the manifest's dtype.
TOKEN_TYPES = {"float16": "halfvec", "float32": "vector"}


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def create(
    connection: Connection[Any], place: PostgresPlace, manifest: Manifest, version: int = VERSION
) -> None:
    """Make the tables of an empty store; all of them or, after an error, none.

    TrichromeError where the schema holds a store or anything else, where pgvector is missing or too old, and
    for vectors wider than pgvector indexes.
    """
    _check_widths(place, manifest)
    if present(connection, place):
        raise TrichromeError(f"{place.shown}: cannot create a store here: there is a store already; open it")
    schema = quoted(place.index)
    try:
        with connection.transaction():
            _require_pgvector(connection, place)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
            sql = "SELECT count(*) FROM pg_class WHERE relnamespace = %s::regnamespace"
            if _one(connection, sql, [schema])[0]:
                raise TrichromeError(
                    f"{place.shown}: cannot create a store here: the schema {place.index!r} is not empty; "
                    "choose another name"
                )
            connection.execute(_first_version(schema, manifest).encode())
            connection.execute(
                f"INSERT INTO {schema}.store (version, manifest) VALUES (%s, %s)".encode(),
                [1, json.dumps(manifest_json(manifest), ensure_ascii=False)],
            )
            _migrate(connection, schema, 1, version)
    except (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateSchema):
        raise TrichromeError(
            f"{place.shown}: cannot create a store here: another client is creating one; open that"
        ) from None


def present(connection: Connection[Any], place: PostgresPlace) -> bool:
    """Whether there is a store."""
    name = f"{quoted(place.index)}.store"
    sql = "SELECT to_regclass(%s) IS NOT NULL AND to_regclass(%s) IS NOT NULL"
    return bool(_one(connection, sql, [name, f"{quoted(place.index)}.documents"])[0])


def read(connection: Connection[Any], place: PostgresPlace) -> tuple[int, Manifest]:
    """The version of the tables and the manifest. TrichromeError where there is no store, a damaged one, or
    one that a newer trichrome made."""
    if not present(connection, place):
        raise TrichromeError(f"{place.shown}: there is no store; create one with `trichrome index`")
    schema = quoted(place.index)
    try:
        rows = connection.execute(f"SELECT version, manifest::text FROM {schema}.store".encode()).fetchall()
    except errors.UndefinedColumn as error:
        raise TrichromeError(
            f"{place.shown}: the table {schema}.store is not trichrome's ({error})"
        ) from error
    if len(rows) != 1:
        raise TrichromeError(f"{place.shown}: the store is damaged: the table {schema}.store is empty")
    version, text = rows[0]
    if version > VERSION:
        raise TrichromeError(
            f"{place.shown}: the store has version {version} of the tables, this trichrome knows {VERSION}; "
            "upgrade trichrome"
        )
    manifest = parse_manifest(text, f"{place.shown}: {schema}.store")
    if manifest.kind != "postgres":
        raise TrichromeError(f"{place.shown}: the manifest is damaged: this is no {manifest.kind} store")
    return version, manifest


def upgrade(connection: Connection[Any], place: PostgresPlace) -> Manifest:
    """The manifest; tables of an older version are brought up to date first, in one transaction."""
    version, manifest = read(connection, place)
    if version < VERSION:
        schema = quoted(place.index)
        with connection.transaction():
            sql = f"SELECT version FROM {schema}.store FOR UPDATE"  # writers hold it FOR SHARE
            version = _one(connection, sql)[0]  # another client may have been quicker
            _migrate(connection, schema, version, VERSION)
    return manifest


def _first_version(schema: str, manifest: Manifest) -> str:
    """The statements that make the tables of version 1."""
    columns, storage = [], ""
    if manifest.dense_dim is not None:
        columns.append(f"dense vector({manifest.dense_dim}) NOT NULL")
    if manifest.sparse:
        columns.append(f"sparse sparsevec({SPARSE_DIMENSIONS}) NOT NULL")
    if manifest.multivector_dim is not None:
        columns.append(
            f"tokens {TOKEN_TYPES[manifest.multivector_dtype]}({manifest.multivector_dim})[] NOT NULL"
        )
        # out of line, as they come: they do not compress
        storage = f"ALTER TABLE {schema}.documents ALTER COLUMN tokens SET STORAGE EXTERNAL;"
    # toast_tuple_target: the other columns stay in the row, where a scan reads them twice as fast
    return f"""
        CREATE TABLE {schema}.store (
            single boolean PRIMARY KEY DEFAULT true CHECK (single),
            version integer NOT NULL,
            manifest json NOT NULL
        );
        CREATE TABLE {schema}.documents (
            row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            key uuid NOT NULL UNIQUE,
            id text NOT NULL,
            payload jsonb NOT NULL,
            {", ".join(columns)}
        ) WITH (toast_tuple_target = 8160);
        {storage}
        CREATE INDEX documents_payload ON {schema}.documents USING gin (payload jsonb_path_ops);
    """


def _second_version(schema: str) -> str:
    """The statements that make tables of version 2 out of those of version 1."""
    return f"""
        CREATE TABLE {schema}.segments (
            segment bigint PRIMARY KEY,
            last bigint NOT NULL,
            documents integer NOT NULL
        );
        CREATE TABLE {schema}.postings (
            token integer NOT NULL,
            segment bigint NOT NULL REFERENCES {schema}.segments ON DELETE CASCADE,
            documents bytea NOT NULL,
            weights bytea NOT NULL,
            PRIMARY KEY (token, segment)
        );
        ALTER TABLE {schema}.postings
            ALTER COLUMN documents SET STORAGE EXTERNAL, ALTER COLUMN weights SET STORAGE EXTERNAL;
    """


def _migrate(connection: Connection[Any], schema: str, version: int, wanted: int) -> None:
    """Bring tables from one version to a later one, step by step."""
    steps = {1: _second_version}
    for number in range(version, wanted):
        connection.execute(steps[number](schema).encode())
    connection.execute(f"UPDATE {schema}.store SET version = %s".encode(), [wanted])


def _check_widths(place: PostgresPlace, manifest: Manifest) -> None:
    widths = (("dense", manifest.dense_dim, MAX_DENSE), ("token", manifest.multivector_dim, MAX_TOKEN_WIDTH))
    for name, width, most in widths:
        if width is not None and width > most:
            raise TrichromeError(
                f"{place.shown}: {name} vectors are {width:,} wide, pgvector takes at most {most:,}; use a "
                "folder, or a model with narrower ones"
            )


def _require_pgvector(connection: Connection[Any], place: PostgresPlace) -> None:
    """Make the extension where it is not there; TrichromeError where it can't be, or is too old."""
    sql = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    if not connection.execute(sql.encode()).fetchone():
        try:
            connection.execute(b"CREATE EXTENSION vector")
        except (errors.UndefinedFile, errors.FeatureNotSupported, errors.InsufficientPrivilege) as error:
            raise TrichromeError(
                f"{place.shown}: the database lacks pgvector and it can't be made here "
                f"({str(error).splitlines()[0]}); install it, or have an owner run CREATE EXTENSION vector"
            ) from error
    found = _one(connection, sql)[0]
    if tuple(int(part) for part in str(found).split(".")[:2]) < PGVECTOR:
        raise TrichromeError(
            f"{place.shown}: pgvector {found} is too old; install {'.'.join(map(str, PGVECTOR))} or later "
            "and run ALTER EXTENSION vector UPDATE"
        )


def _one(connection: Connection[Any], sql: str, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(sql.encode(), parameters).fetchone()
    assert row is not None  # these statements always give one
    return tuple(row)
