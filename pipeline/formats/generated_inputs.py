"""Inputs for a file or model of which no data is given: seeded, and such as it may be fed.

They say whether two files compute the same, and nothing of how good a network is.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError
from pipeline.formats.ends import InputsRefused
from pipeline.formats.pairing import pair_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.model import Model
    from pipeline.formats.ends import Array, FileEnds, TensorFormat

SAMPLES = 16
ADVICE = "; it was run on generated inputs: --data FILE.npz or FOLDER gives it real ones"
"""What may be behind a model that fails, where no data was given."""

_WIDE_INTEGERS = 2
"""Wider integers are usually indices: 0 and 1 are in range of nearly every table."""


@contextmanager
def blame_generated(*, generated: bool = True) -> Iterator[None]:
    """Say of inputs that a runtime refuses in a `with` block that nobody gave them."""
    try:
        yield
    except InputsRefused as error:
        if not generated:
            raise
        raise InputsRefused(f"{error}{ADVICE}") from error


def generate_inputs(
    ends: FileEnds,
    *,
    count: int = SAMPLES,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Array]:
    """Return `count` samples (count, *shape) of every input, in real numbers.

    Args:
        ends: of the file; every dimension known.
        count: of samples.
        seed: of the draws.
        ranges: name -> (low, high) of an input that is known to lie in a range.

    Raises:
        ConfigError: a dimension is open.
    """
    rng = np.random.default_rng(seed)
    return {end.name: _draw(end, count, rng, (ranges or {}).get(end.name)) for end in ends.inputs}


def generate_pair(first: FileEnds, second: FileEnds) -> dict[str, Array]:
    """Return inputs of the first of two files of one network, such as both can say.

    Raises:
        ConfigError: their ends cannot be the same, or a dimension is open.
    """
    others = {end.name: end for end in second.inputs}
    pairs = pair_files(first, second)[0].inputs
    ranges = {pair.first: code_range(others[pair.second]) for pair in pairs}
    known = {name: limits for name, limits in ranges.items() if limits is not None}
    return generate_inputs(first, ranges=known)


def index_ranges(model: Model) -> dict[str, tuple[float, float]]:
    """Return name of an input -> (0, last) for those that look entries of a table up.

    Such as the tokens of a text, whose embeddings are gathered.
    """
    graph = model.graph
    ends = {tensor.name: end.name for tensor, end in zip(graph.inputs, model.inputs, strict=True)}
    held = {name: name for name in ends}
    found: dict[str, tuple[float, float]] = {}
    for op in graph.ops:
        if op.kind in _KEEP_INTEGERS and op.inputs[0] in held:
            held[op.name] = held[op.inputs[0]]
        if op.kind == "gather" and op.inputs[1] in held:
            name, last = ends[held[op.inputs[1]]], op.in_shapes[0][op.attributes.axis] - 1
            found[name] = 0, min(last, found.get(name, (0, last))[1])
    return found


_KEEP_INTEGERS = ("cast", "reshape", "transpose", "slice", "tile")
"""Kinds that give the integers that they read."""


def code_range(end: TensorFormat) -> tuple[float, float] | None:
    """Return the lowest and highest real number that an input's codes can say; None of others."""
    if end.scale is None or end.zero_point is None:
        return None
    limits = np.iinfo(np.dtype(end.dtype))
    low, high = ((edge - end.zero_point) * end.scale for edge in (limits.min, limits.max))
    return float(low), float(high)


def _draw(
    end: TensorFormat, count: int, rng: np.random.Generator, given: tuple[float, float] | None
) -> Array:
    if end.shape is None or -1 in end.shape:
        shown = "x".join("N" if n < 0 else str(n) for n in end.shape or ())
        raise ConfigError(
            f"the input {end.name!r} leaves its shape open ({shown or 'of any rank'}); pin it with "
            f"--input-shape {end.name}=1x…"
        )
    shape = (count, *end.shape)
    limits = given or code_range(end)
    dtype = np.dtype(end.dtype)
    if limits is not None and dtype.kind in "iu" and end.scale is None:
        return rng.integers(int(limits[0]), int(limits[1]), shape, dtype, endpoint=True)
    if limits is not None:
        return rng.uniform(*limits, shape).astype(np.float32)
    if dtype.kind == "f":
        return rng.standard_normal(shape, np.float32)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.itemsize == 1:
        edges = np.iinfo(dtype)
        return rng.integers(edges.min, edges.max, shape, dtype, endpoint=True)
    return rng.integers(0, _WIDE_INTEGERS, shape).astype(dtype)
