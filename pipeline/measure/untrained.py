"""Files that are only to be timed: latency does not depend on what the weights are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.model import random_model
from pipeline.measure.kernels import choose_format

if TYPE_CHECKING:
    from models.graph import Graph
    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.form import Form


def encode(bench: DeviceBench, form: Form, graph: Graph) -> bytes:
    """Return a graph in a form, as that device takes it, with random weights.

    Raises:
        ExportError: the format cannot express an op.
    """
    model = random_model(graph, np.random.default_rng(0), form.number_format)
    # A map comes out as the kernel made it: nothing that would move its values is timed too.
    outputs = tuple(replace(end, layout="NCHW") for end in model.outputs)
    return choose_format(bench, form).write(replace(model, outputs=outputs))
