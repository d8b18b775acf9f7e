"""Everything a run found, kept: records in SQLite or PostgreSQL, artifacts by content hash on disk.

Append-only: a record is never edited, so any figure can be traced to what produced it. The one
exception is `Store.drop_checkpoints`, which forgets how far an unfinished step had come.
"""

from pipeline.store.artifacts import Artifacts
from pipeline.store.patience import PATIENCE_S
from pipeline.store.records import Run, Step, StoredMeasurement, canonical_json, step_key
from pipeline.store.store import Store

__all__ = [
    "PATIENCE_S",
    "Artifacts",
    "Run",
    "Step",
    "Store",
    "StoredMeasurement",
    "canonical_json",
    "step_key",
]
