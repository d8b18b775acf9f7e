"""Writes the golden models of `device_agents/golden`: the same call gives the same bytes.

    python -m scripts.make_golden [FOLDER]

Each op of a golden model takes the model's input and is an output of its own, so that a wrong
kernel is named by the output that is wrong. What is right is computed here with exact integers and
no runtime. The seed is fixed; the ops and their versions are those of files in the field.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.tflite_maker import TFLiteFile

FOLDER = Path(__file__).parent.parent / "device_agents" / "golden"

_SEED = 20_261_127
_SIDE, _IN, _OUT, _CLASSES = 6, 4, 8, 5
_X_SCALE, _X_ZERO = 0.05, -3
_Y_ZERO = 5
# onnxruntime adds two products of uint8 and int8 codes in int16 where an x86 CPU has no VNNI.
# Codes up to this never overflow there; the probe's do.
_NARROW = 63

Array = npt.NDArray[Any]


class Golden:
    """The numbers of both models: input codes, weight codes, scales, and what is right."""

    def __init__(self, largest_code: int) -> None:
        rng = np.random.default_rng(_SEED)

        def codes(*shape: int) -> Array:
            return rng.integers(-largest_code, largest_code, shape, np.int8, endpoint=True)

        def scales(count: int) -> Array:
            return rng.uniform(0.002, 0.02, count).astype(np.float32)

        self.x: Array = rng.integers(-128, 127, (_SIDE, _SIDE, _IN), np.int8, endpoint=True)
        self.conv = codes(_OUT, 3, 3, _IN), scales(_OUT), self._bias(rng, _OUT)
        self.depthwise = codes(3, 3, _IN), scales(_IN), self._bias(rng, _IN)
        self.dense = codes(_CLASSES, self.x.size), scales(_CLASSES), self._bias(rng, _CLASSES)
        self.added: Array = codes(_SIDE, _SIDE, _IN)

    def _bias(self, rng: np.random.Generator, count: int) -> Array:
        return rng.integers(-2000, 2000, count, np.int32)

    @property
    def centred(self) -> Array:
        """Input codes less their zero point, int64."""
        return self.x.astype(np.int64) - _X_ZERO

    def windows(self) -> Array:
        """Return (side, side, 3, 3, in): what a 3x3 kernel with padding 1 sees."""
        padded = np.pad(self.centred, ((1, 1), (1, 1), (0, 0)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        windows: Array = seen.transpose(0, 1, 3, 4, 2)
        return windows

    def conv_sums(self) -> Array:
        """Return the convolution's integer sums (side, side, out)."""
        weight, _, bias = self.conv
        sums: Array = np.einsum("hwklc,oklc->hwo", self.windows(), weight.astype(np.int64)) + bias
        return sums

    def depthwise_sums(self) -> Array:
        """Return the depthwise convolution's integer sums (side, side, in)."""
        weight, _, bias = self.depthwise
        sums: Array = np.einsum("hwklc,klc->hwc", self.windows(), weight.astype(np.int64)) + bias
        return sums

    def dense_sums(self) -> Array:
        """Return the dense layer's integer sums (classes,)."""
        weight, _, bias = self.dense
        return weight.astype(np.int64) @ self.centred.ravel() + bias


def out_scale(sums: Array, scales: Array) -> float:
    """Return a scale for which the results fill most of the codes."""
    return float(np.float32(np.abs(sums * scales.astype(np.float64) * _X_SCALE).max() / 120))


def rescaled(sums: Array, scales: Array | float, scale: float, *, zero: int = _Y_ZERO) -> Array:
    """Return int8 codes of sums whose unit is the input's scale times `scales`."""
    exact = sums * (np.asarray(scales, np.float64) * np.float64(np.float32(_X_SCALE)) / scale)
    codes: Array = np.clip(np.rint(exact) + zero, -128, 127).astype(np.int8)
    return codes


