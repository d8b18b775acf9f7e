"""The same network built in TensorFlow and put through TFLiteConverter, in this process.

Heavy (0.9 to 1.8 GB): the product reaches it through `pipeline.formats.tflite.converter`, which
starts a process for it. Batch normalisation is folded already, so the converter has no more to do
here than the native writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from models.graph import Op
    from models.model import Model
    from models.window import Window

Images = npt.NDArray[np.float32]

_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    # This shape of the formula is what the converter recognises as HARD_SWISH.
    "hardswish": lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
    "silu": lambda x: x * tf.sigmoid(x),
    "sigmoid": tf.sigmoid,
    "hardsigmoid": lambda x: tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
}


class Module(tf.Module):  # type: ignore[misc]
    """A model as a TensorFlow function of its inputs, float32 and shaped as the graph says."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.graph = graph = model.graph
        self.layers = {
            op.name: _layer(op, *model.weights[op.name]) for op in graph.ops if op.has_weights
        }
        self.constants = {
            constant.name: tf.constant(model.weights[constant.name][0])
            for constant in graph.constants
        }
        signature = [
            tf.TensorSpec(tensor.shape, tf.float32, name=tensor.name) for tensor in graph.inputs
        ]
        self.function = tf.function(self.run, input_signature=signature)

    def run(self, *given: Any) -> Any:
        """Return the output, or the outputs."""
        names = (tensor.name for tensor in self.graph.inputs)
        tensors = {**self.constants, **dict(zip(names, given, strict=True))}
        for op in self.graph.ops:
            inputs = [tensors[name] for name in op.inputs]
            value = _FORMS[op.kind](op, *inputs, *self.layers.get(op.name, ()))
            tensors[op.name] = _ACTIVATIONS[op.act](value)
        outputs = tuple(tensors[name] for name in self.graph.outputs)
        return outputs if len(outputs) > 1 else outputs[0]


def convert(model: Model, images: Images | None = None) -> bytes:
    """Return the converter's float32 file, or static int8 if calibrated on `images` (N, C, H, W).

    Tracing is part of the work, as lowering and folding are not.
    """
    module = Module(model)
    function = module.function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    return run_converter(converter, images)


def run_converter(converter: Any, images: Images | None = None) -> bytes:
    """Return what TFLiteConverter makes, static int8 if calibrated on `images` (N, C, H, W)."""
    if images is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        # One scale for a dense layer: TFLite before 2.10 computes zeros from several.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: SLF001
    content: bytes = converter.convert()
    return content


def _samples(images: Images) -> Iterator[list[Images]]:
    for image in images:
        yield [np.ascontiguousarray(image.transpose(1, 2, 0)[None])]


def _layer(op: Op, weight: Images, bias: Images) -> tuple[Any, Any]:
    """Bring weights from TFLite's layout into TensorFlow's."""
    return tf.constant(_LAYOUTS[op.kind](op, weight)), tf.constant(bias)


def _conv(op: Op, x: Any, weight: Any, bias: Any) -> Any:
    window: Window = op.attributes
    x, padding = _pad(op, x)
    sums = tf.nn.conv2d(x, weight, window.stride, padding, dilations=window.dilation)
    return tf.nn.bias_add(sums, bias)


def _depthwise(op: Op, x: Any, weight: Any, bias: Any) -> Any:
    window: Window = op.attributes
    x, padding = _pad(op, x)
    strides = [1, *window.stride, 1]
    dilations = None if window.dilation == (1, 1) else window.dilation
    sums = tf.nn.depthwise_conv2d(x, weight, strides, padding, dilations=dilations)
    return tf.nn.bias_add(sums, bias)


def _maxpool(op: Op, x: Any) -> Any:
    window: Window = op.attributes
    if window.dilation != (1, 1):
        raise ValueError(
            f"op {op.name!r}: a max pool with dilation {window.dilation} is no op of TFLite"
        )
    x, padding = _pad(op, x, -np.inf)
    return tf.nn.max_pool2d(x, window.kernel, window.stride, padding)


_LAYOUTS: Mapping[str, Callable[[Op, Images], Images]] = {
    "conv": lambda _, weight: weight.transpose(1, 2, 3, 0),
    "depthwise": lambda op, weight: weight.reshape(
        *op.attributes.kernel, -1, op.attributes.multiplier
    ),
    "dense": lambda _, weight: weight.T,
}
"""Kind of layer -> its weight in TensorFlow's layout."""

_FORMS: Mapping[str, Callable[..., Any]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": lambda _, x, weight, bias: tf.nn.bias_add(tf.matmul(x, weight), bias),
    "add": lambda _, x, y: x + y,
    "mul": lambda _, x, y: x * y,
    "mean": lambda op, x: tf.reduce_mean(x, [1, 2], keepdims=op.attributes.keepdims),
    "maxpool": _maxpool,
    "act": lambda _, x: x,
}
"""Kind -> what TensorFlow does for it, from the values of its inputs and its weight and bias."""


def _pad(op: Op, x: Any, outside: float = 0.0) -> tuple[Any, str]:
    window: Window = op.attributes
    _, height, width, _ = op.in_shapes[0]
    if window.padding == window.same_padding(height, width):
        return x, "SAME"
    if any(window.padding):
        top, bottom, left, right = window.padding
        margins = [[0, 0], [top, bottom], [left, right], [0, 0]]
        x = tf.pad(x, margins, constant_values=outside)
    return x, "VALID"
