"""Forms of torch's ops that read entries by their places, or write them.

Where places are constants they are found by torch itself, on a tensor that holds the number of each
entry: whatever an op means by its arguments, what is left is one look-up in the flat tensor.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

from models.ops import Compare, Gather
from pipeline.formats.torch.elementwise import scale_by, valued
from pipeline.formats.torch.shaping import concat, expanded, part
from pipeline.formats.torch.writer import Unsaid, Value, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Writer

_ROUNDS = 64
"""Entries written along one axis, or added into one entry: each is a few ops."""


def _index(w: Writer, call: Call) -> Value:
    """Write x[…, i, j, …]: one look-up, along one axis or along several that are made one."""
    x, given = call.first, call["indices"]
    axes = [axis for axis, index in enumerate(given) if index is not None]
    indices = [given[axis] for axis in axes]
    if any(index.dtype == "bool" for index in indices):
        raise Unsaid("which entries it takes depends on values")
    first, sizes = axes[0], [x.shape[axis] for axis in axes]
    if axes != list(range(first, first + len(axes))):
        # torch puts what is looked up along axes that are apart in front.
        rest = [axis for axis in range(len(x.shape)) if axis not in axes]
        x, first = w.transpose(x, [*axes, *rest]), 0
    total, step = _positive(w, indices[-1], sizes[-1]), sizes[-1]
    for index, size in zip(indices[-2::-1], sizes[-2::-1], strict=True):
        total = _sum(w, total, scale_by(w, _positive(w, index, size), step))
        step *= size
    flat = w.reshape(x, (*x.shape[:first], prod(sizes), *x.shape[first + len(axes) :]))
    return w.op("gather", [flat, total], Gather(first))


def _positive(w: Writer, index: Value, size: int) -> Value:
    """Return places counted from the start; of those that are computed a remainder is."""
    if index.constant is None:
        return w.op("mod", w.fit([index, valued(size, index.dtype)]))
    return held(torch.where(index.constant < 0, index.constant + size, index.constant))


def _sum(w: Writer, a: Value, b: Value) -> Value:
    """Return the sum of places."""
    if a.constant is not None and b.constant is not None:
        return held(a.constant + b.constant)
    return w.op("add", w.fit([w.cast(a, "int64"), w.cast(b, "int64")]))


def _index_select(w: Writer, call: Call) -> Value:
    axis = call["dim"] % len(call.first.shape)
    return w.op("gather", [call.first, call["index"]], Gather(axis))


def _gather(w: Writer, call: Call) -> Value:
    """Write torch.gather, which looks up along one axis, at each place of the others by itself."""
    x, index, axis = call.first, call["index"], call["dim"] % len(call.first.shape)
    others = [size for place, size in enumerate(index.shape) if place != axis]
    if set(others) <= {1} and prod(x.shape) == x.shape[axis]:
        line = w.reshape(index, (index.shape[axis],))
        return w.op("gather", [x, line], Gather(axis))
    step = prod(x.shape[axis + 1 :])
    starts = _numbers(x).narrow(axis, 0, 1)
    for place, size in enumerate(index.shape):
        starts = starts.narrow(place, 0, 1 if place == axis else size)
    places = _sum(w, scale_by(w, index, step), held(starts))
    return w.op("gather", [w.reshape(x, (prod(x.shape),)), places], Gather(0))


def _numbers(x: Value) -> torch.Tensor:
    """Return a tensor of this shape that holds the number of each entry."""
    return torch.arange(prod(x.shape)).reshape(x.shape)


def _moved(w: Writer, call: Call) -> Value:
    """Write a view by the places that torch reads for it."""
    x, *others = call.args.values()
    places: torch.Tensor = call.run(_numbers(x), *others)
    return w.op("gather", [w.reshape(x, (prod(x.shape),)), held(places)], Gather(0))


def _unfold(w: Writer, call: Call) -> Value:
    """Write windows along an axis, which come to lie on a last axis of their own."""
    x, size, step = call.first, call["size"], call["step"]
    axis = call["dimension"] % len(x.shape)
    starts = torch.arange(0, x.shape[axis] - size + 1, step)
    shape = (*x.shape[:axis], len(starts), size, *x.shape[axis + 1 :])
    if size == step:
        made = w.reshape(part(w, x, axis, 0, len(starts) * size), shape)
    else:
        places = starts[:, None] + torch.arange(size)
        made = w.op("gather", [x, held(places)], Gather(axis))
    order = [place for place in range(len(shape)) if place != axis + 1]
    return w.transpose(made, [*order, axis + 1])


def _scatter(w: Writer, call: Call) -> Value:
    """Write torch.scatter: entries along one axis, one after the other."""
    x, index, axis = call.first, call["index"], call["dim"] % len(call.first.shape)
    adds = call.run == torch.ops.aten.scatter_add.default
    source = call.args["src"] if "src" in call.args else call["value"]
    if call["reduce"]:
        raise Unsaid(f"it reduces by {call['reduce']!r}")
    source = w.cast(valued(source, x.dtype), x.dtype)
    if index.constant is not None:
        # Along the axis the index says which entry, along the others its own place does.
        window = [slice(0, size) for size in index.shape]
        window[axis] = slice(None)
        places = _numbers(x)[tuple(window)].gather(axis, index.constant.long())
        if source.shape:
            for place, size in enumerate(index.shape):
                source = part(w, source, place, 0, size)
        return _placed(w, x, places, source, adds=adds)
    apart = [(a, b) for place, (a, b) in enumerate(_pairs(x, index)) if place != axis]
    if any(a != b for a, b in apart) or index.shape[axis] > _ROUNDS:
        raise Unsaid(f"it writes at {index.shape} computed places of {x.shape}")
    along = [-1 if place == axis else 1 for place in range(len(x.shape))]
    places = torch.arange(x.shape[axis]).reshape(along)
    for entry in range(index.shape[axis]):
        chosen = w.cast(part(w, index, axis, entry, entry + 1), "int64")
        here = w.op("compare", w.fit([chosen, held(places)]), Compare("equal"))
        given = part(w, source, axis, entry, entry + 1) if source.shape else source
        given = w.op("add", w.fit([x, given])) if adds else given
        x = w.op("where", w.fit([here, given, x]))
    return x


def _pairs(x: Value, index: Value) -> list[tuple[int, int]]:
    return list(zip(x.shape, index.shape, strict=True))


def _put(w: Writer, call: Call) -> Value:
    """Write x[i, j, …] = values: at constant places, or where one mask is true."""
    x, given, adds = call.first, call["indices"], bool(call["accumulate"])
    values = w.cast(call["values"], x.dtype)
    if len(given) == 1 and given[0] is not None and given[0].dtype == "bool" and not adds:
        mask = given[0]
        if values.constant is not None and values.constant.numel() == 1:
            mask = w.reshape(mask, mask.shape + (1,) * (len(x.shape) - len(mask.shape)))
            return w.op("where", w.fit([mask, w.reshape(values, ()), x]))
    if any(index is not None and index.constant is None for index in given):
        raise Unsaid("where it writes is computed by the network")
    indices = tuple(slice(None) if index is None else index.constant for index in given)
    places = _numbers(x)[indices]
    return _placed(w, x, places, values, adds=adds)


def _slice_scatter(w: Writer, call: Call) -> Value:
    x, axis = call.first, call["dim"] % len(call.first.shape)
    source = w.cast(call["src"], call.dtype)
    start, end, step = slice(call["start"], call["end"], call["step"]).indices(x.shape[axis])
    if step == 1:
        return _replaced(w, x, axis, start, source)
    places = _numbers(x)[(slice(None),) * axis + (slice(start, end, step),)]
    return _placed(w, x, places, source, adds=False)


def _select_scatter(w: Writer, call: Call) -> Value:
    x, axis = call.first, call["dim"] % len(call.first.shape)
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    source = w.reshape(w.cast(call["src"], call.dtype), shape)
    return _replaced(w, x, axis, call["index"] % x.shape[axis], source)


def _replaced(w: Writer, x: Value, axis: int, start: int, source: Value) -> Value:
    """Return a tensor with a part of an axis replaced from `start` on."""
    end, size = start + source.shape[axis], x.shape[axis]
    before = [part(w, x, axis, 0, start)] if start else []
    after = [part(w, x, axis, end, size)] if end < size else []
    return concat(w, [*before, source, *after], axis)


def _placed(w: Writer, x: Value, places: torch.Tensor, source: Value, *, adds: bool) -> Value:
    """Return a tensor with values written, or added, at places that are known.

    Args:
        w: writes.
        x: the tensor.
        places: numbers of entries of the flat tensor.
        source: of the places' shape, or one that broadcasts to it.
        adds: whether values are added to what is there.
    """
    count, line = prod(x.shape), places.reshape(-1)
    source = w.reshape(expanded(w, source, places.shape), (len(line),))
    # Of every entry of x the numbers of what is written there: a row for the first, the second, …
    times = torch.bincount(line, minlength=count)
    rounds = int(times.max()) if len(line) else 0
    if not adds:
        last = torch.full((count,), -1)
        last[line] = torch.arange(len(line))
        rows = [last]
    elif rounds <= _ROUNDS:
        order = torch.argsort(line, stable=True)
        starts = times.cumsum(0) - times
        turn = torch.arange(len(line)) - starts[line[order]]
        table = torch.full((rounds, count), -1)
        table[turn, line[order]] = order
        rows = list(table)
    else:
        raise Unsaid(f"it adds {rounds} values into one entry; known are {_ROUNDS} at most")
    for row in rows:
        given = w.op("gather", [source, held(row.clamp(min=0))], Gather(0))
        given = w.reshape(given, x.shape)
        given = w.op("add", [x, given]) if adds else given
        there = (row >= 0).reshape(x.shape)
        x = given if bool(there.all()) else w.op("where", [held(there), given, x])
    return x


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    "index": _index,
    "index_select": _index_select,
    "gather": _gather,
    "diagonal": _moved,
    "unfold": _unfold,
    "scatter": _scatter,
    "scatter_add": _scatter,
    "index_put": _put,
    "_unsafe_index_put": _put,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
}
"""Torch's name of an op -> what writes it."""
