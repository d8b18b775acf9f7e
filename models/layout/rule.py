"""What is asked of an op about the layouts in which it can be computed.

An op is computed by a `choice`; what that is, its rule knows. Labels are of the op's own tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.layout.labels import Label, own_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op

Choice = Any


class Rule:
    """Of an op that is computed as the source has it, in every respect."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.own = own_label(op.out_shape)
        self.first: Choice = self.own
        """The choice that is always there: as the source has it."""

    has_cost = False
    """Whether a choice may leave something to do within the op."""

    def from_input(self, _place: int, _label: Label) -> Sequence[Choice]:
        """Return choices that read this input as it is stored."""
        return ()

    def from_output(self, _label: Label) -> Sequence[Choice]:
        """Return choices that give the output as a reader wants it."""
        return ()

    def demand(self, place: int, _choice: Choice, _stored: Label | None) -> Label:
        """Return the label that an input must have, of several the one that it is stored in."""
        return own_label(self.op.in_shapes[place])

    def gives(self, _choice: Choice) -> Label:
        """Return the label of the output."""
        return self.own

    def cost(self, _choice: Choice, _labels: Sequence[Label]) -> int:
        """Return what is left to do about layouts within the op, its inputs having `labels`."""
        return 0

    def attributes(self, _choice: Choice, _labels: Sequence[Label]) -> Any:
        """Return the attributes of the op as it is computed."""
        return self.op.attributes

    def sources(self, _choice: Choice) -> Sequence[int]:
        """Return the places of the inputs, in the order in which they are read."""
        return range(len(self.op.inputs))
