"""Tiny real models for tests: one convolution, a mean and a dense layer, as TFLite and as ONNX.

They are written with the official schema classes, so no converter is needed and a model takes
milliseconds. The weights come from a seed: the same arguments give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 5


def tflite_conv(
    path: Path,
    *,
    size: int = 16,
    channels: int = 8,
    seed: int = 0,
    depth: int = 1,
    signature: tuple[int, ...] | None = None,
) -> Path:
    """Write `depth` 3x3 convolutions with RELU6, a mean and a dense layer, float32, NHWC.

    `signature` is the shape of the input with -1 for what the file leaves open.
    """
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    from scripts.tflite_maker import TFLiteFile

    rng, file = np.random.default_rng(seed), TFLiteFile()

    def weights(name: str, *shape: int) -> int:
        return file.constant(name, rng.normal(0, 0.2, shape), "float32")

    given, width = signature or (1, size, size, 3), 3
    x = source = file.tensor("x", [max(1, n) for n in given], signature=signature)
    window = {"strideW": 1, "strideH": 1, "fusedActivationFunction": ActivationFunctionType.RELU6}
    for layer in range(depth):
        kernel = weights(f"w{layer}", channels, 3, 3, width)
        bias = weights(f"b{layer}", channels)
        target = file.tensor(f"y{layer}", (1, size, size, channels))
        file.op("CONV_2D", [source, kernel, bias], [target], ("Conv2DOptions", window))
        source, width = target, channels
    axes, pooled = file.constant("axes", np.int32([1, 2])), file.tensor("pooled", (1, width))
    file.op("MEAN", [source, axes], [pooled], ("ReducerOptions", {}))
    dense = [pooled, weights("wd", CLASSES, width), weights("bd", CLASSES)]
    logits = file.tensor("logits", (1, CLASSES))
    file.op("FULLY_CONNECTED", dense, [logits], ("FullyConnectedOptions", {}))
    path.write_bytes(file.content([x], [logits]))
    return path


def with_custom_op(source: Path, target: Path, name: str = "Foo") -> Path:
    """Write a copy of a TFLite file whose first op is a custom op of this name."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name
    for op in model.subgraphs[0].operators:
        if op.opcodeIndex == 0:
            op.builtinOptionsType, op.builtinOptions = 0, None
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def onnx_conv(
    path: Path,
    *,
    size: int = 16,
    channels: int = 8,
    seed: int = 0,
    shape: tuple[int | str | None, ...] | None = None,
) -> Path:
    """Write one 3x3 convolution with RELU, a global mean and a dense layer, float32, NCHW.

    `shape` is that of the input in the file, with names or None for what it leaves open.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)

    batch = None if shape else 1
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "wd", "bd"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or [1, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [
            constant("w", channels, 3, 3, 3),
            constant("b", channels),
            constant("wd", CLASSES, channels),
            constant("bd", CLASSES),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def onnx_of_shapes(path: Path) -> Path:
    """Write a model that runs on few values of its integer input: x (1, 4), shape (2) = 2 2."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["square"]),
        helper.make_node("MatMul", ["square", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shapes",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path
