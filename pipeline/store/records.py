"""What the store gives back, as plain values, and the keys under which it finds them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a recipe on a device. `id` is the recipe's name and a number: ``digits-3``."""

    id: str
    recipe: Mapping[str, Any]
    recipe_digest: str
    device: str
    started_at: str
    version: str


@dataclass(frozen=True, slots=True)
class Step:
    """One finished step: what went in, what came out.

    Attributes:
        key: SHA-256 of the kind and the canonical JSON of the inputs.
        kind: train, export, verify, …
        inputs: everything the result depends on, as JSON values.
        result: JSON values.
        artifacts: name -> SHA-256 of files in the store; all there when the step was read.
        created_at: ISO 8601, UTC.
        wall_s: how long the work took.
    """

    key: str
    kind: str
    inputs: Mapping[str, Any]
    result: Any
    artifacts: Mapping[str, str]
    created_at: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class StoredMeasurement:
    """A measurement as stored: the columns that are searched, and all of it in `data`."""

    id: int
    run_id: str | None
    device: str
    device_digest: str
    model_sha256: str
    reference_sha256: str | None
    protocol: str
    runtime: str
    verdict: str
    median_ms: float
    ratio: float | None
    data: Mapping[str, Any]
    created_at: str


def canonical_json(value: Any) -> str:
    """Return the one text of a JSON value: sorted keys, no spaces; infinity is ``Infinity``."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def step_key(kind: str, inputs: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) under which a step is found."""
    return hashlib.sha256(canonical_json([kind, inputs]).encode()).hexdigest()


def former_keys(kind: str, inputs: Mapping[str, Any]) -> list[str]:
    """Return the keys that edgewright 0.1.0 would have given a step of version 1.

    It kept the version of the package in place of the step's, and of a gradient search neither.
    Its finished steps have their new keys since the store was brought up to date; the checkpoints
    of a step that it did not finish have the old one still, since nothing there says of which.
    """
    if inputs.get("step") != 1:
        return []
    plain = {name: value for name, value in inputs.items() if name != "step"}
    return [step_key(kind, {**plain, "edgewright": "0.1.0"}), step_key(kind, plain)]
