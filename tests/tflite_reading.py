"""Reading TFLite files and holding what is read against LiteRT: what several tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from models.execute import execute_all
from models.integer import integer_outputs, integer_reals
from models.model import Model
from pipeline.formats.tflite.file import parse
from pipeline.formats.tflite.read import read_tflite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Array = np.ndarray[Any, Any]


def run(
    content: bytes, inputs: Sequence[Array], *, plain: bool = True, reference: bool = False
) -> list[Array]:
    """Run a file in LiteRT on arrays as the file takes them; return its outputs in order.

    Args:
        content: the file's.
        inputs: in the order of the file's.
        plain: by TensorFlow Lite's own kernels; otherwise with XNNPACK.
        reference: by its reference kernels, which compute the same on every processor.
    """
    resolver = OpResolverType.AUTO
    if plain:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if reference:
        resolver = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=resolver
    )
    for item, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.resize_tensor_input(item["index"], value.shape)
    interpreter.allocate_tensors()
    for item, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(item["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]


def model_of(source: bytes | Path, **shapes: tuple[int, ...]) -> Model:
    model = read_tflite(source, shapes)
    assert isinstance(model, Model), model.sentence
    return model


def real_outputs(model: Model, inputs: Sequence[Array]) -> list[Array]:
    """Compute a model by our arithmetic on real inputs; return its outputs, both in its order."""
    coded = model.quantization is not None and model.number_format.is_static
    names = [tensor.name for tensor in model.graph.inputs]
    found = (integer_reals if coded else execute_all)(model, dict(zip(names, inputs, strict=True)))
    return [found[name] for name in model.graph.outputs]


def fed(model: Model, content: bytes, seed: int = 0) -> tuple[list[Array], dict[str, Array]]:
    """Return a sample as the file takes it, and its real numbers by their names in the graph."""
    file, rng = parse(content), np.random.default_rng(seed)
    raw, real = [], {}
    for number, tensor in zip(file.inputs, model.graph.inputs, strict=True):
        end = file.tensors[number]
        if tensor.dtype != "float32":
            values = rng.integers(0, 20, tensor.shape).astype(tensor.dtype)
        else:
            values = rng.normal(0, 1.5, tensor.shape).astype(np.float32)
        if end.quantized:
            scale, zero = end.scales[0], int(end.zero_points[0])
            limits = np.iinfo(end.dtype)
            codes = rng.integers(limits.min, limits.max, tensor.shape, end.dtype, endpoint=True)
            raw.append(codes)
            values = (codes.astype(np.float32) - zero) * scale
        else:
            raw.append(values)
        real[tensor.name] = values
    return raw, real


def steps_apart(model: Model, content: bytes, *, plain: bool = True) -> list[Array]:
    """Return how far integer arithmetic lies from LiteRT, in steps of each output."""
    raw, real = fed(model, content)
    quantization = model.quantization
    assert quantization is not None
    ours = integer_outputs(model, real)
    apart = []
    for name, codes in zip(model.graph.outputs, run(content, raw, plain=plain), strict=True):
        found, expected = ours[name].astype(np.float64), codes.astype(np.float64)
        params = quantization.tensors.get(name)
        if params is None:
            apart.append(np.abs(found - expected))
            continue
        # Either may be codes or what they mean; unsigned ones count from another end.
        if codes.dtype.kind in "iu":
            expected -= 128 if codes.dtype == np.uint8 else 0
            expected = (expected - params.zero_point) * params.scale
        if ours[name].dtype.kind == "i":
            found = (found - params.zero_point) * params.scale
        elif codes.dtype.kind in "iu":  # of an op that computes with real numbers
            found = params.dequantize(params.quantize(found)).astype(np.float64)
        apart.append(np.abs(found - expected) / params.scale)
    return apart
