"""The model that everything is timed beside, and files that are only to be timed.

It is the narrowest width of the recipe's baseline, with random weights: every candidate is timed
interleaved with it, and the target latency is the recipe's ratio times *its* latency, so that a
candidate on target is on target whichever width turns out to match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.api import Failure, Measurement
from device_agents.errors import DeviceError
from device_agents.files import write_whole
from models import zoo
from models.graph import Graph
from models.lower import lower
from models.model import random_model
from models.number_format import NumberFormat
from pipeline.formats import create
from pipeline.measure.kernels import exporter_for
from pipeline.measure.latency import measure, shown_protocol
from pipeline.store.run_folder import run_folder

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph
    from models.spec import ArchSpec
    from pipeline.measure.context import Context


@dataclass(frozen=True, slots=True)
class Reference:
    """The model that every candidate is timed beside: file, hash and its own latency."""

    name: str
    path: Path
    sha256: str
    measurement: Measurement


def baseline_spec(ctx: Context, width: float) -> ArchSpec:
    """Return the recipe's baseline at a width, for the recipe's data."""
    spec = zoo.get(ctx.recipe.target.baseline, width=width)
    return spec.with_input(*ctx.dataset.input).with_classes(ctx.dataset.classes)


def encode_untrained(ctx: Context, graph: Graph, rng: np.random.Generator) -> bytes:
    """Return a graph in the deployed format with random weights: enough to be timed."""
    scheme = ctx.recipe.quantize.scheme
    exporter = exporter_for(ctx, ctx.profile.runtime, scheme)
    return exporter.write(random_model(graph, rng, NumberFormat.parse(scheme)))


def reference(ctx: Context) -> Reference:
    """Write the narrowest baseline and measure it thoroughly.

    Raises:
        DeviceError: the device cannot measure it.
    """
    width = min(ctx.recipe.target.widths)
    graph = lower(baseline_spec(ctx, width))
    data = encode_untrained(ctx, graph, np.random.default_rng(0))
    path = run_folder(ctx.store, ctx.run) / f"reference{create(ctx.profile.runtime).suffix}"
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
    sha256 = ctx.store.put_bytes(data)
    name = f"{ctx.recipe.target.baseline} x{width:g}"
    outcome = measure(ctx, {"reference_graph": graph.digest()}, lambda: path, shown_protocol(ctx))
    if isinstance(outcome, Failure):
        raise DeviceError(f"the reference model {name} cannot be measured: {outcome.reason}")
    return Reference(name, path, sha256, outcome)
