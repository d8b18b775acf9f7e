"""Forms of torch's ops that move values: views, parts, paddings."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

from models.ops import Concat, DepthToSpace, Gather, Pad, Slice, SpaceToDepth, Tile
from pipeline.formats.torch.writer import Unsaid, Value, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Writer


def _same(_: Writer, call: Call) -> Value:
    return call.first


def _view(w: Writer, call: Call) -> Value:
    return w.reshape(call.first, call.shape)


def _permute(w: Writer, call: Call) -> Value:
    rank = len(call.first.shape)
    return w.transpose(call.first, [axis % rank for axis in call["dims"]])


def _swap(w: Writer, call: Call) -> Value:
    x = call.first
    axes = list(range(len(x.shape)))
    if len(axes) > 1:
        first, second = call.args.get("dim0", 0), call.args.get("dim1", 1)
        axes[first], axes[second] = axes[second], axes[first]
    return w.transpose(x, axes)


def _expand(w: Writer, call: Call) -> Value:
    return expanded(w, call.first, call.shape)


def expanded(w: Writer, x: Value, shape: Sequence[int]) -> Value:
    """Return a tensor broadcast to a shape."""
    if x.constant is not None:
        return held(x.constant.expand(tuple(shape)), x.source)
    x = w.reshape(x, (1,) * (len(shape) - len(x.shape)) + x.shape)
    repeats = tuple(new // old for new, old in zip(shape, x.shape, strict=True))
    return x if set(repeats) <= {1} else w.op("tile", [x], Tile(repeats))


def _repeat(w: Writer, call: Call) -> Value:
    repeats, x = tuple(call["repeats"]), call.first
    x = w.reshape(x, (1,) * (len(repeats) - len(x.shape)) + x.shape)
    return x if set(repeats) <= {1} else w.op("tile", [x], Tile(repeats))


def _concat(w: Writer, call: Call) -> Value:
    # torch lets an empty vector stand among tensors of any shape.
    values = [value for value in call["tensors"] if 0 not in value.shape]
    return concat(w, [w.cast(value, call.dtype) for value in values], call["dim"])


def concat(w: Writer, values: Sequence[Value], axis: int) -> Value:
    """Return tensors put together along an axis."""
    if len(values) == 1:
        return values[0]
    return w.op("concat", values, Concat(axis % len(values[0].shape)))


def _stack(w: Writer, call: Call) -> Value:
    axis = call["dim"] % len(call.shape)
    parts = [
        w.reshape(w.cast(x, call.dtype), (*x.shape[:axis], 1, *x.shape[axis:]))
        for x in call["tensors"]
    ]
    return concat(w, parts, axis)


def _slice(w: Writer, call: Call) -> Value:
    start, end, step = (call[name] for name in ("start", "end", "step"))
    return part(w, call.first, call["dim"], start, end, step)


def part(
    w: Writer, x: Value, axis: int, start: int | None, end: int | None, step: int = 1
) -> Value:
    """Return entries start to end of an axis, as Python would slice."""
    axis %= len(x.shape)
    start, end, step = slice(start, end, step).indices(x.shape[axis])
    if (start, end, step) == (0, x.shape[axis], 1):
        return x
    if end <= start:
        raise Unsaid("it takes a part of a tensor that is empty")
    if x.constant is not None:
        places = (slice(None),) * axis + (slice(start, end, step),)
        return held(x.constant[places])
    rank = len(x.shape)
    begin, until = [0] * rank, list(x.shape)
    begin[axis], until[axis] = start, end
    steps = [step if place == axis else 1 for place in range(rank)]
    return w.op("slice", [x], Slice(tuple(begin), tuple(until), tuple(steps)))


def _select(w: Writer, call: Call) -> Value:
    return w.reshape(_entry(w, call.first, call["dim"], call["index"]), call.shape)


def _entry(w: Writer, x: Value, axis: int, place: int) -> Value:
    place %= x.shape[axis]
    return part(w, x, axis, place, place + 1)


def _split(w: Writer, call: Call) -> tuple[Value, ...]:
    x, sizes = call.first, call.args.get("split_size", call.args.get("split_sizes"))
    size = x.shape[call["dim"]]
    if isinstance(sizes, int):
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)]
    return _parts(w, x, call["dim"], sizes)


def _chunk(w: Writer, call: Call) -> tuple[Value, ...]:
    size = call.first.shape[call["dim"]]
    each = -(-size // call["chunks"])
    sizes = [min(each, size - start) for start in range(0, size, each)]
    return _parts(w, call.first, call["dim"], sizes)


def _parts(w: Writer, x: Value, axis: int, sizes: Sequence[int]) -> tuple[Value, ...]:
    found, start = [], 0
    for size in sizes:
        found.append(part(w, x, axis, start, start + size))
        start += size
    return tuple(found)


def _unbind(w: Writer, call: Call) -> tuple[Value, ...]:
    x, axis = call.first, call["dim"] % len(call.first.shape)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return tuple(w.reshape(_entry(w, x, axis, place), shape) for place in range(x.shape[axis]))


def _copy(w: Writer, call: Call) -> Value:
    """Write what an assignment gives: the source, in the shape and type of what it replaces."""
    return expanded(w, w.cast(call["src"], call.dtype), call.shape)


def _flip(w: Writer, call: Call) -> Value:
    x = call.first
    for axis in call["dims"]:
        places = torch.arange(x.shape[axis] - 1, -1, -1)
        x = w.op("gather", [x, held(places)], Gather(axis % len(x.shape)))
    return x


def _roll(w: Writer, call: Call) -> Value:
    x, dims, shifts = call.first, call["dims"], call["shifts"]
    if not dims:
        x, dims = w.reshape(x, (prod(x.shape),)), [0]
    for axis, shift in zip(dims, shifts, strict=True):
        cut = -shift % x.shape[axis]
        if cut:
            size = x.shape[axis]
            x = concat(w, [part(w, x, axis, cut, size), part(w, x, axis, 0, cut)], axis)
    return w.reshape(x, call.shape)


_PADS = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _pad_by(mode: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        sides = call.args["pad"] if "pad" in call.args else call["padding"]
        return _padded(w, call.first, list(sides), mode, call.args.get("value") or 0.0)

    return write


def _pad(w: Writer, call: Call) -> Value:
    if call["mode"] == "circular":
        return _wrapped(w, call.first, call["pad"])
    return _pad_by(_PADS[call["mode"]])(w, call)


def _wrapped(w: Writer, x: Value, sides: Sequence[int]) -> Value:
    """Write padding by what stands at the other end; negative sides cut."""
    for place in range(len(sides) // 2):
        axis, before, after = len(x.shape) - 1 - place, sides[2 * place], sides[2 * place + 1]
        x = part(w, x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        size = x.shape[axis]
        parts = [part(w, x, axis, size - before, size)] if before > 0 else []
        parts += [x, *([part(w, x, axis, 0, after)] if after > 0 else [])]
        x = concat(w, parts, axis)
    return x


def _padded(w: Writer, x: Value, sides: list[int], mode: str, value: float) -> Value:
    """Write torch's padding, which names sides from the last axis on; negative ones cut."""
    rank = len(x.shape)
    margins = [(0, 0)] * rank
    for place in range(len(sides) // 2):
        axis, before, after = rank - 1 - place, sides[2 * place], sides[2 * place + 1]
        if min(before, after) < 0:
            x = part(w, x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        margins[axis] = (max(before, 0), max(after, 0))
    if not any(map(any, margins)):
        return x
    maps = rank == 4
    last = w.to_last(x) if maps else x
    ordered = [margins[axis] for axis in ((0, 2, 3, 1) if maps else range(rank))]
    made = w.op("pad", [last], Pad(tuple(ordered), float(value), mode))
    return w.to_first(made) if maps else made


def _pixel_shuffle(w: Writer, call: Call) -> Value:
    block = call["upscale_factor"]
    return _on_maps(w, call, lambda x: w.op("depthtospace", [x], DepthToSpace(block, "CRD")))


def _pixel_unshuffle(w: Writer, call: Call) -> Value:
    block, channels = call["downscale_factor"], call.first.shape[-3]

    def write(x: Value) -> Value:
        made = w.op("spacetodepth", [x], SpaceToDepth(block))
        # Ours has rows and columns before channels in a pixel, torch's after.
        order = torch.arange(channels * block**2).reshape(-1, channels).T.reshape(-1)
        return w.op("gather", [made, held(order)], Gather(3)) if channels > 1 else made

    return _on_maps(w, call, write)


def _on_maps(w: Writer, call: Call, write: Callable[[Value], Value]) -> Value:
    """Write on (N, H, W, C); what torch leaves in front of the last three axes is one N."""
    x = call.first
    first = w.reshape(x, (prod(x.shape[:-3]), *x.shape[-3:]))
    return w.reshape(w.to_first(write(w.to_last(first))), call.shape)


def _channel_shuffle(w: Writer, call: Call) -> Value:
    x, groups = call.first, call["groups"]
    last, channels = w.to_last(x), x.shape[1]
    order = torch.arange(channels).reshape(groups, -1).T.reshape(-1)
    return w.to_first(w.op("gather", [last, held(order)], Gather(len(x.shape) - 1)))


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    **dict.fromkeys(
        (
            *(
                "clone",
                "alias",
                "detach",
                "contiguous",
                "dropout",
                "native_dropout",
                "feature_dropout",
            ),
            *("lift_fresh_copy", "lift_fresh", "lift", "alpha_dropout", "positive"),
        ),
        _same,
    ),
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"), _view
    ),
    "permute": _permute,
    "transpose": _swap,
    "t": _swap,
    "expand": _expand,
    "repeat": _repeat,
    "cat": _concat,
    "stack": _stack,
    "slice": _slice,
    "select": _select,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _chunk,
    "unbind": _unbind,
    "copy": _copy,
    "flip": _flip,
    "roll": _roll,
    "pad": _pad,
    "constant_pad_nd": _pad_by("constant"),
    **{f"reflection_pad{places}d": _pad_by("reflect") for places in (1, 2)},
    **{f"replication_pad{places}d": _pad_by("edge") for places in (1, 2)},
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "_to_copy": lambda w, call: w.cast(call.first, call.dtype),
}
"""Torch's name of an op -> what writes it; several results are a tuple."""
