"""The first schema: of an empty database, or one whose making was cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "1"
down_revision = None


def upgrade(op: Operations) -> None:
    """Make the tables that are not there."""

    def make(name: str, *columns: sa.schema.SchemaItem) -> None:
        op.create_table(name, *columns, if_not_exists=True)

    make(
        "edgewright_meta",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    make(
        "runs",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("recipe", sa.Text, nullable=False),
        sa.Column("recipe_digest", sa.String(64), nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("started_at", sa.String(40), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
    )
    make(
        "steps",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("artifacts", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("wall_s", sa.Float, nullable=False),
        sa.Column("parent", sa.String(64), nullable=True),
        sa.Column("position", sa.Integer, nullable=True),
    )
    make(
        "measurements",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String(255), sa.ForeignKey("runs.id"), nullable=True),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("device_digest", sa.String(64), nullable=False),
        sa.Column("model_sha256", sa.String(64), nullable=False),
        sa.Column("reference_sha256", sa.String(64), nullable=True),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("median_ms", sa.Float, nullable=False),
        sa.Column("ratio", sa.Float, nullable=True),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.CheckConstraint("verdict in ('valid', 'suspect', 'invalid')", name="verdict_known"),
    )
    make(
        "trials",
        sa.Column("run_id", sa.String(255), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
    )
    make(
        "results",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String(255), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
    )
    for table, columns, name in (
        ("runs", ["recipe_digest"], "ix_runs_recipe_digest"),
        ("steps", ["parent"], "ix_steps_parent"),
        ("measurements", ["run_id"], "ix_measurements_run_id"),
        ("measurements", ["model_sha256", "device"], "ix_measurements_model_device"),
        ("results", ["run_id"], "ix_results_run_id"),
    ):
        op.create_index(name, table, columns, if_not_exists=True)
