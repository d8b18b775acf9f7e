"""The tables, and how a database is opened. The same code serves SQLite and PostgreSQL.

JSON is kept as text: both databases then store the same bytes, and infinite scores of failed
candidates survive (the JSON types of databases refuse them).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, NoSuchModuleError
from sqlalchemy.schema import CreateIndex, CreateTable

from device_agents.errors import StoreError

SCHEMA_VERSION = "1"
_CREATION_LOCK = 0x65646765  # any fixed number: "edge"

metadata = MetaData()

meta = Table(
    "edgewright_meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("recipe", Text, nullable=False),
    Column("recipe_digest", String(64), nullable=False, index=True),
    Column("device", Text, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("version", String(40), nullable=False),
)

# A step has a second generation only when the artifacts of the first have been lost or damaged.
# `parent` and `position` are of checkpoints: the step they belong to, and how far it had come.
steps = Table(
    "steps",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("inputs", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("artifacts", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("parent", String(64), nullable=True, index=True),
    Column("position", Integer, nullable=True),
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=True, index=True),
    Column("device", Text, nullable=False),
    Column("device_digest", String(64), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("reference_sha256", String(64), nullable=True),
    Column("protocol", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("median_ms", Float, nullable=False),
    Column("ratio", Float, nullable=True),
    Column("data", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    CheckConstraint("verdict in ('valid', 'suspect', 'invalid')", name="verdict_known"),
)
Index("ix_measurements_model_device", measurements.c.model_sha256, measurements.c.device)

trials = Table(
    "trials",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("spec", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("data", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
)

# Leases may lie in a database of their own, shared by several stores (leases.py), so they are made
# by themselves, also beside a store that an older version made. Times are explained in lease_book.
lease_metadata = MetaData()

lease_devices = Table(
    "lease_devices",
    lease_metadata,
    Column("device", Text, primary_key=True),
    Column("fence", BigInteger, nullable=False),
)

lease_claims = Table(
    "lease_claims",
    lease_metadata,
    Column("token", String(32), primary_key=True),
    Column("device", Text, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("asked_s", Float, nullable=False),
    Column("fence", BigInteger, nullable=True),
    Column("since_s", Float, nullable=True),
    Column("seen_s", Float, nullable=False),
    Column("ttl_s", Float, nullable=False),
)


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


def prepare(engine: Engine, place: str) -> None:
    """Make the tables if they are not there, or check that they are this version's.

    Raises:
        StoreError: the database holds something else, or a schema of another version.
    """
    with engine.connect() as connection:
        found = _version(connection, place)
    if found is None:
        _create(engine)
        with engine.connect() as connection:
            found = _version(connection, place)
    if found != SCHEMA_VERSION:
        raise StoreError(
            f"the store {place} has schema {found}, this edgewright reads schema {SCHEMA_VERSION}; "
            "use the edgewright that wrote it, or choose another store with --store"
        )


def _version(connection: Connection, place: str) -> str | None:
    """Return the schema's version, None for a database without (all of) our tables."""
    present = set(inspect(connection).get_table_names())
    if meta.name in present:
        query = select(meta.c.value).where(meta.c.name == "schema")
        found: str | None = connection.execute(query).scalar_one_or_none()
        return found
    foreign = sorted(present - set(metadata.tables) - set(lease_metadata.tables))
    if foreign:
        raise StoreError(
            f"the database {place} belongs to something else (it has a table {foreign[0]!r}); "
            "choose another with --store"
        )
    return None


def lease_engine(url: str | URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine for leases; nothing is connected yet."""
    engine = open_engine(url, busy_timeout_s=busy_timeout_s)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_leases)
    return engine


def prepare_leases(engine: Engine) -> None:
    """Make the tables of leases that are not there."""
    with engine.connect() as connection:
        present = set(inspect(connection).get_table_names())
    if not present >= set(lease_metadata.tables):
        _make(engine, lease_metadata)


def _configure_leases(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # transactions begin where the code says, not at the first write
    )
    # A power cut ends whoever held a lease, too: no need to wait for the disk.
    connection.execute("PRAGMA synchronous = NORMAL").close()


def _create(engine: Engine) -> None:
    """Make what is missing. Two processes may do so at once; the version is written last."""
    _make(engine, metadata)
    try:
        with engine.begin() as connection:
            connection.execute(meta.insert().values(name="schema", value=SCHEMA_VERSION))
    except IntegrityError:
        return  # another process was first


def _make(engine: Engine, wanted: MetaData) -> None:
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = WAL"))  # kept in the file itself
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
        for table in wanted.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
