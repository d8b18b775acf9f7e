"""How a database is reached. The same code serves SQLite and PostgreSQL."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import NoSuchModuleError

from device_agents.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREATION_LOCK = 0x65646765  # any fixed number: "edge"


def open_engine(url: str | URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine for an SQLite or PostgreSQL URL; nothing is connected yet."""
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.drivername.partition("+")[0]
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"no database {backend!r}; have a folder (SQLite) or postgresql://…")
    try:
        if backend == "postgresql":
            wait = {"connect_timeout": max(1, round(busy_timeout_s))}
            return create_engine(parsed, pool_pre_ping=True, connect_args=wait)
        engine = create_engine(parsed, connect_args={"timeout": busy_timeout_s})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(
            f"{backend} needs the package psycopg: pip install 'edgewright[postgres]'"
        ) from error
    event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = FULL")  # a recorded step survives a power cut
    finally:
        cursor.close()


def lease_engine(url: str | URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine for leases; nothing is connected yet."""
    engine = open_engine(url, busy_timeout_s=busy_timeout_s)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_leases)
    return engine


def _configure_leases(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # transactions begin where the code says, not at the first write
    )
    # A power cut ends whoever held a lease, too: no need to wait for the disk.
    connection.execute("PRAGMA synchronous = NORMAL").close()


@contextmanager
def one_maker(engine: Engine) -> Iterator[Connection]:
    """Begin the one transaction in which tables are made or changed: who comes too waits for it.

    All of it is done or, when the process is killed, nothing.
    """
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        # Kept in the file itself, and not to be set within a transaction.
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = WAL"))
        # Python's sqlite3 would begin the transaction only after the first tables.
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.begin() as connection:
        if sqlite:
            connection.execute(text("BEGIN IMMEDIATE"))
        else:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
        yield connection
