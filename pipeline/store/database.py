"""One connection pool and the two things done with it: read rows, insert a row that stays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, RowMapping, Select, Table, insert, select
from sqlalchemy.exc import IntegrityError

from pipeline.store.errors import StoreError, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Database:
    """An opened database. `place` names it in sentences; `clock` gives seconds since the epoch."""

    def __init__(self, engine: Engine, place: str, clock: Callable[[], float]) -> None:
        self.place = place
        self._engine = engine
        self._clock = clock

    def close(self) -> None:
        """Let go of the database; may be called twice."""
        self._engine.dispose()

    def _rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        with translated(self.place), self._engine.connect() as connection:
            return connection.execute(query).mappings().all()

    def _insert(self, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row; False if one with its key is there already."""
        try:
            with translated(self.place), self._engine.begin() as connection:
                connection.execute(insert(table).values(**values))
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            return self._refused(table, values, error)
        return True

    def _refused(self, table: Table, values: Mapping[str, Any], error: StoreError) -> bool:
        """Return False if the key is taken; raise if the row was refused for another reason."""
        keys = [column for column in table.primary_key.columns if column.name in values]
        if not keys:
            raise error
        query = select(*keys)
        for column in keys:
            query = query.where(column == values[column.name])
        if not self._rows(query):
            raise error
        return False

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
