"""The next number of a run, and the latest run of a recipe, are found without reading all runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "2"
down_revision = "1"

_RUNS = sa.table("runs", sa.column("id"), sa.column("name"), sa.column("number"))


def upgrade(op: Operations) -> None:
    """Take name and number out of the ids: `digits-3` is the third run of `digits`."""
    op.add_column("runs", sa.Column("name", sa.String(255), nullable=True))
    op.add_column("runs", sa.Column("number", sa.Integer, nullable=True))
    connection = op.get_bind()
    for run_id in connection.execute(sa.select(_RUNS.c.id)).scalars().all():
        name, _, number = run_id.rpartition("-")
        values = {"name": name, "number": int(number)}
        connection.execute(_RUNS.update().where(_RUNS.c.id == run_id).values(**values))
    op.drop_index("ix_runs_recipe_digest", "runs")
    latest = ["recipe_digest", "device", "started_at", "id"]
    op.create_index("ix_runs_latest", "runs", latest)
    op.create_index("ix_runs_name_number", "runs", ["name", "number"], unique=True)
