"""One connection pool and the two things done with it: read rows, insert a row that stays.

A PostgreSQL server may be restarted in the middle of either. Both are then repeated, for up to
`PATIENCE_S`, and so must not do twice what was done although the answer never came: every row has
its whole key before it is first sent, and one that is there already counts as inserted when it is
the very row.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine, RowMapping, Select, Table, func, insert, select
from sqlalchemy.exc import IntegrityError

from device_agents.errors import StoreError
from pipeline.store import tables
from pipeline.store.errors import StoreBusy, translate_errors
from pipeline.store.patience import PATIENCE_S, patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

_LOG = logging.getLogger("edgewright.store")

_T = TypeVar("_T")


class Database:
    """An opened database.

    Attributes:
        place: names it in sentences.
        shared: several hosts may use it: a server, not a file.
    """

    def __init__(self, engine: Engine, place: str, clock: Callable[[], float]) -> None:
        self.place = place
        self._engine = engine
        self._clock = clock  # seconds since the epoch
        self.shared = engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Let go of the database; may be called twice."""
        self._engine.dispose()

    def kept(self, name: str) -> str | None:
        """Return what `keep` was given for a name, None if nothing was."""
        columns = tables.meta.c
        rows = self._rows(select(columns.value).where(columns.name == name))
        return str(rows[0]["value"]) if rows else None

    def keep(self, name: str, value: str) -> bool:
        """Keep a value for all who open the database; False if there is one already."""
        return self._insert(tables.meta, {"name": name, "value": value})

    def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        def read() -> Sequence[RowMapping]:
            with translate_errors(self.place), self._engine.connect() as connection:
                return connection.execute(query).mappings().all()

        return self._patiently(read)

    def _insert(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row; False if another one with its key is there already."""
        row, unanswered = self._with_key(table, values), False

        def add() -> bool:
            nonlocal unanswered
            try:
                self._transact(lambda connection: connection.execute(insert(table).values(**row)))
            except StoreBusy:
                unanswered = True
                raise
            except StoreError as error:
                if not isinstance(error.__cause__, IntegrityError):
                    raise
                found = self._in_the_way(table, row, error)
                return unanswered and all(found[name] == value for name, value in row.items())
            return True

        return self._patiently(add)

    def _transact(self, act: Callable[[Connection], _T]) -> _T:
        """Do something in one transaction, once."""
        with translate_errors(self.place), self._engine.begin() as connection:
            return act(connection)

    def _patiently(self, act: Callable[[], _T]) -> _T:
        """Do what may be repeated; a server that has gone is waited for.

        SQLite has no server, and itself waits for who has locked it.
        """
        return patiently(act, PATIENCE_S, tell=_LOG.warning) if self.shared else act()

    def _with_key(self, table: Table, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the row with the number that the server gives it, where that is its key."""
        counted = table.autoincrement_column
        if not self.shared or counted is None or counted.name in values:
            return values
        sequence = func.pg_get_serial_sequence(table.name, counted.name)
        (found,) = self._rows(select(func.nextval(sequence).label("number")))
        return {counted.name: found["number"], **values}

    def _in_the_way(self, table: Table, row: Mapping[str, Any], error: StoreError) -> RowMapping:
        """Return the row that has the key; raise if `row` was refused for another reason."""
        keys = [column for column in table.primary_key.columns if column.name in row]
        if not keys:
            raise error
        query = select(table)
        for column in keys:
            query = query.where(column == row[column.name])
        rows = self._rows(query)
        if not rows:
            raise error
        return rows[0]

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
