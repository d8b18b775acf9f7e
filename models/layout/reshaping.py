"""Reshapes: axes that one puts together or cuts move as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.layout.labels import (
    RESHAPE_COST,
    Group,
    Label,
    order,
    own_label,
    regrouped,
    reshape_groups,
    stored_shape,
    whole_groups,
)
from models.layout.rule import Choice, Rule
from models.ops import Reshape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op


class Reshaping(Rule):
    """Of a reshape: axes that it puts together or cuts move as one.

    The choice is the label of the output. As `free` it takes its input in any order, since the
    dense layers that read the output have their weights in that order.
    """

    def __init__(self, op: Op, *, free: bool = False) -> None:
        super().__init__(op)
        self.free = free
        self.has_cost = True
        self.groups = reshape_groups(op.in_shapes[0], op.out_shape)

    def from_input(self, _place: int, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the input allows."""
        if self.free:
            return ()
        label = regrouped(label, self.groups, 0)
        found = whole_groups(order(label), self.groups, 0) or ()
        natural = self._renamed(label, found)
        ones = self.op.out_shape.count(1)
        return (natural, _with_ones(natural, ones)) if natural.count(None) != ones else (natural,)

    def _renamed(self, label: Label, found: Sequence[Group]) -> Label:
        """Put the axes of the result in the place of those that become them."""
        results = {ours[0]: theirs for ours, theirs in found}
        renamed: list[int | None] = []
        for axis in label:
            renamed.extend((None,) if axis is None else results.get(axis, ()))
        return tuple(renamed)

    def from_output(self, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the reader allows."""
        return () if self.free else (regrouped(label, self.groups, 1),)

    def demand(self, place: int, choice: Choice, stored: Label | None) -> Label:
        """Return the label of an input for a choice."""
        if self.free:
            return super().demand(place, choice, stored) if stored is None else stored
        found = whole_groups(order(choice), self.groups, 1) or ()
        axes = tuple(axis for ours, _ in found for axis in ours)
        if stored is not None and order(stored) == axes:
            return stored
        if all(len(ours) == len(theirs) == 1 for ours, theirs in found):
            sources = {theirs[0]: ours[0] for ours, theirs in found}
            return tuple(None if axis is None else sources[axis] for axis in choice)
        return _with_ones(axes, self.op.in_shapes[0].count(1))

    def gives(self, choice: Choice) -> Label:
        """Return the label of the output for a choice."""
        return choice  # type: ignore[no-any-return]

    def cost(self, choice: Choice, labels: Sequence[Label]) -> int:
        """Return what is left to do within the op."""
        before = stored_shape(labels[0], self.op.in_shapes[0])
        return 0 if before == stored_shape(choice, self.op.out_shape) else RESHAPE_COST

    def attributes(self, choice: Choice, _labels: Sequence[Label]) -> Any:
        """Return the attributes for a choice."""
        return Reshape(stored_shape(choice, self.op.out_shape))


class Spreading(Reshaping):
    """Of a reshape of what a dense layer gives: that has its units in the order asked for."""

    def from_output(self, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the reader allows."""
        return (label,)

    def demand(self, place: int, _choice: Choice, _stored: Label | None) -> Label:
        """Return the label of an input for a choice."""
        return own_label(self.op.in_shapes[place])


def _with_ones(label: Label, ones: int) -> Label:
    """Return a label with its axes in the same order and `ones` axes of size 1 before them."""
    return (*(None,) * ones, *order(label))
