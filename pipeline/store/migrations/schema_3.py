"""Steps are keyed by the version of their kind, no longer by the version of the package.

Until now every step had `"edgewright": "0.1.0"` among its inputs. All kinds are of version 1 when
this is written, so what was recorded stays known: the key changes, nothing else.

The key of a step that was not finished cannot be computed here, since nothing holds its inputs.
Its checkpoints are found by who asks for them (`records.former_keys`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations

revision = "3"
down_revision = "2"

_STEPS = sa.table("steps", *map(sa.column, ("key", "kind", "inputs", "parent", "position")))


def upgrade(op: Operations) -> None:
    """Give every finished step its new key, and its checkpoints their new parent."""
    connection = op.get_bind()
    finished = sa.select(_STEPS.c.key).where(_STEPS.c.parent.is_(None)).distinct()
    for key in connection.execute(finished).scalars().all():
        # All generations of a step have the same inputs.
        row = connection.execute(
            sa.select(_STEPS.c.kind, _STEPS.c.inputs).where(_STEPS.c.key == key).limit(1)
        ).one()
        inputs = json.loads(row.inputs)
        if inputs.get("edgewright") != "0.1.0":
            continue  # not recorded by a command of before
        del inputs["edgewright"]
        new = {**inputs, "step": 1}
        values = {"key": _key(row.kind, new), "inputs": _text(new)}
        connection.execute(_STEPS.update().where(_STEPS.c.key == key).values(**values))
        # The checkpoints of a gradient search were kept without the version.
        for parent in (key, _key(row.kind, inputs)):
            _move_checkpoints(connection, parent, values["key"])


def _move_checkpoints(connection: sa.Connection, parent: str, new: str) -> None:
    found = sa.select(_STEPS.c.key, _STEPS.c.kind, _STEPS.c.position).where(
        _STEPS.c.parent == parent
    )
    for row in connection.execute(found.distinct()).all():
        inputs = {"parent": new, "position": row.position}
        values = {"key": _key(row.kind, inputs), "inputs": _text(inputs), "parent": new}
        connection.execute(_STEPS.update().where(_STEPS.c.key == row.key).values(**values))


def _key(kind: str, inputs: dict[str, Any]) -> str:
    return hashlib.sha256(_text([kind, inputs]).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
