"""Which tensor of a written file is the first that is not what the model says?

Every op's output is made an output of the file, and each op is held against the model on what the
file itself gave it: a fault shows at the op that has it, and not at all that follow.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError
from models.graph import Graph, Tensor
from models.integer import integer_reals
from models.model import Model, Output
from pipeline.formats.beside import FLOAT_SHARE, compare_output
from pipeline.formats.figures import STRAY_STEPS
from pipeline.formats.files import run_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.graph import Op
    from models.quantization import Quantization
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array

_MOST_VALUES = 1 << 25
"""That are outputs of one file, which are all in memory at once."""


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """A tensor of a file that is not what its op gives of what it read.

    Attributes:
        tensor: its name in the model's graph.
        kind: of the op that makes it.
        share: the largest difference, as a share of the tensor's range.
    """

    tensor: str
    kind: str
    share: float


def find_first_difference(
    format_: Format, model: Model, inputs: Mapping[str, Array]
) -> FirstDifference | None:
    """Return the first tensor of a model's file that differs; None if none does by itself.

    Args:
        format_: of the file.
        model: what it was written from: real, or with static codes.
        inputs: of the graph by name, one sample in real numbers, shaped as the graph says.

    Raises:
        ConfigError: a file with more outputs is refused by the runtime.
        ExportError: or by the writer.
    """
    for ops in _parts(model.graph):
        found = {**inputs, **_traced(format_, model, ops, inputs)}
        for op in ops:
            share = _difference(op, model, found)
            if share:
                return FirstDifference(op.name, op.kind, share)
    return None


def _parts(graph: Graph) -> Iterator[list[Op]]:
    """Yield the ops in order, so many at a time as one file can give the outputs of."""
    part: list[Op] = []
    values = 0
    for op in graph.ops:
        size = prod(op.out_shape)
        if part and values + size > _MOST_VALUES:
            yield part
            part, values = [], 0
        part.append(op)
        values += size
    yield part


def _traced(
    format_: Format, model: Model, ops: list[Op], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Return what a file gives of ops and of all that they read."""
    graph = model.graph
    wanted = {name for op in ops for name in (*op.inputs, op.name) if name not in op.constants}
    names = tuple(op.name for op in graph.ops if op.name in wanted)
    traced = replace(
        model,
        graph=replace(graph, outputs=names),
        # As the graph has them, in every format.
        inputs=tuple(replace(end, layout="") for end in model.inputs),
        outputs=tuple(Output(f"traced.{place}") for place in range(len(names))),
    )
    content = format_.write(traced)
    ends = format_.describe(content)
    given = {
        end.name: inputs[tensor.name][None]
        for end, tensor in zip(ends.inputs, graph.inputs, strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="edgewright-trace-") as folder:
        path = Path(folder) / f"traced{format_.suffix}"
        path.write_bytes(content)
        outputs = run_inputs(path, given, apart=True)
    return {name: outputs[end.name][0] for name, end in zip(names, ends.outputs, strict=True)}


def _difference(op: Op, model: Model, found: Mapping[str, Array]) -> float:
    """Return by what share of its range an op's output differs; 0 if rounding explains it."""
    read = {name: found[name] for name in op.inputs if name not in op.constants}
    ends = tuple(
        Tensor(name, shape, dtype)
        for name, shape, dtype in zip(op.inputs, op.in_shapes, op.in_dtypes, strict=True)
        if name in read
    )
    alone = Graph(tuple({end.name: end for end in ends}.values()), (op,), (op.name,))
    scales = model.quantization
    if scales is not None and scales.number_format.is_static:
        as_made = dict.fromkeys(read.keys() & {one.name for one in model.graph.ops}, "float32")
        part = Model(alone, model.weights, replace(scales, ends=as_made))
        wanted = integer_reals(part, read)[op.name]
    else:
        from models.execute import execute_all

        wanted = execute_all(Model(alone, model.weights), read)[op.name]
    figures = compare_output(op.name, op.name, wanted[None], found[op.name][None])
    if figures.equal_share is not None:
        return 1 - figures.equal_share
    allowed = _allowed(op, scales, figures.value_range)
    return 0.0 if figures.max_abs_error <= allowed else figures.error_share


def _allowed(op: Op, scales: Quantization | None, value_range: float) -> float:
    """Return the largest error that rounding makes of an op's output."""
    allowed = FLOAT_SHARE * value_range
    if scales is not None and op.name in scales.tensors:
        allowed = max(allowed, STRAY_STEPS * scales[op.name].scale)
    return max(allowed, float(np.finfo(np.float32).tiny))


def describe_first_difference(format_: Format, model: Model, inputs: Mapping[str, Array]) -> str:
    """Return the end of a sentence that names the first tensor that differs; empty if none can be.

    Args and errors as of `find_first_difference`; files that cannot be traced give no words.
    """
    try:
        first = find_first_difference(format_, model, inputs)
    except ConfigError:
        return ""
    if first is None:
        return "; every op of the file by itself computes what the graph says of it"
    return (
        f"; the first tensor that differs from the graph is {first.tensor!r} ({first.kind}), by "
        f"{first.share:.2g} of its range"
    )
