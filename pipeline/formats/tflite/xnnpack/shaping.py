"""Rules of ops that move elements or reduce axes, and of variables."""

from __future__ import annotations

from pipeline.formats.tflite.xnnpack.view import (
    FLOATS,
    MOST_DIMS,
    View,
    need,
    need_shape,
    need_type,
)

_ANY = (*FLOATS, "q8")
_MOST_JOINED = 5
_MOST_PARTS = 4


def take_concat(view: View) -> None:
    """Check CONCATENATION."""
    count = len(view.op.inputs)
    need(2 <= count <= _MOST_JOINED, f"it joins {count} tensors, more than {_MOST_JOINED}")
    view.need_counts((count,))
    output = view.output
    need_type(output, *_ANY)
    sources = [view.input(place) for place in range(count)]
    axis = view.options.axis
    need(all(axis < len(source.shape) for source in sources), "it joins along a new axis")
    for source in sources:
        if output.dtype == "uint8":
            same = (source.scales, source.zero_points) == (output.scales, output.zero_points)
            need(same, "its scales differ")
        need_type(source, *_ANY)


def take_split(view: View) -> None:
    """Check SPLIT."""
    count = len(view.op.outputs)
    need(count == view.options.numSplits, "it has other outputs than it says")
    need(2 <= count <= _MOST_PARTS, f"it splits into {count} parts, more than {_MOST_PARTS}")
    view.need_counts((2,), (count,))
    view.table(0, "axes", "int32")
    need_type(view.input(1), *_ANY)
    for place in view.op.outputs:
        need_type(view.graph.tensors[place], *_ANY)


def take_reduce(view: View) -> None:
    """Check MEAN, SUM, REDUCE_MAX and REDUCE_MIN."""
    view.need_counts((2,))
    need_type(view.input(0), *_ANY)
    axes = view.table(1, "axes", "int32")
    need(axes.ndim <= 1, "its axes are no list")
    need(0 < axes.size <= MOST_DIMS, f"it reduces {axes.size} axes")
    scalar = not view.input(0).shape and axes.size == 1 and not axes.reshape(-1)[0]
    need(not scalar, "it reduces a single number")
    need_type(view.output, *_ANY)


def take_pad(view: View) -> None:
    """Check PAD."""
    view.need_counts((2,))
    source = view.input(0)
    need_type(source, *_ANY)
    need_shape(source, 1, MOST_DIMS)
    margins = view.table(1, "margins", "int32")
    need(margins.shape == (len(source.shape), 2), "its margins do not fit its input")
    need_type(view.output, *_ANY)
    need_shape(view.output, 1, MOST_DIMS)
    need(not (margins < 0).any(), "a margin is negative")


def take_reshape(view: View) -> None:
    """Check RESHAPE."""
    view.need_counts((1, 2))
    source, output = view.input(0), view.output
    for tensor in (source, output):
        need_type(tensor, *_ANY)
        need_shape(tensor, 0, MOST_DIMS)
    if output.dtype in ("int8", "uint8"):
        same = (source.scales, source.zero_points) == (output.scales, output.zero_points)
        need(source.dtype in FLOATS or same, "its scales differ")
    if len(view.op.inputs) == 2:
        shape = view.table(1, "new lengths", "int32")
        need(all(length == 1 for length in shape.shape[:-1]), "its new lengths are no list")
        lengths = shape.reshape(-1).tolist()
    else:
        given = getattr(view.op.options, "newShape", None)
        lengths = [] if given is None else list(map(int, given))
    need(lengths not in ([0], [-1]), "it is a reshape of old, of single numbers")


def take_resize(view: View) -> None:
    """Check RESIZE_BILINEAR."""
    view.need_counts((2,))
    for tensor in (view.input(0), view.output):
        need_type(tensor, "float32", "q8")
        need_shape(tensor, 4, 4)
    size = view.table(1, "output sizes", "int32")
    need(size.ndim == 1, "its output sizes are no list")
    need(size[0] > 0, "its output is empty")


def take_slice(view: View) -> None:
    """Check SLICE."""
    for place, what in ((1, "starts"), (2, "sizes")):
        table = view.table(place, what, "int32", "int64")
        need(table.ndim == 1, f"its {what} are no list")
    sizes = view.table(2, "sizes")
    need(len(view.table(1, "starts")) == len(sizes), "its starts and sizes differ in number")
    need_type(view.input(0), *_ANY)
    need_type(view.output, *_ANY)
    need(bool((sizes > 0).all()), "a size is left open")


def take_strided_slice(view: View) -> None:
    """Check STRIDED_SLICE."""
    options = view.options
    masks = options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask
    need(not any(masks), "it adds or removes an axis")
    steps = view.table(3, "steps", "int32")
    need(bool((steps == 1).all()), "a step is not 1")
    source = view.input(0)
    begins, ends = view.table(1, "starts", "int32"), view.table(2, "ends", "int32")
    same = {len(begins), len(ends), len(steps)} == {len(source.shape)}
    need(same, "its starts do not fit its input")
    need_type(source, *_ANY)
    need_type(view.output, *_ANY)
    for axis, extent in enumerate(source.shape):
        begin = 0 if options.beginMask >> axis & 1 else int(begins[axis])
        end = 0 if options.endMask >> axis & 1 else int(ends[axis])
        if options.offset and not options.endMask >> axis & 1:
            end += begin
        offset = begin + extent if begin < 0 else begin
        size = end - offset + (extent if end <= 0 else 0)
        need(offset + size <= extent, "it ends behind its input")


def take_transpose(view: View) -> None:
    """Check TRANSPOSE."""
    view.need_counts((2,))
    need_type(view.input(0), *_ANY)
    need_shape(view.input(0), 1, MOST_DIMS)
    view.table(1, "axes")


def take_depth_to_space(view: View) -> None:
    """Check DEPTH_TO_SPACE."""
    view.need_counts((1,))
    for tensor in (view.input(0), view.output):
        need_type(tensor, *_ANY)
    need(view.options.blockSize > 1, "its block is 1")


def take_space_to_depth(view: View) -> None:
    """Check SPACE_TO_DEPTH."""
    take_depth_to_space(view)
    need(view.input(0).dtype != "float16", "it is not taken in float16")
    sides, block = view.input(0).shape[1:3], view.options.blockSize
    need(not any(side % block for side in sides), "its input is no whole number of blocks")
