"""The schema of a store: made, checked, brought up to date.

A store says in its table `edgewright_meta` which schema it has. An older one is brought up to this
version's by the files of `migrations/` when it is opened, in one transaction.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, delete, insert, inspect, select
from sqlalchemy.schema import CreateIndex, CreateTable

from device_agents.errors import StoreError
from pipeline.store.engines import one_maker
from pipeline.store.tables import lease_metadata, meta, metadata

if TYPE_CHECKING:
    from alembic.script import Script

SCHEMA_VERSION = 4

MIGRATIONS = Path(__file__).parent / "migrations"
_LOG = logging.getLogger("edgewright.store")


def prepare(engine: Engine, place: str) -> None:
    """Make the tables if they are not there, or bring them up to this version's.

    Raises:
        StoreError: the database holds something else, or a schema of a later version.
    """
    with engine.connect() as connection:
        found = _version(connection, place)
    if found is None or found < SCHEMA_VERSION:
        with one_maker(engine) as connection:
            found = _version(connection, place)  # another process may have been first
            if found and found < SCHEMA_VERSION:
                _LOG.warning(
                    "the store %s was made by an earlier edgewright and is brought up to date; "
                    "earlier ones do not read it any more",
                    place,
                )
            for script in _scripts_after(found):
                _apply(connection, script)
                found = int(script.revision)
    if found != SCHEMA_VERSION:
        raise StoreError(
            f"the store {place} has schema {found}, this edgewright reads schema {SCHEMA_VERSION}; "
            "use the edgewright that wrote it, or choose another store with --store"
        )


def prepare_leases(engine: Engine) -> None:
    """Make the tables of leases that are not there."""
    with engine.connect() as connection:
        present = set(inspect(connection).get_table_names())
    if present >= set(lease_metadata.tables):
        return
    with one_maker(engine) as connection:
        for table in lease_metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))


def _version(connection: Connection, place: str) -> int | None:
    """Return the schema's version, None for a database without (all of) our tables."""
    present = set(inspect(connection).get_table_names())
    if meta.name in present:
        query = select(meta.c.value).where(meta.c.name == "schema")
        found = connection.execute(query).scalar_one_or_none()
        return None if found is None else int(found)
    foreign = sorted(present - set(metadata.tables) - set(lease_metadata.tables))
    if foreign:
        raise StoreError(
            f"the database {place} belongs to something else (it has a table {foreign[0]!r}); "
            "choose another with --store"
        )
    return None


def _scripts_after(version: int | None) -> list[Script]:
    """Return what leads from a schema, None for an empty database, to the newest, in order."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    if version is not None and version >= SCHEMA_VERSION:
        return []
    below = "base" if version is None else str(version)
    return list(scripts.iterate_revisions("head", below))[::-1]


def _apply(connection: Connection, script: Script) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    script.module.upgrade(Operations(MigrationContext.configure(connection)))
    connection.execute(delete(meta).where(meta.c.name == "schema"))
    connection.execute(insert(meta).values(name="schema", value=script.revision))
