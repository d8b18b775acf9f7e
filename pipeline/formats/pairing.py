"""Which inputs and outputs of two files are the same, whatever their names and layouts.

Conversions rename ends and move channels from first to last. Ends that share a name belong
together; others do by their shapes, and where several could, by their order. What two files of one
network give is the same up to a permutation of channels or a dimension of 1, so a shape tells most
of it; where a shape leaves two ways (a map of 8x8x8), both are for the caller to try.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.formats.ends import Array, Arrays, FileEnds, TensorFormat

_MOVES = {
    "as it is": None,
    "channels last": {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)},
    "channels first": {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)},
}
"""Way -> rank -> permutation from one file's layout into the other's."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One end of two files.

    Attributes:
        first: its name in the one file.
        second: its name in the other.
        shape: in the other, of one sample; -1 for what is open, None if nothing is said.
        way: how values of the one are laid out for the other: a key of the table above, or
            "reshaped".
    """

    first: str
    second: str
    shape: tuple[int, ...] | None
    way: str

    def move(self, values: Array) -> Array:
        """Bring values (N, *shape) of the one file into the other's layout."""
        if self.way == "reshaped":
            return values.reshape(len(values), *(self.shape or ()))
        orders = _MOVES[self.way]
        if orders is None:
            return values
        order = orders[values.ndim - 1]
        return np.ascontiguousarray(values.transpose(0, *(axis + 1 for axis in order)))


@dataclass(frozen=True, slots=True)
class Pairing:
    """All ends of two files, one way."""

    inputs: tuple[Pair, ...]
    outputs: tuple[Pair, ...]

    def move(self, inputs: Arrays) -> dict[str, Array]:
        """Return samples (N, *shape) of the first file's inputs as those of the second."""
        return {pair.second: pair.move(inputs[pair.first]) for pair in self.inputs}


def move_inputs(first: FileEnds, second: FileEnds, inputs: Arrays) -> dict[str, Array]:
    """Return samples (N, *shape) of the first file's inputs as those of the second.

    Raises:
        ConfigError: see `pair_files`.
    """
    return pair_files(first, second)[0].move(inputs)


def pair_files(first: FileEnds, second: FileEnds) -> list[Pairing]:
    """Return every way in which two files may have the same ends, the likeliest first.

    Raises:
        ConfigError: they have other numbers of ends, or ends whose shapes cannot be the same.
    """
    inputs = _pair("input", first.inputs, second.inputs)
    outputs = _pair("output", first.outputs, second.outputs)
    moved = first.layout != second.layout
    ways = [
        Pairing(tuple(chosen[: len(inputs)]), tuple(chosen[len(inputs) :]))
        for chosen in _uniform([*inputs, *outputs])
    ]
    return sorted(ways, key=lambda way: _unlikely(way, moved=moved))


def _uniform(ends: list[list[Pair]]) -> list[list[Pair]]:
    """Combine the ways of all ends; all ambiguous inputs alike, so that there are never many."""
    kinds = sorted({pair.way for end in ends if len(end) > 1 for pair in end})
    if not kinds:
        return [[end[0] for end in ends]]
    return [
        [next((pair for pair in end if pair.way == kind), end[0]) for end in ends] for kind in kinds
    ]


def _unlikely(way: Pairing, *, moved: bool) -> int:
    """Count the ends that are not laid out as two files of these formats usually are."""
    return sum(
        (pair.way == "as it is") == (moved and len(pair.shape or ()) == 4) for pair in way.inputs
    )


def _pair(
    what: str, first: Sequence[TensorFormat], second: Sequence[TensorFormat]
) -> list[list[Pair]]:
    if len(first) != len(second):
        raise ConfigError(
            f"the files have {len(first)} and {len(second)} {what}s ({_names(first)}; "
            f"{_names(second)}), so they are not of one network"
        )
    left = list(second)
    found: dict[str, list[Pair]] = {}
    for end in first:
        named = next((other for other in left if other.name == end.name), None)
        if named is not None:
            left.remove(named)
            found[end.name] = _ways(what, end, named)
    for end in first:
        if end.name in found:
            continue
        other = next((other for other in left if _fitting(end, other)), left[0])
        left.remove(other)
        found[end.name] = _ways(what, end, other)
    return [found[end.name] for end in first]


def _ways(what: str, first: TensorFormat, second: TensorFormat) -> list[Pair]:
    ways = _fitting(first, second)
    if not ways:
        raise ConfigError(
            f"the {what} {first.name!r} is {_shown(first)} in one file, and {second.name!r} is "
            f"{_shown(second)} in the other; they are not of one network"
        )
    return [Pair(first.name, second.name, second.shape, way) for way in ways]


def _fitting(first: TensorFormat, second: TensorFormat) -> list[str]:
    """Return the ways in which values of one end may become values of the other."""
    a, b = first.shape, second.shape
    if a is None or b is None:
        return ["as it is"]
    found = []
    for way, orders in _MOVES.items():
        order = tuple(range(len(a))) if orders is None else orders.get(len(a))
        if order is None or len(a) != len(b):
            continue
        if all(a[axis] == n or -1 in (a[axis], n) for axis, n in zip(order, b, strict=True)):
            found.append(way)
    if {"channels last", "channels first"} <= set(found) and len(a) == 3:
        found.remove("channels first")  # of three axes both are one
    if not found and min(*a, *b, 1) > 0 and prod(a) == prod(b) and _squeezed(a) == _squeezed(b):
        found.append("reshaped")
    return found


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _names(ends: Sequence[TensorFormat]) -> str:
    return ", ".join(f"{end.name} {_shown(end)}" for end in ends) or "none"


def _shown(end: TensorFormat) -> str:
    if end.shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if n < 0 else str(n) for n in end.shape) + "]"
