"""Who works on a run, in a database that several hosts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "4"
down_revision = "3"


def upgrade(op: Operations) -> None:
    """Make the table of holders."""
    op.create_table(
        "run_holders",
        sa.Column("run_id", sa.String(255), primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("seen_s", sa.Float, nullable=False),
    )
