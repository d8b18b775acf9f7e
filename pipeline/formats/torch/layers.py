"""Forms of torch's layers: convolutions, products of matrices, attention, normalisations."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

from models.ops import (
    BatchNorm,
    Conv,
    Deconv,
    Dense,
    Depthwise,
    Gather,
    LayerNorm,
    Matmul,
    Reduce,
    Softmax,
    Unary,
)
from pipeline.formats.torch.elementwise import MASKED, bounded, scale_by
from pipeline.formats.torch.writer import Unsaid, held, known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Value, Writer


def _convolution(w: Writer, call: Call) -> Value:
    """Write a convolution of one or two dimensions; one of one is as high as a row."""
    x, weight = call["input"], known(call["weight"], "weight")
    places = weight.ndim - 2
    if places not in (1, 2):
        raise Unsaid(f"it has {places} dimensions; known are 1 and 2")
    stride, padding, dilation, extra = (
        _pair(call[name]) for name in ("stride", "padding", "dilation", "output_padding")
    )
    if places == 1:
        (stride, padding, dilation, extra) = (
            (unit, each[1]) for each, unit in ((stride, 1), (padding, 0), (dilation, 1), (extra, 0))
        )
        weight = weight[:, :, None]
    window: dict[str, Any] = {
        "kernel": tuple(weight.shape[2:]),
        "stride": stride,
        "padding": (padding[0], padding[0], padding[1], padding[1]),
        "dilation": dilation,
    }
    last = w.to_last(x)
    if places == 1:
        last = w.reshape(last, (last.shape[0], 1, *last.shape[1:]))
    groups, channels = call["groups"], x.shape[1]
    if call["transposed"]:
        kind, out = "deconv", weight.shape[1] * groups
        attributes: Any = Deconv(**window, out=out, groups=groups, extra=extra)
        parts = weight.reshape(groups, -1, *weight.shape[1:]).permute(0, 2, 3, 4, 1)
        weight = parts.reshape(out, *weight.shape[2:], channels // groups)
    elif groups == channels > 1:
        kind, out = "depthwise", weight.shape[0]
        attributes = Depthwise(**window, multiplier=out // channels)
        weight = weight.permute(1, 2, 3, 0)
    else:
        kind, out = "conv", weight.shape[0]
        attributes = Conv(**window, out=out, groups=groups)
        weight = weight.permute(0, 2, 3, 1)
    result = w.layer(kind, last, weight, _bias(call["bias"], out), attributes)
    if places == 1:
        result = w.reshape(result, (result.shape[0], *result.shape[2:]))
    return w.to_first(result)


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Return (down, across); torch gives one number for both, or one for a single dimension."""
    return (sizes[0], sizes[-1])


def _bias(bias: Value | None, out: int) -> torch.Tensor:
    if bias is None:
        return torch.zeros(out)
    return known(bias, "bias").reshape(-1).expand(out)


def _linear(w: Writer, call: Call) -> Value:
    x, weight = call["input"], call["weight"]
    if weight.constant is None:
        turned = (*range(len(weight.shape) - 2), len(weight.shape) - 1, len(weight.shape) - 2)
        product = _product(w, x, w.transpose(weight, turned))
        return product if call["bias"] is None else _add(w, product, call["bias"])
    return _dense(w, x, weight.constant, call["bias"])


def _dense(w: Writer, x: Value, weight: torch.Tensor, bias: Value | None) -> Value:
    """Write a layer over the last axis; a bias that is none of units is added."""
    units = weight.shape[0]
    own = bias is None or (bias.constant is not None and bias.constant.numel() in (1, units))
    flat = x if len(x.shape) > 1 else w.reshape(x, (1, *x.shape))
    made = w.layer("dense", flat, weight, _bias(bias if own else None, units), Dense(units))
    made = w.reshape(made, (*x.shape[:-1], units))
    return made if own or bias is None else _add(w, made, bias)


def _add(w: Writer, a: Value, b: Value) -> Value:
    return w.op("add", w.fit([a, b]))


def _product(w: Writer, a: Value, b: Value) -> Value:
    """Write torch.matmul: a dense layer where the second matrix is a constant."""
    if b.constant is not None and b.constant.ndim == 2:
        return _dense(w, a, b.constant.T, None)
    rows, columns = a.shape[-2:-1] if len(a.shape) > 1 else (), b.shape[-1:]
    if len(b.shape) == 1:
        b, columns = w.reshape(b, (*b.shape, 1)), ()
    if len(a.shape) == 1:
        a = w.reshape(a, (1, *a.shape))
    made = w.op("matmul", w.fit([a, b]), Matmul())
    return w.reshape(made, (*made.shape[:-2], *rows, *columns))


def _matmul(w: Writer, call: Call) -> Value:
    first, second = list(call.args.values())[:2]
    return _product(w, first, second)


def _add_product(w: Writer, call: Call) -> Value:
    """Write beta * input + alpha * (a @ b): addmm, baddbmm."""
    added, a, b = list(call.args.values())[:3]
    added = bounded(added) if call.masks else added
    if call["alpha"] == call["beta"] == 1 and b.constant is not None and b.constant.ndim == 2:
        return _dense(w, a, b.constant.T, added)
    product = scale_by(w, _product(w, a, b), call["alpha"])
    return _add(w, product, scale_by(w, added, call["beta"]))