def _told(name: str, op: str, value: Array, tolerance: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "op": op,
        "dtype": value.dtype.name,
        "shape": list(value.shape),
        "data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
        "tolerance": tolerance,
        **more,
    }


def tflite() -> tuple[bytes, dict[str, Any]]:  # noqa: PLR0915  # one op after the other
    """Return the TFLite file, and its input with what its outputs must be."""
    golden, file = Golden(127), TFLiteFile()
    x_shape, ends = (1, _SIDE, _SIDE, _IN), []
    x = file.tensor("x", x_shape, "int8", scale=_X_SCALE, zero_point=_X_ZERO)
    real_x = np.float32(_X_SCALE) * golden.centred.astype(np.float64)
    told: list[dict[str, Any]] = []

    def output(name: str, op: str, value: Array, scale: float | None) -> int:
        shape = (1, *value.shape)
        if scale is None:
            index = file.tensor(name, shape)
        else:
            index = file.tensor(name, shape, "int8", scale=scale, zero_point=_Y_ZERO)
        ends.append(index)
        tolerance = 1.0 if scale is not None else 1e-3 * float(np.abs(value).max())
        told.append(_told(name, op, value, tolerance))
        return index

    def weights(name: str, codes: Array, scales: Array, bias: Array, axis: int = 0) -> list[int]:
        unit = np.float32(_X_SCALE) * scales
        return [
            x,
            file.tensor(f"{name}.w", codes.shape, "int8", data=codes, scale=scales, axis=axis),
            file.tensor(f"{name}.b", bias.shape, "int32", data=bias, scale=unit),
        ]

    codes, scales, bias = golden.conv
    sums, scale = golden.conv_sums(), out_scale(golden.conv_sums(), scales)
    target = output("conv", "int8 CONV_2D", rescaled(sums, scales, scale), scale)
    sources, window = weights("conv", *golden.conv), {"strideW": 1, "strideH": 1}
    file.op("CONV_2D", sources, [target], ("Conv2DOptions", window), version=3)

    codes, scales, bias = golden.depthwise
    sums, scale = golden.depthwise_sums(), out_scale(golden.depthwise_sums(), scales)
    target = output("depthwise", "int8 DEPTHWISE_CONV_2D", rescaled(sums, scales, scale), scale)
    options = "DepthwiseConv2DOptions", {**window, "depthMultiplier": 1}
    sources = weights("depthwise", codes[None], scales, bias, axis=3)
    file.op("DEPTHWISE_CONV_2D", sources, [target], options, version=3)

    codes, scales, bias = golden.dense
    for name, op, used in (
        ("dense", "int8 FULLY_CONNECTED with one scale", scales[:1]),
        ("dense_per_output", "int8 FULLY_CONNECTED with a scale per output", scales),
    ):
        sums, scale = golden.dense_sums(), out_scale(golden.dense_sums(), used)
        target = output(name, op, rescaled(sums, used, scale), scale)
        sources = weights(name, codes, used, bias)
        file.op("FULLY_CONNECTED", sources, [target], ("FullyConnectedOptions", {}), version=4)

    real = real_x + 0.03 * golden.added.astype(np.float64)
    scale = float(np.float32(np.abs(real).max() / 120))
    value = np.clip(np.rint(real / scale) + _Y_ZERO, -128, 127).astype(np.int8)
    other = file.tensor("added", x_shape, "int8", data=golden.added, scale=0.03)
    target = output("add", "int8 ADD", value, scale)
    file.op("ADD", [x, other], [target], ("AddOptions", {}), version=2)

    mean = real_x.mean(axis=(0, 1))
    scale = float(np.float32(np.abs(mean).max() / 120))
    value = np.clip(np.rint(mean / scale) + _Y_ZERO, -128, 127).astype(np.int8)
    axes = file.constant("axes", [1, 2], "int32")
    target = output("mean", "int8 MEAN", value, scale)
    file.op("MEAN", [x, axes], [target], ("ReducerOptions", {}), version=2)

    floats = file.tensor("floats", x_shape)
    file.op("DEQUANTIZE", [x], [floats], ("DequantizeOptions", {}), version=2)

    def constants(name: str, weight: Array, bias: Array) -> list[int]:
        parts = {"w": weight, "b": bias}
        return [floats, *(file.constant(f"{name}.{k}", v, "float32") for k, v in parts.items())]

    codes, scales, bias = golden.conv
    real = golden.conv_sums() * (np.float64(np.float32(_X_SCALE)) / 256)
    target = output("float_conv", "float32 CONV_2D", real.astype(np.float32), None)
    sources = constants("float_conv", codes / 256, bias * _X_SCALE / 256)
    file.op("CONV_2D", sources, [target], ("Conv2DOptions", window), version=3)

    codes, scales, bias = golden.dense
    real = golden.dense_sums() * (np.float64(np.float32(_X_SCALE)) / 256)
    target = output("float_dense", "float32 FULLY_CONNECTED", real.astype(np.float32), None)
    sources = constants("float_dense", codes / 256, bias * _X_SCALE / 256)
    file.op("FULLY_CONNECTED", sources, [target], ("FullyConnectedOptions", {}), version=4)
    content = file.content([x], ends)
    return content, {"inputs": [_told("x", "", golden.x[None], 0.0)], "outputs": told}


