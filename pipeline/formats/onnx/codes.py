"""Codes in an ONNX file: what turns real numbers into them and back.

Activations are uint8, whose zero point is 128 above that of the same codes as int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.codes import QParams
    from pipeline.formats.onnx.file_builder import FileBuilder


def quantize(file: FileBuilder, name: str, value: str, params: QParams, scale: str) -> str:
    """Pass a value through QuantizeLinear and DequantizeLinear; `scale` names whose scale it is."""
    scales = _add_scale(file, scale, params)
    code = file.node("QuantizeLinear", [value, *scales], f"{name}.code")
    return file.node("DequantizeLinear", [code, *scales], f"{name}.real")


def add_codes(
    file: FileBuilder,
    name: str,
    value: npt.NDArray[np.float32],
    params: QParams,
    *,
    real: str,
    scale: str,
) -> str:
    """Add real numbers as codes, and their DequantizeLinear named `real`; return that."""
    inputs = [file.constant(name, to_unsigned(params.quantize(value)))]
    inputs += _add_scale(file, scale, params)
    return file.node("DequantizeLinear", inputs, real)


def add_weight_codes(
    file: FileBuilder,
    name: str,
    codes: npt.NDArray[Any],
    scales: npt.NDArray[np.float32],
    zero_point: int = 0,
    *,
    channel_axis: int = 0,
) -> str:
    """Add codes, with a scale for each channel or with one, and their DequantizeLinear."""
    axis = {"axis": channel_axis} if len(scales) == codes.shape[channel_axis] else {}
    scales = scales if axis else scales.reshape(())
    zeros = np.full(scales.shape, zero_point, codes.dtype)
    inputs = [file.constant(name, codes), file.constant(f"{name}.scale", scales)]
    inputs.append(file.constant(f"{name}.zero", zeros))
    return file.node("DequantizeLinear", inputs, f"{name}.real", **axis)


def add_real_bias(file: FileBuilder, name: str, bias: npt.NDArray[np.float32]) -> str:
    """Add the bias of a layer that stays real between codes: itself, but for the last of 31 bits.

    onnxruntime makes int8 weights, with one scale, of a real layer between codes whose bias is an
    initializer (WeightBiasQuantization); it leaves one alone whose bias is not.
    """
    scale = np.float32(np.abs(bias).max() / 2**30) or np.float32(1)
    codes = np.rint(bias.astype(np.float64) / scale).astype(np.int32)
    return add_weight_codes(file, name, codes, np.array([scale], np.float32))


def to_unsigned(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return the same numbers as uint8 codes, whose zero point is 128 higher."""
    return (codes.astype(np.int16) + 128).astype(np.uint8)


def _add_scale(file: FileBuilder, name: str, params: QParams) -> list[str]:
    """Add a tensor's scale and zero point, once; return their names."""
    zero = to_unsigned(np.array(params.zero_point, np.int8))
    return [
        file.constant(f"{name}.scale", np.array(params.scale, np.float32)),
        file.constant(f"{name}.zero", zero),
    ]
