"""Where the files lie that a run gives its user, under readable names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import StoreError
from pipeline.store.errors import file_sentence

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.records import Run
    from pipeline.store.store import Store


def run_folder(store: Store, run: Run) -> Path:
    """Return the folder of a run's files, made if need be. Raises StoreError."""
    path = store.folder / "runs" / run.id
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(file_sentence(str(path), error)) from error
    return path
