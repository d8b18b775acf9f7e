"""The tables of the newest schema, in SQLite and PostgreSQL alike; `migrations/` makes them.

JSON is kept as text: both databases then store the same bytes, and infinite scores of failed
candidates survive (the JSON types of databases refuse them).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

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
    Column("recipe_digest", String(64), nullable=False),
    Column("device", Text, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("version", String(40), nullable=False),
    Column("name", String(255), nullable=True),
    Column("number", Integer, nullable=True),
)
Index("ix_runs_latest", runs.c.recipe_digest, runs.c.device, runs.c.started_at, runs.c.id)
Index("ix_runs_name_number", runs.c.name, runs.c.number, unique=True)

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

# Who works on a run, by the clock of the database; only where several hosts share it (run_lock.py).
run_holders = Table(
    "run_holders",
    metadata,
    Column("run_id", String(255), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("holder", Text, nullable=False),
    Column("seen_s", Float, nullable=False),
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
