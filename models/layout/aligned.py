"""Ops whose axes are those of their inputs, one by one."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from models.layout.labels import TRANSPOSE_COST, Label, complete, own_label, restrict
from models.layout.rule import Choice, Rule
from models.ops import Arg, Pad, Reduce, Slice, Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op


class Aligned(Rule):
    """Of an op whose axes are those of its inputs, one by one: it is computed in any order.

    The choice is a label over all axes on which an input or the output has more than one value.
    `tail` axes at the end stay there. A reduction's output may keep the axes of size 1 or not.
    """

    def __init__(self, op: Op, tail: int = 0, aligned: int | None = None) -> None:
        super().__init__(op)
        self.aligned = len(op.inputs) if aligned is None else aligned
        self.tail = tail
        shapes = [*op.in_shapes[: self.aligned], op.out_shape]
        rank = len(op.in_shapes[0])
        self.shape = tuple(
            max(shape[axis] for shape in shapes if len(shape) == rank) for axis in range(rank)
        )
        self.first = own_label(self.shape)
        self.has_cost = op.kind in ("softmax", "logsoftmax", "l2norm")

    def from_input(self, place: int, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the input allows."""
        return self._completed(label) if place < self.aligned else ()

    def from_output(self, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the reader allows."""
        return self._completed(label)

    def _completed(self, label: Label) -> Sequence[Choice]:
        whole = complete(label, self.shape)
        return () if whole is None or not self.can(whole) else (whole,)

    def can(self, label: Label) -> bool:
        """Tell whether the op can be computed with its axes in this order."""
        axis = getattr(self.op.attributes, "axis", None)
        if axis is not None and self._place(label, axis) < 0:
            return False
        if not self.tail:
            return True
        return len(label) > self.tail and label[-self.tail :] == self.first[-self.tail :]

    def demand(self, place: int, choice: Choice, stored: Label | None) -> Label:
        """Return the label of an input for a choice."""
        if place >= self.aligned:
            return super().demand(place, choice, stored)
        return restrict(choice, self.op.in_shapes[place])

    def gives(self, choice: Choice) -> Label:
        """Return the label of the output for a choice."""
        return restrict(choice, self.op.out_shape)

    def cost(self, choice: Choice, _labels: Sequence[Label]) -> int:
        """Return what is left to do within the op."""
        # A file format may know it of the last axis only, and transpose around it.
        last = self._place(choice, self.op.attributes.axis) == len(choice) - 1
        return 0 if last else TRANSPOSE_COST + prod(self.shape)

    def attributes(self, choice: Choice, _labels: Sequence[Label]) -> Any:
        """Return the attributes for a choice."""
        attributes = self.op.attributes
        if isinstance(attributes, Slice):
            return Slice(
                _at(attributes.begin, choice, 0),
                _at(attributes.end, choice, 1),
                _at(attributes.step, choice, 1),
            )
        if isinstance(attributes, Pad):
            return replace(attributes, margins=_at(attributes.margins, choice, (0, 0)))
        if isinstance(attributes, Tile):
            return Tile(_at(attributes.repeats, choice, 1))
        if hasattr(attributes, "axis"):
            return replace(attributes, axis=self._place(choice, attributes.axis))
        return attributes

    def _place(self, choice: Label, axis: int) -> int:
        """Return where an axis is stored; for one of size 1 the last place of such."""
        if axis in choice:
            return choice.index(axis)
        return max((place for place, there in enumerate(choice) if there is None), default=-1)


class Pointwise(Aligned):
    """Of a convolution that reads single positions: rows and columns may change places."""

    def can(self, label: Label) -> bool:
        """Tell whether the op can be computed with its axes in this order."""
        return len(label) == len(self.shape) and super().can(label)


class Reduction(Aligned):
    """Of a reduction. The choice is the label of its input, and whether reduced axes stay."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.reduced = (
            op.attributes.axes if isinstance(op.attributes, Reduce) else (op.attributes.axis,)
        )
        kept = [axis for axis in range(len(self.shape)) if axis not in self.reduced]
        self.names = {axis: axis for axis in range(len(self.shape))}
        if not op.attributes.keepdims:
            self.names = {axis: place for place, axis in enumerate(kept)}
        self.first = (self.first, op.attributes.keepdims)

    def from_input(self, _place: int, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the input allows."""
        return tuple((whole, keep) for whole in self._completed(label) for keep in (True, False))

    def from_output(self, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the reader allows."""
        axes = {name: axis for axis, name in self.names.items()}
        found = tuple(None if name is None else axes[name] for name in label)
        return tuple((whole, True) for whole in self._completed(found))

    def can(self, label: Label) -> bool:
        """Tell whether the op can be computed with its axes in this order."""
        return bool(self._places(label))

    def demand(self, place: int, choice: Choice, _stored: Label | None) -> Label:
        """Return the label of an input for a choice."""
        return restrict(choice[0], self.op.in_shapes[place])

    def gives(self, choice: Choice) -> Label:
        """Return the label of the output for a choice."""
        label, keep = choice
        places = self._places(label)
        return tuple(
            None if axis is None or place in places else self.names[axis]
            for place, axis in enumerate(label)
            if keep or place not in places
        )

    def attributes(self, choice: Choice, _labels: Sequence[Label]) -> Any:
        """Return the attributes for a choice."""
        label, keep = choice
        places, attributes = self._places(label), self.op.attributes
        if isinstance(attributes, Arg):
            return replace(attributes, axis=places[0], keepdims=keep)
        return Reduce(attributes.function, places, keep)

    def _places(self, label: Label) -> tuple[int, ...]:
        """Return where the reduced axes are stored; where all have size 1, one of such."""
        found = tuple(place for place, axis in enumerate(label) if axis in self.reduced)
        ones = [place for place, axis in enumerate(label) if axis is None]
        return found or tuple(ones[-1:])


def _at(values: Sequence[Any], label: Label, otherwise: Any) -> tuple[Any, ...]:
    return tuple(otherwise if axis is None else values[axis] for axis in label)
