"""The input shapes that a model runs at: those of its file, and what is given for open dimensions.

A dimension that the file leaves open decides over the time a model takes, so none is ever guessed.
One is settled by convention: where the first dimension of an input alone is open and is a batch by
its name (or has none), it is 1, as everything here runs one sample at a time.

Imported by the host too, which refuses before it connects; the agent asks the runtime itself.
"""

import re
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from .wire import Refused

Dim = Union[int, str]  # a length, or the name of an open dimension: empty when it has none
Dims = Optional[Sequence[Dim]]  # None: not even the number of dimensions is known
Given = Dict[str, List[int]]  # by the input's name; "" is the only input

# Also what converters call a batch that had no name (tf2onnx).
_BATCH = re.compile(r"n|b|bs|.*batch.*|unk__\d+|\W*", re.IGNORECASE)
# Some exporters write "?" for every open dimension: no name, and not one dimension.
_NAMED = re.compile(r".*\w.*", re.DOTALL)
_MOST_DIMENSIONS = 16
_MOST_VALUES = 1 << 31


def check(value: Any) -> Given:
    """Return what a host sent as shapes; Refused for anything else."""
    if not isinstance(value, dict):
        raise Refused("bad_request", "shapes = %.100r is not an object" % (value,))
    for name, shape in value.items():
        lengths = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
        if not lengths or len(shape) > _MOST_DIMENSIONS or values_of(shape) > _MOST_VALUES:
            raise Refused(
                "bad_request",
                "shape %.100r of input %.100r is no list of at most %d lengths above 0, %d values "
                "at most" % (shape, name, _MOST_DIMENSIONS, _MOST_VALUES),
            )
    return dict(value)


def values_of(shape: Sequence[int]) -> int:
    """Return how many values an array of this shape holds."""
    count = 1
    for length in shape:
        count *= length
    return count


def resolve(inputs: Sequence[Tuple[str, Dims]], given: Given) -> List[List[int]]:
    """Return the shape of every input; Refused when one stays open or does not fit the file.

    An open dimension whose name has a length in another input has the same length.
    """
    asked = _by_name(inputs, given)
    lengths = _named_lengths(inputs, asked)
    batches = {
        asked[name][0] for name, dims in inputs if asked.get(name) and dims and _is_batch(dims[0])
    }
    batch = batches.pop() if len(batches) == 1 else 1
    shapes: List[List[int]] = []
    left = []
    for name, dims in inputs:
        if name in asked:
            shapes.append(asked[name])
            continue
        found = [lengths.get(dim, dim) if isinstance(dim, str) else dim for dim in dims or ()]
        if _open_places(found) == [0] and len(found) > 1 and _is_batch(found[0]):
            found[0] = batch
        if dims is None or _open_places(found):
            left.append((name, dims))
        shapes.append([n for n in found if isinstance(n, int)])
    if left:
        raise Refused("bad_request", _what_is_open(left, alone=len(inputs) == 1))
    return shapes


def text(shape: Sequence[Dim]) -> str:
    """Return a shape as people give it, such as 1x3x640x640; "scalar" for no dimensions."""
    return "x".join(str(n) if n != "" else "?" for n in shape) or "scalar"


def _by_name(inputs: Sequence[Tuple[str, Dims]], given: Given) -> Given:
    """Return the given shapes by the names of inputs, each held against the file."""
    known = dict(inputs)
    told = ", ".join(_told(name, dims) for name, dims in inputs) or "none"
    asked: Given = {}
    for key, shape in given.items():
        name = key
        if not key:
            if len(inputs) != 1:
                sentence = "the model has %d inputs, so a shape needs the name of one: %s"
                raise Refused("bad_request", sentence % (len(inputs), told))
            name = inputs[0][0]
        if name not in known:
            sentence = "the model has no input %.100r; its inputs are %s"
            raise Refused("bad_request", sentence % (name, told))
        if name in asked:
            raise Refused("bad_request", "input %s is given two shapes" % name)
        dims = known[name]
        wrong = dims is not None and (
            len(dims) != len(shape)
            or any(isinstance(dim, int) and dim != n for dim, n in zip(dims, shape))
        )
        if wrong:
            sentence = "%s does not fit input %s of the file, where the numbers are fixed"
            raise Refused("bad_request", sentence % (text(shape), _told(name, dims)))
        asked[name] = list(shape)
    return asked


def _named_lengths(inputs: Sequence[Tuple[str, Dims]], asked: Given) -> Dict[str, int]:
    """Return what the given shapes say of named open dimensions; Refused when they disagree."""
    lengths: Dict[str, int] = {}
    said_by: Dict[str, str] = {}
    for name, dims in inputs:
        for dim, length in zip(dims or (), asked.get(name, ())):
            if not isinstance(dim, str) or not _NAMED.fullmatch(dim):
                continue
            if lengths.setdefault(dim, length) != length:
                raise Refused(
                    "bad_request",
                    "the file has one dimension %s, which is %d in the shape of %s and %d in that "
                    "of %s" % (dim, lengths[dim], said_by[dim], length, name),
                )
            said_by.setdefault(dim, name)
    return lengths


def _open_places(dims: Sequence[Dim]) -> List[int]:
    return [place for place, dim in enumerate(dims) if isinstance(dim, str)]


def _is_batch(dim: Dim) -> bool:
    return isinstance(dim, str) and _BATCH.fullmatch(dim) is not None


def _told(name: str, dims: Dims) -> str:
    return "%s (%s)" % (name, "any shape" if dims is None else text(dims))


def _what_is_open(left: Sequence[Tuple[str, Dims]], *, alone: bool) -> str:
    names: List[str] = []
    for _, dims in left:
        names += [dim or "?" for dim in dims or () if isinstance(dim, str)]
    unique = list(dict.fromkeys(names)) or ["all of them"]
    wanted = " ".join(
        "--input-shape %s%s"
        % ("" if alone else name + "=", "AxBxC" if dims is None else text(_placeholders(dims)))
        for name, dims in left
    )
    return (
        "the file leaves dimensions of its inputs open, which decide over the time it takes: %s of "
        "%s; give them as `%s`, a number for each word"
        % (", ".join(unique), ", ".join(_told(name, dims) for name, dims in left), wanted)
    )


def _placeholders(dims: Sequence[Dim]) -> List[Dim]:
    return [
        dim if isinstance(dim, int) else re.sub(r"\W", "_", dim).upper() or "D%d" % place
        for place, dim in enumerate(dims)
    ]