def _attention(w: Writer, call: Call) -> Value:
    query, key, value, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    if call["enable_gqa"]:
        key, value = (_for_heads(w, x, query.shape[-3]) for x in (key, value))
    share = query.shape[-1] ** -0.5 if call["scale"] is None else call["scale"]
    query, key = w.fit([scale_by(w, query, share), key])
    scores = w.op("matmul", [query, key], Matmul(transpose_b=True))
    if call["is_causal"]:
        mask = held(torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if mask is not None and mask.dtype == "bool":
        if mask.constant is not None:
            added = torch.zeros(mask.shape).masked_fill(~mask.constant, MASKED)
            scores = _add(w, scores, held(added))
        else:
            scores = w.op("where", w.fit([mask, scores, held(torch.full((), MASKED))]))
    elif mask is not None:
        scores = _add(w, scores, bounded(mask))
    shares = w.op("softmax", [scores], Softmax(len(scores.shape) - 1))
    return w.op("matmul", w.fit([shares, value]), Matmul())


def _for_heads(w: Writer, x: Value, heads: int) -> Value:
    """Return keys or values with each head as often as queries share it."""
    *_, shared, _, _ = x.shape
    if shared == heads:
        return x
    places = torch.arange(shared).repeat_interleave(heads // shared)
    return w.op("gather", [x, held(places)], Gather(len(x.shape) - 3))


def _embedding(w: Writer, call: Call) -> Value:
    return w.op("gather", [call["weight"], call["indices"]], Gather(0))


def _batch_norm(w: Writer, call: Call) -> tuple[Value]:
    x = call["input"]
    own = _parameters(x.shape[1], call)
    names = ("running_mean", "running_var")
    statistics = [call[name] for name in names]
    last = w.to_last(x) if len(x.shape) > 2 else x
    made = w.op("batchnorm", [last, *own, *statistics], BatchNorm(call["eps"]))
    return (w.to_first(made) if len(x.shape) > 2 else made,)


def _parameters(channels: int, call: Call) -> tuple[Value, Value]:
    scale, shift = call["weight"], call["bias"]
    return (
        held(torch.ones(channels)) if scale is None else scale,
        held(torch.zeros(channels)) if shift is None else shift,
    )


def _instance_norm(w: Writer, call: Call) -> Value:
    """Write a normalisation of each channel of each sample; or by its running statistics."""
    if not call["use_input_stats"]:
        return _batch_norm(w, call)[0]
    return _normalise_channels(w, call)


def _own_statistics(w: Writer, call: Call) -> tuple[Value]:
    """Write a batch normalisation by the statistics of the batch, of one sample."""
    if call["input"].shape[0] != 1:
        raise Unsaid("it normalises by the statistics of a batch of several samples")
    return (_normalise_channels(w, call),)


def _normalise_channels(w: Writer, call: Call) -> Value:
    x = call["input"]
    last = w.to_last(x)
    axes = tuple(range(1, len(x.shape) - 1))
    made = _scaled(w, _standardise(w, last, axes, call["eps"]), call["weight"], call["bias"])
    return w.to_first(made)


def _group_norm(w: Writer, call: Call) -> tuple[Value]:
    x, groups = call["input"], call["group"]
    last = w.to_last(x)
    batch, channels = x.shape[:2]
    grouped = w.reshape(last, (batch, prod(x.shape[2:]), groups, channels // groups))
    made = w.reshape(_standardise(w, grouped, (1, 3), call["eps"]), last.shape)
    return (w.to_first(_scaled(w, made, call["weight"], call["bias"])),)


def _standardise(w: Writer, x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    """Return (x - mean) / sqrt(variance + epsilon) over axes."""
    centred = w.op("sub", [x, w.op("reduce", [x], Reduce("mean", axes))])
    squares = w.op("reduce", [w.op("unary", [centred], Unary("square"))], Reduce("mean", axes))
    spread = w.op("add", w.fit([squares, held(torch.tensor(epsilon))]))
    return w.op("mul", [centred, w.op("unary", [spread], Unary("rsqrt"))])


def _scaled(w: Writer, x: Value, scale: Value | None, shift: Value | None) -> Value:
    if scale is not None:
        x = w.op("mul", w.fit([x, scale]))
    return x if shift is None else _add(w, x, shift)


def _layer_norm(w: Writer, call: Call) -> tuple[Value]:
    shape = tuple(call["normalized_shape"])
    scale, shift = call["weight"], call["bias"]
    parameters = [
        held(torch.ones(shape)) if scale is None else scale,
        held(torch.zeros(shape)) if shift is None else shift,
    ]
    attributes = LayerNorm(len(shape), call["eps"])
    return (w.op("layernorm", [call["input"], *parameters], attributes),)


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    "convolution": _convolution,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _add_product,
    "baddbmm": _add_product,
    "scaled_dot_product_attention": _attention,
    "embedding": _embedding,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_native_batch_norm_legit": _own_statistics,
    "instance_norm": _instance_norm,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
}
"""Torch's name of an op -> what writes it; several results are a tuple."""