def onnx() -> tuple[bytes, dict[str, Any]]:  # noqa: PLR0915  # one op after the other
    """Return the ONNX file in QDQ form, and its input with what its outputs must be."""
    from onnx import TensorProto, helper, numpy_helper

    golden = Golden(_NARROW)
    nodes: list[Any] = []
    constants: list[Any] = []
    told: list[dict[str, Any]] = []
    ends: list[Any] = []

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def quantised(name: str, source: str, scale: float, zero: int, output: str) -> str:
        """Pass a tensor through the codes of uint8, which are int8's and 128."""
        told_by = [
            constant(f"{name}.scale", np.array(scale, np.float32)),
            constant(f"{name}.zero", np.array(zero + 128, np.uint8)),
        ]
        codes = node("QuantizeLinear", [source, *told_by], f"{name}.codes")
        return node("DequantizeLinear", [codes, *told_by], output)

    def dequantised(name: str, codes: Array, scales: Array) -> str:
        unit = constant(f"{name}.scale", scales if len(scales) > 1 else scales[0].reshape(()))
        zeros = constant(
            f"{name}.zero", np.zeros(scales.shape if len(scales) > 1 else (), codes.dtype)
        )
        axis = {"axis": 0} if len(scales) > 1 else {}
        return node(
            "DequantizeLinear", [constant(f"{name}.codes", codes), unit, zeros], name, **axis
        )

    def output(name: str, op: str, codes: Array, source: str, scale: float, **more: Any) -> None:
        quantised(name, source, scale, _Y_ZERO, name)
        value = ((codes.astype(np.float64) - _Y_ZERO) * scale).astype(np.float32)
        ends.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *value.shape]))
        told.append(_told(name, op, value, 1.01 * scale, **more))

    def weights(name: str, codes: Array, scales: Array, bias: Array) -> list[str]:
        unit = np.float32(_X_SCALE) * scales
        return [dequantised(f"{name}.w", codes, scales), dequantised(f"{name}.b", bias, unit)]

    x = quantised("input", "x", _X_SCALE, _X_ZERO, "input.real")
    # The pair must stand right before an op, or its float kernel is taken.
    flat = quantised("flat", node("Flatten", [x], "input.flat"), _X_SCALE, _X_ZERO, "flat.real")

    codes, scales, bias = golden.conv
    sums, scale = golden.conv_sums(), out_scale(golden.conv_sums(), scales)
    right = rescaled(sums, scales, scale).transpose(2, 0, 1)
    sources = [x, *weights("conv", codes.transpose(0, 3, 1, 2), scales, bias)]
    output("conv", "int8 Conv", right, node("Conv", sources, "conv.real", pads=[1] * 4), scale)

    codes, scales, bias = golden.depthwise
    sums, scale = golden.depthwise_sums(), out_scale(golden.depthwise_sums(), scales)
    right = rescaled(sums, scales, scale).transpose(2, 0, 1)
    sources = [x, *weights("depthwise", codes.transpose(2, 0, 1)[:, None], scales, bias)]
    result = node("Conv", sources, "depthwise.real", pads=[1] * 4, group=_IN)
    output("depthwise", "int8 Conv with groups (depthwise)", right, result, scale)

    # Gemm sees the channels first.
    codes, scales, bias = golden.dense
    first = codes.reshape(_CLASSES, _SIDE, _SIDE, _IN).transpose(0, 3, 1, 2)
    turned = first.reshape(_CLASSES, -1)
    for name, op, used in (
        ("dense", "int8 Gemm with one scale", scales[:1]),
        ("dense_per_output", "int8 Gemm with a scale per output", scales),
    ):
        sums, scale = golden.dense_sums(), out_scale(golden.dense_sums(), used)
        sources = [flat, *weights(name, turned, used, bias)]
        result = node("Gemm", sources, f"{name}.real", transB=1)
        output(name, op, rescaled(sums, used, scale), result, scale)

    # The largest codes of weights on the input as it is: neighbouring products of the large
    # activations go beyond int16, and their exact sum stays in range.
    wide = np.full_like(turned, 127)
    bias = -(127 * golden.centred.sum()) + np.arange(_CLASSES, dtype=np.int64) * 500 - 1000
    sums = 127 * golden.centred.sum() + bias
    used = np.array([0.01], np.float32)
    scale = out_scale(sums, used)
    sources = [flat, *weights("wide", wide, used, bias.astype(np.int32))]
    result = node("Gemm", sources, "wide.real", transB=1)
    output(
        "wide",
        "int8 Gemm with weight codes up to 127",
        rescaled(sums, used, scale),
        result,
        scale,
        saturation=True,
    )

    codes, scales, bias = golden.conv
    real = (golden.conv_sums() * (np.float64(np.float32(_X_SCALE)) / 256)).astype(np.float32)
    arrays = [
        constant("float.w", (codes.transpose(0, 3, 1, 2) / 256).astype(np.float32)),
        constant("float.b", (bias * _X_SCALE / 256).astype(np.float32)),
    ]
    node("Conv", ["x", *arrays], "float_conv", pads=[1] * 4)
    real = real.transpose(2, 0, 1)
    ends.append(helper.make_tensor_value_info("float_conv", TensorProto.FLOAT, [1, *real.shape]))
    told.append(_told("float_conv", "float32 Conv", real, 1e-3 * float(np.abs(real).max())))

    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _IN, _SIDE, _SIDE])
    body = helper.make_graph(nodes, "golden", [source], ends, constants)
    model = helper.make_model(
        body,
        producer_name="edgewright",
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    real_x = (np.float32(_X_SCALE) * golden.centred).astype(np.float32).transpose(2, 0, 1)[None]
    content: bytes = model.SerializeToString(deterministic=True)
    return content, {"inputs": [_told("x", "", real_x, 0.0)], "outputs": told}


def files() -> dict[str, bytes]:
    """Return the content of every file of the folder."""
    found: dict[str, bytes] = {}
    told = {}
    for runtime, (content, about) in {"tflite": tflite(), "onnx": onnx()}.items():
        found[f"golden.{runtime}"] = content
        told[runtime] = {"file": f"golden.{runtime}", **about}
    found["golden.json"] = (json.dumps(told, indent=1) + "\n").encode()
    return found


def main() -> int:
    """Write the files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)
        print(f"{folder / name}: {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
