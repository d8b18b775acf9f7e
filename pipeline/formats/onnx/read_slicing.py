"""Reads parts of tensors, and margins around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import Concat, Gather, Pad, Slice
from pipeline.formats.onnx.node import Node, UnknownError, Value, axis_of, known, known_ints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.onnx.reading import Reading

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge"}


def _slice(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    if node.attribute("starts") is not None:
        starts, ends = node.attribute("starts"), node.attribute("ends")
        axes, steps = node.attribute("axes"), None
    else:
        starts, ends = (known_ints(node.input(place), "bounds") for place in (1, 2))
        given, stepped = node.optional(3), node.optional(4)
        axes = None if given is None else known_ints(given, "axes")
        steps = None if stepped is None else known_ints(stepped, "steps")
    axes = range(len(starts)) if axes is None else axes
    places = [slice(None)] * x.rank
    for axis, start, end, step in zip(axes, starts, ends, steps or (1,) * len(starts), strict=True):
        places[axis_of(axis, x.rank)] = slice(start, end, step)
    return part(reading, x, places, name=node.name)


def part(reading: Reading, x: Value, places: list[slice], *, name: str) -> Value:
    """Return a part of a tensor, by Python's rules; one that is read backwards is looked up."""
    if x.array is not None:
        return reading.constant(name, x.array[tuple(places)])
    ranges = [range(size)[place] for size, place in zip(x.shape, places, strict=True)]
    if not all(map(len, ranges)):
        return reading.constant(name, np.zeros(tuple(map(len, ranges)), x.dtype))
    for axis, numbers in enumerate(ranges):
        if numbers.step < 0 and len(numbers) > 1:
            backwards = reading.constant(f"{name}.order", np.array(numbers))
            x = reading.op("gather", [x, backwards], Gather(axis), name=f"{name}.turned")
            ranges[axis] = range(len(numbers))
    begin = tuple(numbers[0] for numbers in ranges)
    end = tuple(max(numbers[0], numbers[-1]) + 1 for numbers in ranges)
    step = tuple(max(numbers.step, 1) if len(numbers) > 1 else 1 for numbers in ranges)
    if begin == (0,) * x.rank and end == x.shape and step == (1,) * x.rank:
        return x
    return reading.op("slice", [x], Slice(begin, end, step), name=name)


def _split(reading: Reading, node: Node) -> tuple[Value, ...]:
    x = node.input(0)
    axis = axis_of(node.attribute("axis", 0), x.rank)
    given = node.optional(1)
    sizes = node.attribute("split") if given is None else known_ints(given, "sizes")
    if sizes is None:
        count = len(node.proto.output)
        each = -(-x.shape[axis] // count)
        sizes = [min(each, x.shape[axis] - each * place) for place in range(count)]
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise UnknownError(f"cuts {x.shape[axis]} into {tuple(sizes)}")
    found, begin = [], 0
    for size, name in zip(sizes, node.proto.output, strict=True):
        places = [slice(None)] * x.rank
        places[axis] = slice(begin, begin + size)
        if name:
            found.append(part(reading, x, places, name=name))
        else:
            found.append(x)
        begin += size
    return tuple(found)


def _pad(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    mode = node.attribute("mode", "constant")
    if mode not in _MODES and mode != "wrap":
        raise UnknownError(f"pads by {mode!r}")
    listed = node.attribute("pads") or known_ints(node.input(1), "margins")
    given, chosen = node.optional(2), node.optional(3)
    value = node.attribute("value", 0.0)
    if given is not None and known(given, "value").size:
        value = float(known(given, "value").item())
    axes = range(x.rank) if chosen is None else known_ints(chosen, "axes")
    margins = [(0, 0)] * x.rank
    half = len(listed) // 2
    for axis, before, after in zip(axes, listed[:half], listed[half:], strict=True):
        margins[axis_of(axis, x.rank)] = (before, after)
    cut = [
        slice(max(-before, 0), size - max(-after, 0))
        for size, (before, after) in zip(x.shape, margins, strict=True)
    ]
    x = part(reading, x, cut, name=f"{node.name}.cut")
    kept = tuple((max(before, 0), max(after, 0)) for before, after in margins)
    if not any(side for margin in kept for side in margin):
        return x
    if mode == "wrap":
        return _wrapped(reading, x, kept, name=node.name)
    return reading.op("pad", [x], Pad(kept, value, _MODES[mode]), name=node.name)


def _wrapped(reading: Reading, x: Value, margins: Sequence[tuple[int, int]], *, name: str) -> Value:
    """Put the end of every axis before it and its start behind it."""
    for axis, (before, after) in enumerate(margins):
        size = x.shape[axis]
        if max(before, after) > size:
            raise UnknownError(f"wraps {size} values around by {max(before, after)}")
        ranges = {"before": slice(size - before, size), "after": slice(after)}
        sides = {
            side: part(reading, x, _along(x, axis, places), name=f"{name}.{side}{axis}")
            for side, places in ranges.items()
            if len(range(size)[places])
        }
        pieces = [sides.get("before"), x, sides.get("after")]
        if sides:
            kept = [piece for piece in pieces if piece is not None]
            x = reading.op("concat", kept, Concat(axis), name=f"{name}.axis{axis}")
    return x


def _along(x: Value, axis: int, places: slice) -> list[slice]:
    """Return a part of one axis, all of the others."""
    return [places if other == axis else slice(None) for other in range(x.rank)]


SLICING: Mapping[str, Callable[[Reading, Node], Any]] = {
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
}
