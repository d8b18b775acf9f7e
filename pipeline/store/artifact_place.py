"""Where the artifacts of a store lie: beside its database, or where its hosts have agreed.

A store in a folder has them in that folder. Hosts that share a database share them at a place that
is said once and kept in the database, so that whoever opens it finds them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import StoreError
from pipeline.store.artifacts import Artifacts

if TYPE_CHECKING:
    from pipeline.store.database import Database

ARTIFACTS_VARIABLE = "EDGEWRIGHT_ARTIFACTS"

_NAME = "artifacts"
_EMPTY = hashlib.sha256(b"").hexdigest()


def open_artifacts(
    database: Database,
    here: Artifacts,
    given: str | None,
    *,
    reach: bool,
    patience_s: float,
) -> Artifacts:
    """Open the artifacts of a store.

    Args:
        database: the store's.
        here: its artifacts on this host.
        given: where they lie, if the command says so.
        reach: make sure now that they are there, and keep a place that is said first; else that
            shows when one is asked for.
        patience_s: how long to wait for a URL that cannot be reached yet.

    Raises:
        StoreError: a store in a folder was given a place, a shared one another than it has, or
            the place cannot be used.
    """
    if not database.shared:
        if given:
            raise StoreError(
                f"the store {database.place} keeps its artifacts in {here.folder}; only hosts that "
                "share a postgresql:// database share a place for them: leave --artifacts away"
            )
        return here
    said = [_plain(place) for place in (given, os.environ.get(ARTIFACTS_VARIABLE)) if place]
    kept = database.kept(_NAME)
    for place in said:
        _check_same(database, kept or said[0], place)
    if kept is None and not (said and reach):
        return here
    place = kept or said[0]
    opened = _opened(place, here, patience_s)
    try:
        if kept is None:
            _settle(database, place, opened)
        elif reach:
            _check_there(database, place, opened)
    except BaseException:
        opened.close()
        raise
    return opened


def _opened(place: str, here: Artifacts, patience_s: float) -> Artifacts:
    if "://" not in place:
        return Artifacts(Path(place))
    # These import fsspec, which nobody needs who has a folder.
    from pipeline.store.remote_place import RemotePlace
    from pipeline.store.shared_artifacts import SharedArtifacts

    return SharedArtifacts(here.folder, RemotePlace(place, first_patience_s=patience_s))


def _settle(database: Database, place: str, opened: Artifacts) -> None:
    """Keep a new place for all who open the database.

    It is given the empty artifact: whatever is wrong with it is told now, not after the first
    training, and from then on a place without one is not the place.
    """
    opened.make()
    opened.put_bytes(b"")
    if not database.keep(_NAME, place):  # another host was first
        _check_same(database, database.kept(_NAME) or "", place)


def _plain(place: str) -> str:
    """Return a place in the one form in which it is kept and compared."""
    place = place.removeprefix("file://")
    if not place or "://" in place:
        return place.rstrip("/")
    return str(Path(place).absolute())


def _check_same(database: Database, kept: str, place: str) -> None:
    if kept != place:
        raise StoreError(
            f"the artifacts of the store {database.place} lie in {kept}, not in {place}; leave "
            f"--artifacts and ${ARTIFACTS_VARIABLE} away, or say the same"
        )


def _check_there(database: Database, place: str, opened: Artifacts) -> None:
    if not opened.has(_EMPTY):
        raise StoreError(
            f"the artifacts of the store {database.place} lie in {place}, where this host finds "
            "none; mount the folder that the hosts share, or see what became of the server"
        )
