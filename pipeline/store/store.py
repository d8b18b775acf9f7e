"""The store: memo of finished steps, runs, trials, measurements, results and their artifacts.

A step that is recorded is never done again: `memo` finds it by its kind and its inputs. Two
processes that do the same step at once keep one record; both get the same Step back.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import URL

from device_agents import bounded
from device_agents.errors import StoreError
from pipeline.store.artifact_place import open_artifacts
from pipeline.store.artifacts import Artifacts
from pipeline.store.database import Database
from pipeline.store.engines import open_engine
from pipeline.store.errors import translate_errors
from pipeline.store.location import database_url
from pipeline.store.patience import patiently
from pipeline.store.runs import RunRecords
from pipeline.store.schema import prepare
from pipeline.store.steps import StepRecords

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_FOLDER = ".edgewright"
STORE_VARIABLE = "EDGEWRIGHT_STORE"

_LOG = logging.getLogger("edgewright.store")


class Store(StepRecords, RunRecords):
    """Append-only records and artifacts. Make one with `Store.open`; close it, or use `with`.

    Safe to use from several threads; several processes may open the same location.

    Attributes:
        location: what `open` was given or found; another process opens the same store with it.
        folder: of this host: the database itself, if it is a file, and the files of its runs.
    """

    location: str = ""
    folder: Path = Path(DEFAULT_FOLDER)

    @classmethod
    def open(
        cls,
        location: str | Path | None = None,
        *,
        create: bool = True,
        artifacts: str | None = None,
        busy_timeout_s: float = 30.0,
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a store, making it if it is not there.

        Args:
            location: a folder, or a database URL such as ``postgresql://host/name``. Without one,
                $EDGEWRIGHT_STORE, else ``.edgewright``.
            create: False refuses to make a store where none is.
            artifacts: of a database: where its hosts share their artifacts, a folder that all of
                them have or a URL; else $EDGEWRIGHT_ARTIFACTS. The database keeps what was said
                first. Where nothing was, they lie in ``.edgewright`` of the current folder.
            busy_timeout_s: how long to wait for another process that is writing.
            patience_s: how long to wait for a server that is away, of the database or of the
                artifacts; for those who come in the middle of a run. Once opened, a store waits
                `PATIENCE_S` for it.
            clock: seconds since the epoch.

        A store that an earlier version made is brought up to date.

        Raises:
            StoreError: not a store, a later version's, locked, read-only or on a full disk.
        """
        where = str(location or os.environ.get(STORE_VARIABLE) or DEFAULT_FOLDER)
        if (database := database_url(where)) is not None:
            folder, url, place = Path(DEFAULT_FOLDER), database.url, database.shown
        else:
            folder = Path(where)
            place = str(folder / "store.db")
            url = URL.create("sqlite", database=str(folder.absolute() / "store.db"))
            if not create and not bounded.is_file(Path(place)):
                raise StoreError(f"there is no store in {folder}; `edgewright run` makes one")
        here = Artifacts(folder / "artifacts")
        here.make()
        with translate_errors(place):
            engine = open_engine(url, busy_timeout_s=busy_timeout_s)

        def be_prepared() -> None:
            with translate_errors(place):
                prepare(engine, place)

        try:
            patiently(be_prepared, patience_s, tell=_LOG.warning)
            found = open_artifacts(
                Database(engine, place, clock), here, artifacts, reach=create, patience_s=patience_s
            )
        except BaseException:
            engine.dispose()
            raise
        if create:
            found.sweep(clock())
        store = cls(engine, place, clock, found)
        store.location, store.folder = where, folder
        return store

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()
