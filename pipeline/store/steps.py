"""Finished steps and their artifacts: what makes a run resumable."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Select, delete, select

from device_agents.errors import StoreError
from pipeline.store import tables
from pipeline.store.database import Database
from pipeline.store.records import CHECKPOINT, Step, canonical_json, former_keys, step_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pipeline.store.artifacts import Artifacts

_LOG = logging.getLogger("edgewright.store")
_TRIES = 20


class StepRecords(Database):
    """The part of the store that remembers steps.

    Artifacts are put first and recorded after, so whatever is recorded can be read.
    """

    def __init__(
        self, engine: Engine, place: str, clock: Callable[[], float], artifacts: Artifacts
    ) -> None:
        super().__init__(engine, place, clock)
        self.artifacts = artifacts

    def close(self) -> None:
        """Let go of the database and of the artifacts; may be called twice."""
        super().close()
        self.artifacts.close()

    def put_bytes(self, data: bytes) -> str:
        """Store bytes as an artifact; return their SHA-256. Raises StoreError."""
        return self.artifacts.put_bytes(data)

    def put_file(self, source: str | Path) -> str:
        """Store a copy of a file as an artifact; return its SHA-256. Raises StoreError."""
        return self.artifacts.put_file(source)

    def path(self, sha256: str) -> Path:
        """Return where an artifact lies. Raises StoreError if it is not there."""
        return self.artifacts.path(sha256)

    def memo(self, kind: str, inputs: Mapping[str, Any]) -> Step | None:
        """Return the recorded step, or None if it has not been done.

        Its artifacts are re-hashed. A step whose artifact is missing or damaged counts as not
        done; a warning says so in one sentence.
        """
        return self._usable(step_key(kind, inputs))

    def has_step(self, kind: str) -> bool:
        """Tell whether any step of a kind is recorded, whatever became of its artifacts."""
        return bool(
            self._rows(select(tables.steps.c.key).where(tables.steps.c.kind == kind).limit(1))
        )

    def record(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        result: Any,
        artifacts: Mapping[str, str] | None = None,
        wall_s: float = 0.0,
    ) -> Step:
        """Record a finished step and return it, or the one that another process recorded first.

        Args:
            kind: train, export, …
            inputs: all that the result depends on, as JSON values.
            result: JSON values.
            artifacts: name -> SHA-256 of artifacts already put.
            wall_s: how long the work took.

        Raises:
            StoreError: an artifact has not been put, or the database cannot be written.
        """
        return self._record(kind, inputs, result, artifacts or {}, wall_s)

    def checkpoint(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        position: int,
        *,
        result: Any,
        artifacts: Mapping[str, str],
    ) -> Step:
        """Record how far a long step has come; `position` counts up (the epoch, say)."""
        parent = step_key(kind, inputs)
        key_inputs = {"parent": parent, "position": position}
        return self._record(
            CHECKPOINT, key_inputs, result, artifacts, 0.0, parent=parent, position=position
        )

    def latest_checkpoint(self, kind: str, inputs: Mapping[str, Any]) -> Step | None:
        """Return the furthest checkpoint of a step whose artifacts are all there.

        `step.inputs["position"]` says how far it is.
        """
        query = select(tables.steps.c.key).where(_checkpoint_of(kind, inputs))
        rows = self._rows(query.order_by(tables.steps.c.position.desc()))
        keys = dict.fromkeys(row["key"] for row in rows)  # without repeats, in order
        return next((step for key in keys if (step := self._usable(key))), None)

    def drop_checkpoints(
        self, kind: str, inputs: Mapping[str, Any], *, keep_latest: bool = False
    ) -> int:
        """Forget the checkpoints of a step (all, or all but the furthest usable); return how many.

        The one exception to append-only: a checkpoint is scaffolding, no result refers to it, and
        one per epoch would fill the disk. Its artifacts go too, unless another step has them; a
        step that is given the same bytes at this very moment may lose them, and is done again.
        """
        latest = self.latest_checkpoint(kind, inputs) if keep_latest else None
        steps = tables.steps
        superseded = _checkpoint_of(kind, inputs)
        if latest is not None:
            superseded &= steps.c.key != latest.key
        # Rows that went although the answer never came are not seen again when it is repeated.
        gone: dict[tuple[str, int], set[str]] = {}

        def drop(connection: Connection) -> set[str]:
            """Delete the rows; return those of their artifacts that other steps hold."""
            columns = (steps.c.key, steps.c.generation, steps.c.artifacts)
            for row in connection.execute(delete(steps).where(superseded).returning(*columns)):
                gone[row.key, row.generation] = set(json.loads(row.artifacts).values())
            return {
                sha
                for sha in set().union(*gone.values())
                if connection.execute(
                    select(steps.c.key).where(steps.c.artifacts.contains(sha)).limit(1)
                ).first()
            }

        held = self._patiently(lambda: self._transact(drop))
        for sha in set().union(*gone.values()) - held:
            self.artifacts.delete(sha)
        return len(gone)

    def _record(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        result: Any,
        artifacts: Mapping[str, str],
        wall_s: float,
        **checkpoint: Any,
    ) -> Step:
        key = step_key(kind, inputs)
        values = {
            "key": key,
            "kind": kind,
            "inputs": canonical_json(inputs),
            "result": json.dumps(result),
            "artifacts": canonical_json(dict(artifacts)),
            "created_at": self._now(),
            "wall_s": wall_s,
            **checkpoint,
        }
        for name, sha in artifacts.items():
            if reason := self.artifacts.why_not(sha):
                raise StoreError(f"step {kind!r} cannot be recorded: {name}: {reason}")
        for _ in range(_TRIES):
            rows = self._rows(_generations(key))
            if step := self._intact(rows)[0]:
                return step
            # Fails if another process has recorded one since `rows` was read: look again then.
            self._insert(tables.steps, {**values, "generation": len(rows)})
        raise StoreError(f"the artifacts of step {kind!r} in {self.place} keep disappearing")

    def _usable(self, key: str) -> Step | None:
        """Return a step whose artifacts are intact; if they are not, a warning says so."""
        step, reasons = self._intact(self._rows(_generations(key)))
        if step is None and reasons:
            _LOG.warning("%s; what made it is done again", reasons[0])
        return step

    def _intact(self, rows: Sequence[RowMapping]) -> tuple[Step | None, list[str]]:
        """Return the newest of a step's generations that is intact, and what ails newer ones."""
        reasons: list[str] = []
        for row in rows:
            step = _step(row)
            reason = next(filter(None, map(self.artifacts.why_not, step.artifacts.values())), None)
            if reason is None:
                return step, reasons
            reasons.append(f"step {step.kind!r}: {reason}")
        return None, reasons


def _checkpoint_of(kind: str, inputs: Mapping[str, Any]) -> ColumnElement[bool]:
    """Return what holds for the checkpoints of a step."""
    return tables.steps.c.parent.in_([step_key(kind, inputs), *former_keys(kind, inputs)])


def _generations(key: str) -> Select[Any]:
    """Return the query for all generations of a step, newest first."""
    query = select(tables.steps).where(tables.steps.c.key == key)
    return query.order_by(tables.steps.c.generation.desc())


def _step(row: RowMapping) -> Step:
    return Step(
        key=row["key"],
        kind=row["kind"],
        inputs=json.loads(row["inputs"]),
        result=json.loads(row["result"]),
        artifacts=json.loads(row["artifacts"]),
        created_at=row["created_at"],
        wall_s=row["wall_s"],
    )
