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
_BATCH = 500

# By the old key: a step has several rows when its artifacts were lost, all with the same inputs.
_REKEY = (
    sa.update(_STEPS)
    .where(_STEPS.c.key == sa.bindparam("old"))
    .values(key=sa.bindparam("new"), inputs=sa.bindparam("text"))
)
_MOVE = _REKEY.values(parent=sa.bindparam("parent_key"))


def upgrade(op: Operations) -> None:
    """Give every finished step its new key, and its checkpoints their new parent."""
    connection = op.get_bind()
    finished = sa.select(_STEPS.c.key).where(_STEPS.c.parent.is_(None)).distinct()
    keys = connection.execute(finished).scalars().all()
    parents: dict[str, str] = {}
    for start in range(0, len(keys), _BATCH):
        asked = _STEPS.c.key.in_(keys[start : start + _BATCH])
        columns = (_STEPS.c.key, _STEPS.c.kind, _STEPS.c.inputs)
        rows = connection.execute(sa.select(*columns).where(asked).distinct()).all()
        rekeyed = []
        for row in rows:
            inputs = json.loads(row.inputs)
            if inputs.get("edgewright") != "0.1.0":
                continue  # not recorded by a command of before
            del inputs["edgewright"]
            kept = {**inputs, "step": 1}
            new = _key(row.kind, kept)
            rekeyed.append({"old": row.key, "new": new, "text": _text(kept)})
            # The checkpoints of a gradient search were kept without the version.
            parents |= {row.key: new, _key(row.kind, inputs): new}
        if rekeyed:
            connection.execute(_REKEY, rekeyed)
    _move_checkpoints(connection, parents)


def _move_checkpoints(connection: sa.Connection, parents: dict[str, str]) -> None:
    columns = (_STEPS.c.key, _STEPS.c.kind, _STEPS.c.parent, _STEPS.c.position)
    rows = connection.execute(sa.select(*columns).where(_STEPS.c.parent.is_not(None)).distinct())
    moved = []
    for row in rows.all():
        if row.parent in parents:
            parent = parents[row.parent]
            inputs = {"parent": parent, "position": row.position}
            new = _key(row.kind, inputs)
            moved.append({"old": row.key, "new": new, "text": _text(inputs), "parent_key": parent})
    if moved:
        connection.execute(_MOVE, moved)


def _key(kind: str, inputs: dict[str, Any]) -> str:
    return hashlib.sha256(_text([kind, inputs]).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
