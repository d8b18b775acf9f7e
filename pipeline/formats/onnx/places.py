"""Where a file holds the values of the graph's tensors, and in which orders.

A tensor of the graph is a view of a storage: reshapes and transpositions of the graph make new
views and no nodes. A storage is held in one form, which an op gave, and in the forms that readers
wanted of it since, each made once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

from pipeline.formats.onnx.axes import (
    CHANNELS_FIRST,
    as_it_is,
    find_axes,
    places_of,
    refine_digits,
    split_digits,
    turn_digits,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from models.ops import Shape
    from pipeline.formats.onnx.axes import Axes, Digits

    Move = Callable[[str, str, str, tuple[int, ...]], str]
    """Add the op (Reshape or Transpose; the name that it wants; what it reads; the shape or the
    permutation) and return the name of what it gives."""


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor of the file that holds all values of a storage in some order and shape."""

    name: str
    shape: Shape
    digits: Digits


@dataclass(slots=True)
class Storage:
    """Values that the file holds; `move` adds the ops that bring them into other forms."""

    forms: list[Form]
    move: Move

    def give(self, shape: Shape, digits: Digits) -> str:
        """Return the file's tensor that has these values in this order and shape."""
        for form in self.forms:
            if (form.shape, form.digits) == (shape, digits):
                return form.name
        for form in self.forms:
            if form.digits == digits:
                return self._reshaped(form, shape).name
        for form in self.forms:
            if (cut := refine_digits(form.digits, digits)) is not None:
                return self._transposed(form, shape, digits, cut)
        # By way of the storage's own order, which every other one can be cut to.
        size = prod(shape)
        self.give((size,), whole(size))
        return self.give(shape, digits)

    def _transposed(
        self, source: Form, shape: Shape, digits: Digits, cut: tuple[Digits, Axes]
    ) -> str:
        sizes, order = tuple(size for size, _ in cut[0]), cut[1]
        axes = find_axes(digits, source.digits, source.shape)
        if axes is not None:
            sizes, order = source.shape, axes
        held = self._reshaped(source, sizes)
        name = self.move("Transpose", self.forms[0].name, held.name, order)
        made = Form(name, tuple(sizes[axis] for axis in order), digits)
        self.forms.append(made)
        return self._reshaped(made, shape).name

    def _reshaped(self, form: Form, shape: Shape) -> Form:
        if form.shape == shape:
            return form
        name = self.move("Reshape", self.forms[0].name, form.name, shape)
        made = Form(name, shape, form.digits)
        self.forms.append(made)
        return made


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the graph: its shape there, and its values in that order as digits of a storage.

    Invariant: every axis of the shape ends where a digit can be cut.
    """

    storage: Storage
    shape: Shape
    digits: Digits

    @classmethod
    def new(cls, name: str, shape: Shape, axes: Axes, move: Move) -> Place:
        """Return the place of a tensor that the file holds, whole, with its axes in an order."""
        place = cls(Storage([], move), shape, whole(prod(shape)))
        held = tuple(shape[axis] for axis in axes)
        place.storage.forms.append(Form(name, held, place._turned(axes)))
        return place

    def give(self, axes: Axes) -> str:
        """Return the file's tensor that holds this one with its axes in an order."""
        return self.storage.give(tuple(self.shape[axis] for axis in axes), self._turned(axes))

    @property
    def size(self) -> int:
        """How many values it has."""
        return prod(self.shape)

    def holds(self, axes: Axes) -> bool:
        """Tell whether the file has it in this order already, but for its shape."""
        digits = self._turned(axes)
        return any(form.digits == digits for form in self.storage.forms)

    def give_as_held(self) -> tuple[str, npt.NDArray[np.intp]]:
        """Return a tensor of the file in this shape, in whatever order the values lie.

        Returns:
            Its name, and where among this tensor's values each of its values is.
        """
        form = self.storage.forms[0]
        places = places_of(self.digits).argsort()
        return self.storage.give(self.shape, form.digits), places[places_of(form.digits)]

    def is_shaped(self, axes: Axes) -> bool:
        """Tell whether it needs no reshape either."""
        shape, digits = tuple(self.shape[axis] for axis in axes), self._turned(axes)
        return any((form.shape, form.digits) == (shape, digits) for form in self.storage.forms)

    @property
    def orders(self) -> tuple[Axes, ...]:
        """The orders of its axes in which the file has it already; several where it is small."""
        rank = len(self.shape)
        usual = [as_it_is(rank), CHANNELS_FIRST.get(rank, as_it_is(rank))]
        found = (find_axes(form.digits, self.digits, self.shape) for form in self.storage.forms)
        held = (axes for axes in usual if self.holds(axes))
        return tuple(dict.fromkeys((*held, *(axes for axes in found if axes is not None))))

    def transpose(self, axes: Axes) -> Place:
        """Return the place of this tensor with its axes in another order."""
        return Place(self.storage, tuple(self.shape[axis] for axis in axes), self._turned(axes))

    def reshape(self, shape: Shape) -> Place:
        """Return the place of this tensor in another shape."""
        if split_digits(self.digits, shape) is not None:
            return Place(self.storage, shape, self.digits)
        # An axis ends within a digit: the values must lie in the graph's order.
        digits = whole(prod(shape))
        form = Form(self.give(as_it_is(len(self.shape))), self.shape, digits)
        return Place(Storage([form], self.storage.move), shape, digits)

    def _turned(self, axes: Axes) -> Digits:
        digits = turn_digits(self.digits, self.shape, axes)
        if digits is None:
            raise AssertionError(f"{self.digits} cannot be cut into {self.shape}")
        return digits


@dataclass(slots=True)
class Constant:
    """A value that the model holds: it is stored in every order that is read, and never moved."""

    shape: Shape
    lay: Callable[[Axes, int], str]
    """Store it with its axes in an order, the how manieth one it is; return its name."""

    move: Move
    laid: dict[Axes, str] = field(default_factory=dict)

    def give(self, axes: Axes) -> str:
        """Return the file's tensor that holds it with its axes in an order."""
        if axes not in self.laid:
            self.laid[axes] = self.lay(axes, len(self.laid))
        return self.laid[axes]

    @property
    def place(self) -> Place:
        """The same as a tensor that ops give."""
        axes = as_it_is(len(self.shape))
        return Place.new(self.give(axes), self.shape, axes, self.move)


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor of the graph as a tensor of the file: its form, and its values in the form's digits.

    What an op gives; what an op reads that does not care for the order.
    """

    form: Form
    digits: Digits

    @classmethod
    def of(cls, place: Place) -> Made:
        """Return a place as it is held first."""
        return cls(place.storage.forms[0], place.digits)

    @property
    def name(self) -> str:
        """The file's tensor."""
        return self.form.name

    def gives(self, value: str) -> Made:
        """Return what a function of each value gives: another tensor in the same order."""
        return replace(self, form=replace(self.form, name=value))
