"""Runs and what they gave: trials, measurements, results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, delete, func, select, text

from device_agents.errors import StoreError
from pipeline.store import model_result, tables
from pipeline.store.database import Database
from pipeline.store.model_result import ModelResult
from pipeline.store.records import Run, StoredMeasurement, canonical_json
from pipeline.store.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.api import Measurement

_TRIES = 20
_RUN = tuple(tables.runs.c[name] for name in Run.__slots__)
_NEWEST_FIRST = (tables.runs.c.started_at.desc(), tables.runs.c.id.desc())

# Locks the row until the end of the transaction, whether it changes it or not.
_TAKE_RUN = text(
    "INSERT INTO run_holders AS held (run_id, token, holder, seen_s) VALUES "
    "(:run_id, :token, :holder, extract(epoch FROM clock_timestamp())) "
    "ON CONFLICT (run_id) DO UPDATE "
    "SET token = excluded.token, holder = excluded.holder, seen_s = excluded.seen_s "
    "WHERE held.token = excluded.token OR held.seen_s < excluded.seen_s - :ttl_s"
)


@dataclass(frozen=True, slots=True)
class RunHolder:
    """Who works on a run, and when it last said so, in seconds of the database's clock."""

    token: str
    holder: str
    seen_s: float


class RunRecords(Database):
    """The part of the store that says what was run and what came out."""

    def new_run(
        self, name: str, *, recipe: Mapping[str, Any], digest: str, device: str, version: str
    ) -> Run:
        """Record the start of a run and return it; its id is `name` and the next free number."""
        columns = tables.runs.c
        newest = select(func.max(columns.number).label("number")).where(columns.name == name)
        values = {
            "name": name,
            "recipe": canonical_json(recipe),
            "recipe_digest": digest,
            "device": device,
            "started_at": self._now(),
            "version": version,
        }
        for _ in range(_TRIES):
            number = (self._rows(newest)[0]["number"] or 0) + 1
            if self._insert(tables.runs, {"id": f"{name}-{number}", "number": number, **values}):
                return self.run(f"{name}-{number}")
        raise StoreError(f"the store {self.place} found no free number for run {name!r}; try again")

    def run(self, run_id: str) -> Run:
        """Return a run. Raises StoreError naming the latest runs if there is none of that id."""
        columns = tables.runs.c
        if rows := self._rows(select(*_RUN).where(columns.id == run_id)):
            return _run(rows[0])
        latest = select(columns.id).order_by(*_NEWEST_FIRST).limit(5)
        known = ", ".join(row["id"] for row in reversed(self._rows(latest))) or "no run yet"
        raise StoreError(f"no run {run_id!r} in {self.place}; have {known}")

    def runs(self) -> list[Run]:
        """Return all runs, oldest first."""
        rows = self._rows(select(*_RUN).order_by(tables.runs.c.started_at, tables.runs.c.id))
        return [_run(row) for row in rows]

    def latest_run(self, recipe_digest: str, device: str) -> Run | None:
        """Return the run of a recipe on a device that was started last, if there is one."""
        columns = tables.runs.c
        query = select(*_RUN).where(
            columns.recipe_digest == recipe_digest, columns.device == device
        )
        rows = self._rows(query.order_by(*_NEWEST_FIRST).limit(1))
        return _run(rows[0]) if rows else None

    def take_run(self, run_id: str, token: str, holder: str, ttl_s: float) -> RunHolder:
        """Hold a run, if nobody has said within `ttl_s` that it is theirs; return who holds it.

        Who holds it already says so again. Asks once; for shared databases, by whose clock the
        times are.
        """
        values = {"run_id": run_id, "token": token, "holder": holder, "ttl_s": ttl_s}

        def take(connection: Connection) -> RunHolder:
            connection.execute(_TAKE_RUN, values)
            rows = tables.run_holders
            query = select(rows.c.token, rows.c.holder, rows.c.seen_s)
            return RunHolder(*connection.execute(query.where(rows.c.run_id == run_id)).one())

        return self._transact(take)

    def release_run(self, run_id: str, token: str) -> None:
        """Let go of a run that `take_run` gave."""
        rows = tables.run_holders
        gone = delete(rows).where(rows.c.run_id == run_id, rows.c.token == token)
        self._transact(lambda connection: connection.execute(gone))

    def add_trial(self, run_id: str, index: int, spec: str, data: Mapping[str, Any]) -> bool:
        """Record candidate `index` of a run; False if it is recorded already (and stays so)."""
        self.run(run_id)
        values = {"run_id": run_id, "index": index, "spec": spec, "data": json.dumps(data)}
        return self._insert(tables.trials, {**values, "created_at": self._now()})

    def trials(self, run_id: str) -> list[Mapping[str, Any]]:
        """Return the data of a run's candidates, by index."""
        query = select(tables.trials.c.data).where(tables.trials.c.run_id == run_id)
        rows = self._rows(query.order_by(tables.trials.c.index))
        return [json.loads(row["data"]) for row in rows]

    def add_measurement(self, measurement: Measurement, *, run_id: str | None = None) -> None:
        """Record a measurement, valid or not."""
        if run_id is not None:
            self.run(run_id)
        values = {
            "run_id": run_id,
            "device": measurement.device,
            "device_digest": measurement.device_digest,
            "model_sha256": measurement.model_sha256,
            "reference_sha256": measurement.reference_sha256,
            "protocol": measurement.protocol.name,
            "runtime": measurement.runtime,
            "verdict": measurement.verdict,
            "median_ms": measurement.median_ms,
            "ratio": measurement.ratio,
            "data": json.dumps(measurement.to_json()),
            "created_at": self._now(),
        }
        self._insert(tables.measurements, values)

    def measurements(
        self,
        *,
        run_id: str | None = None,
        model_sha256: str | None = None,
        device: str | None = None,
    ) -> list[StoredMeasurement]:
        """Return measurements, oldest first, of a run, a model or a device if given."""
        columns = tables.measurements.c
        query = select(tables.measurements).order_by(columns.id)
        asked = {"run_id": run_id, "model_sha256": model_sha256, "device": device}
        for name, value in asked.items():
            if value is not None:
                query = query.where(columns[name] == value)
        rows = self._rows(query)
        return [StoredMeasurement(**{**row, "data": json.loads(row["data"])}) for row in rows]

    def add_result(self, result: RunResult | ModelResult) -> None:
        """Record what a run found; a repeated run adds another, `result` gives the newest."""
        self.run(result.run_id)
        values = {"run_id": result.run_id, "data": json.dumps(result.to_json())}
        self._insert(tables.results, {**values, "created_at": self._now()})

    def list_results(self) -> dict[str, RunResult | ModelResult]:
        """Return the newest result of every run that has one, by the run's id."""
        query = select(tables.results.c.run_id, tables.results.c.data).order_by(tables.results.c.id)
        newest = {row["run_id"]: row["data"] for row in self._rows(query)}
        return {run_id: _result(json.loads(data)) for run_id, data in newest.items()}

    def result(self, run_id: str | None = None) -> RunResult | ModelResult:
        """Return the newest result, of a run if given. Raises StoreError if there is none."""
        query = select(tables.results.c.data).order_by(tables.results.c.id.desc()).limit(1)
        if run_id is not None:
            query = query.where(tables.results.c.run_id == self.run(run_id).id)
        rows = self._rows(query)
        if not rows:
            what = f"run {run_id!r} has" if run_id else f"the store {self.place} holds"
            raise StoreError(f"{what} no finished result; `edgewright run RECIPE` goes on with it")
        return _result(json.loads(rows[0]["data"]))


def _result(data: dict[str, Any]) -> RunResult | ModelResult:
    """Return a search's result, or that of a user's own model."""
    if data.get("kind") == model_result.KIND:
        return ModelResult.from_json(data)
    return RunResult.from_json(data)


def _run(row: RowMapping) -> Run:
    return Run(**{**row, "recipe": json.loads(row["recipe"])})
