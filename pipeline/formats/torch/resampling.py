"""Forms of torch's pools and of what makes maps larger or smaller."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

from models.ops import AvgPool, Matmul, Mean, Pad, Reduce, Resize
from models.window import Window
from pipeline.formats.torch.elementwise import scale_by
from pipeline.formats.torch.shaping import concat, part
from pipeline.formats.torch.writer import Unsaid, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Value, Writer


def _window(call: Call) -> dict[str, Any]:
    """Return a pool's window; where sizes are rounded up, with what it reads beyond the end."""
    kernel = _pair(call["kernel_size"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    dilation = _pair(call.args.get("dilation") or 1)
    down, across = _pair(call["padding"])
    height, width = call.first.shape[-2:]
    rows, columns = call.shape[-2:]
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    bottom = max((rows - 1) * stride[0] + reach[0] - height - down, down)
    right = max((columns - 1) * stride[1] + reach[1] - width - across, across)
    if not call["ceil_mode"]:
        bottom, right = down, across
    return {
        "kernel": kernel,
        "stride": stride,
        "padding": (down, bottom, across, right),
        "dilation": dilation,
    }


def _pair(sizes: int | Sequence[int]) -> tuple[int, int]:
    return (sizes, sizes) if isinstance(sizes, int) else (sizes[0], sizes[-1])


def _maxpool(w: Writer, call: Call) -> Any:
    if 1 in call.used:
        raise Unsaid("the places of its maxima are used")
    x = _as_map(w, call.first)
    made = w.op("maxpool", [w.to_last(x)], Window(**_window(call)))
    return w.reshape(w.to_first(made), call.shape), None


def _as_map(w: Writer, x: Value) -> Value:
    """Return a map with its batch dimension, which torch lets one leave out."""
    return x if len(x.shape) == 4 else w.reshape(x, (1, *x.shape))


def _avgpool(w: Writer, call: Call) -> Value:
    window, last = _window(call), w.to_last(_as_map(w, call.first))
    counted, divisor = call["count_include_pad"], call["divisor_override"]
    down, across = _pair(call["padding"])
    if counted and not divisor and window["padding"] != (down, down, across, across):
        # Of what lies beyond the end torch counts the padding, and no more.
        last = w.op("pad", [last], Pad(((0, 0), (down, down), (across, across), (0, 0))))
        _, bottom, _, right = window["padding"]
        window["padding"], counted = (0, bottom - down, 0, right - across), False
    pool = AvgPool(**window, count_padding=bool(counted or divisor))
    made = w.op("avgpool", [last], pool)
    if divisor:
        made = scale_by(w, made, prod(pool.kernel) / divisor)
    return w.reshape(w.to_first(made), call.shape)


def _adaptive_average(w: Writer, call: Call) -> Value:
    x, size = _as_map(w, call.first), call.shape[-2:]
    height, width = x.shape[2:]
    if size == (1, 1):
        made = w.to_first(w.op("mean", [w.to_last(x)], Mean()))
    elif height % size[0] == 0 and width % size[1] == 0:
        made = w.to_first(w.op("avgpool", [w.to_last(x)], AvgPool(**_even(x.shape, size))))
    else:
        made = _resampled(w, call, x)
    return w.reshape(made, call.shape)


def _even(shape: Sequence[int], size: Sequence[int]) -> dict[str, Any]:
    steps = (shape[2] // size[0], shape[3] // size[1])
    return {"kernel": steps, "stride": steps}


def _adaptive_average_line(w: Writer, call: Call) -> Value:
    """Write an adaptive pool of (N, C, L) as that of maps of one row."""
    x, out = call.first, call.shape[-1]
    if x.shape[-1] % out:
        return _resize_line(w, call)
    step = x.shape[-1] // out
    rows = w.reshape(w.to_last(x), (x.shape[0], 1, x.shape[2], x.shape[1]))
    made = w.op("avgpool", [rows], AvgPool(kernel=(1, step), stride=(1, step)))
    return w.to_first(w.reshape(made, (x.shape[0], out, x.shape[1])))


def _adaptive_maximum(w: Writer, call: Call) -> Any:
    x, size = _as_map(w, call.first), call.shape[-2:]
    if 1 in call.used:
        raise Unsaid("the places of its maxima are used")
    if x.shape[2] % size[0] == 0 and x.shape[3] % size[1] == 0:
        made = w.to_first(w.op("maxpool", [w.to_last(x)], Window(**_even(x.shape, size))))
    else:
        made = _largest_of_parts(w, _largest_of_parts(w, x, 2, size[0]), 3, size[1])
    return w.reshape(made, call.shape), None


def _largest_of_parts(w: Writer, x: Value, axis: int, count: int) -> Value:
    """Return the maxima of `count` parts of an axis that may overlap, as adaptive pools have."""
    size = x.shape[axis]
    ends = [(n * size // count, -(-(n + 1) * size // count)) for n in range(count)]
    pools = [
        w.op("reduce", [part(w, x, axis, start, end)], Reduce("max", (axis,)))
        for start, end in ends
    ]
    return concat(w, pools, axis)


def _resize(
    mode: str, coordinates: str, rounding: str = "floor"
) -> Callable[[Writer, Call], Value]:
    """Make the form of an upsampling; one by a factor that sizes do not show is a product."""

    def write(w: Writer, call: Call) -> Value:
        x, size = call.first, call.shape[-2:]
        aligned = bool(call.args.get("align_corners"))
        if not aligned and not _shown_by_sizes(x.shape, size, _factors(call)):
            return _resampled(w, call, x)
        place = "align_corners" if aligned else coordinates
        attributes = Resize((size[0], size[1]), mode, place, rounding)
        return w.to_first(w.op("resize", [w.to_last(x)], attributes))

    return write


def _factors(call: Call) -> Sequence[float | None]:
    factors = call.args.get("scale_factors")
    if factors is None:
        return (call.args.get("scales_h"), call.args.get("scales_w"))
    return tuple(factors)


def _shown_by_sizes(
    shape: Sequence[int], size: Sequence[int], factors: Sequence[float | None]
) -> bool:
    """Tell whether a factor is what the sizes say: torch reckons places with the factor."""
    return all(
        factor is None or old * factor == new
        for old, new, factor in zip(shape[-2:], size, factors, strict=True)
    )


def _resize_line(w: Writer, call: Call) -> Value:
    """Write the upsampling of (N, C, L) as a product with what it makes of single positions."""
    x = call.first
    places = torch.eye(x.shape[-1])[None]
    matrix = _run(call, places)[0].T
    return w.to_first(w.op("matmul", [held(matrix[None]), w.to_last(x)], Matmul()))


def _resampled(w: Writer, call: Call, x: Value) -> Value:
    """Write any map of rows by rows and of columns by columns as two products of matrices.

    What an op makes of the map whose channel c is 1 in row c, and 0 elsewhere, is the matrix that
    it multiplies rows by. Channels are last, as the convolutions around it have them.
    """
    height, width = x.shape[-2:]
    of_rows = torch.eye(height)[None, :, :, None].expand(1, height, height, width)
    of_columns = torch.eye(width)[None, :, None, :].expand(1, width, height, width)
    rows = _run(call, of_rows.contiguous())[0, :, :, 0].T
    columns = _run(call, of_columns.contiguous())[0, :, 0, :].T
    last = w.to_last(x)
    batch, channels = last.shape[0], last.shape[3]
    lines = w.reshape(last, (batch, height, width * channels))
    made = w.op("matmul", [held(rows[None]), lines], Matmul())
    made = w.reshape(made, (batch, len(rows), width, channels))
    return w.to_first(w.op("matmul", [held(columns[None, None]), made], Matmul()))


def _run(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Return what torch's op makes of another tensor."""
    _, *others = call.args.values()
    result: torch.Tensor = call.run(x, *others)
    return result


_NEAREST = _resize("nearest", "asymmetric")
_NEAREST_EXACT = _resize("nearest", "half_pixel", "prefer_ceil")
_BILINEAR = _resize("bilinear", "half_pixel")

FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    "max_pool2d_with_indices": _maxpool,
    "max_pool2d": lambda w, call: _maxpool(w, call)[0],
    "avg_pool2d": _avgpool,
    "adaptive_avg_pool2d": _adaptive_average,
    "_adaptive_avg_pool2d": _adaptive_average,
    "adaptive_avg_pool1d": _adaptive_average_line,
    "adaptive_max_pool2d": _adaptive_maximum,
    "upsample_nearest2d": _NEAREST,
    "_upsample_nearest_exact2d": _NEAREST_EXACT,
    "upsample_bilinear2d": _BILINEAR,
    "upsample_bicubic2d": lambda w, call: _resampled(w, call, call.first),
    "_upsample_bilinear2d_aa": lambda w, call: _resampled(w, call, call.first),
    "_upsample_bicubic2d_aa": lambda w, call: _resampled(w, call, call.first),
    "upsample_nearest1d": _resize_line,
    "_upsample_nearest_exact1d": _resize_line,
    "upsample_linear1d": _resize_line,
}
"""Torch's name of an op -> what writes it; several results are a tuple."""
