"""Reads sums of products by their letters, as products of matrices."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from models.ops import Matmul, Reduce
from pipeline.formats.onnx.node import Node, UnknownError, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.onnx.reading import Reading


def _einsum(reading: Reading, node: Node) -> Value:
    equation = node.attribute("equation", "").replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation:
        terms, right = _without_dots(terms, right, node)
    if "->" not in equation:
        letters = sorted(set("".join(terms)))
        right = "".join(letter for letter in letters if "".join(terms).count(letter) == 1)
    wrong = any(len(set(term)) != len(term) for term in (*terms, right))
    if wrong or len(terms) != len(node.inputs) or len(terms) > 2:
        raise UnknownError(f"computes {equation!r}")
    sizes = {
        letter: size
        for term, place in zip(terms, range(len(terms)), strict=True)
        for letter, size in zip(term, node.input(place).shape, strict=True)
    }
    values = [
        _summed(reading, node.input(place), term, _needed(terms, right, place), node.name)
        for place, term in enumerate(terms)
    ]
    if len(values) == 1:
        value, term = values[0]
        return reading.transpose(value, [term.index(c) for c in right], name=node.name)
    return _product(reading, node, values, right, sizes)


def _without_dots(terms: list[str], right: str, node: Node) -> tuple[list[str], str]:
    """Write letters that are not used for the axes that the dots stand for."""
    free = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
    free = [letter for letter in free if letter not in "".join(terms)]
    most = max(
        node.input(place).rank - len(term.replace("...", ""))
        for place, term in enumerate(terms)
        if "..." in term
    )
    names = "".join(free[:most])
    found = []
    for place, term in enumerate(terms):
        if "..." in term:
            count = node.input(place).rank - len(term.replace("...", ""))
            term = term.replace("...", names[most - count :])  # noqa: PLW2901
        found.append(term)
    return found, right.replace("...", names)


def _needed(terms: Sequence[str], right: str, place: int) -> set[str]:
    """Return the letters that someone else knows: others are summed at once."""
    return set(right).union(*(term for other, term in enumerate(terms) if other != place))


def _summed(
    reading: Reading, x: Value, term: str, needed: set[str], name: str
) -> tuple[Value, str]:
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in needed)
    if not axes:
        return x, term
    made = reading.op("reduce", [x], Reduce("sum", axes, keepdims=False), name=f"{name}.sum")
    return made, "".join(letter for letter in term if letter in needed)


def _product(
    reading: Reading,
    node: Node,
    values: Sequence[tuple[Value, str]],
    right: str,
    sizes: Mapping[str, int],
) -> Value:
    """Bring both into (shared, rows, summed) and (shared, summed, columns), and multiply."""
    (a, first), (b, second) = values
    shared = [c for c in right if c in first and c in second]
    rows = [c for c in right if c in first and c not in second]
    columns = [c for c in right if c in second and c not in first]
    summed = [c for c in first if c in second and c not in right]

    def matrix(x: Value, term: str, letters: Sequence[Sequence[str]], what: str) -> Value:
        order = [c for group in letters for c in group]
        turned = reading.transpose(x, [term.index(c) for c in order], name=f"{node.name}.{what}")
        outer = [sizes[c] for c in letters[0]]
        shape = (*outer, *(prod(sizes[c] for c in group) for group in letters[1:]))
        return reading.reshape(turned, shape, name=f"{node.name}.{what}.matrix")

    left = matrix(a, first, (shared, rows, summed), "a")
    other = matrix(b, second, (shared, summed, columns), "b")
    made = reading.op("matmul", [left, other], Matmul(), name=f"{node.name}.product")
    order = [*shared, *rows, *columns]
    whole = reading.reshape(made, [sizes[c] for c in order], name=f"{node.name}.whole")
    return reading.transpose(whole, [order.index(c) for c in right], name=node.name)


EINSUM: Mapping[str, Callable[[Reading, Node], Any]] = {"Einsum": _einsum}
