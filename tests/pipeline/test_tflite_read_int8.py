"""Ops of int8 TFLite files: integer arithmetic gives the codes that LiteRT gives, or the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.codes import QParams
from models.integer import integer_outputs
from models.model import Model
from pipeline.formats.tflite.read import read_tflite
from scripts.tflite_maker import TFLiteFile
from tests.tflite_cases import CASES, Case, Fed
from tests.tflite_reading import run

Array = np.ndarray[Any, Any]

LAYERS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}
"""Kind -> the axis of its weight that holds output channels."""
FIXED = {
    "LOGISTIC": QParams(1 / 256, -128),
    "TANH": QParams(1 / 128, 0),
    "SOFTMAX": QParams(1 / 256, -128),
    "LOG_SOFTMAX": QParams(16 / 256, 127),
    "L2_NORMALIZATION": QParams(1 / 128, 0),
}
# Kernels want one scale for all that these read and give.
KEEPING = {
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "REDUCE_MAX", "REDUCE_MIN", "MAXIMUM", "MINIMUM"),
    *("SELECT", "SELECT_V2", "RELU_N1_TO_1", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"),
    *("CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "PAD"),
    *("PADV2", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "GATHER", "TILE"),
    *("REVERSE_V2", "BROADCAST_TO", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"),
    *("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
}
# Of codes LiteRT has no kernel for these (or none that rounds: it turns -128 into another sign).
NO_KERNEL = {
    *("L2_POOL_2D", "POW", "FLOOR_DIV", "FLOOR_MOD", "ADD_N", "SQUARE", "SIN", "COS", "FLOOR"),
    *("CEIL", "ROUND", "SIGN", "CAST", "EMBEDDING_LOOKUP", "ONE_HOT", "NEG"),
}
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "TRANSPOSE_CONV": 2} | {
    "BATCH_MATMUL": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3,
    "RESIZE_BILINEAR": 3,
}
# Where a kernel itself rounds to ten bits first.
COARSE = {"RESIZE_BILINEAR": 3}
# LiteRT divides one code by a large number to the least code, and rounds a product of 84 values
# after each factor.
FAULTS = {"DIV both", "DIV lower rank", "REDUCE_PROD (2, 3) True"}


def floats(case: Case) -> bool:
    reads = [read for read in case.reads if read is not None]
    kinds = {read.dtype if isinstance(read, Fed) else str(read.dtype) for read in reads}
    made = {case.out} if isinstance(case.out, str) else set(case.out)
    return "float32" in kinds & made and case.kind not in NO_KERNEL


NAMES = [name for name, case in CASES.items() if floats(case) and name not in FAULTS]


def range_of(*values: Array) -> QParams:
    return QParams.of_range(min(v.min() for v in values), max(v.max() for v in values))


class Int8:
    """A case whose real numbers are codes, in scales that LiteRT's float results suggest."""

    def __init__(self, case: Case) -> None:
        self.case, self.file = case, TFLiteFile()
        self.layer = case.kind in LAYERS
        rng = np.random.default_rng(1)
        content, fed = case.build()
        self.samples = [each.sample(rng) for each in fed]
        self.results = run(content, self.samples)
        constants = [read for read in case.reads if isinstance(read, np.ndarray)]
        real = [v for v in (*self.samples, *constants) if v.dtype == np.float32]
        self.shared = range_of(*real) if case.kind in KEEPING else None
        self.scales: list[float] = []
        self.given: list[tuple[int, Array]] = []

    def content(self) -> bytes:
        """Return the file."""
        case, left = self.case, list(self.samples)
        reads = []
        for place, read in enumerate(case.reads):
            if read is None:
                reads.append(-1)
            elif isinstance(read, Fed):
                reads.append(self.fed(f"x{place}", left.pop(0)))
            elif read.dtype != np.float32:
                reads.append(self.file.constant(f"c{place}", read))
            elif self.layer:
                reads.append(self.parameter(f"c{place}", read))
            else:
                params = self.shared or range_of(read)
                reads.append(self.tensor(f"c{place}", read.shape, params, params.quantize(read)))
        outputs = []
        for place, result in enumerate(self.results):
            params = FIXED.get(case.kind) or self.shared or range_of(result)
            if result.dtype == np.float32:
                outputs.append(self.tensor(f"y{place}", result.shape, params))
            else:
                outputs.append(self.file.tensor(f"y{place}", result.shape, str(result.dtype)))
        version = max(case.version, VERSIONS.get(case.kind, 1))
        self.file.op(case.kind, reads, outputs, case.options, version=version)
        return self.file.content([number for number, _ in self.given], outputs)

    def fed(self, name: str, sample: Array) -> int:
        """Add an input; what it takes are codes in their whole range."""
        if sample.dtype != np.float32:
            number, taken = self.file.tensor(name, sample.shape, str(sample.dtype)), sample
        elif self.layer and self.scales:  # a weight
            params = QParams(float(np.abs(sample).max()) / 127, 0)
            number, taken = self.tensor(name, sample.shape, params), params.quantize(sample)
            self.scales.append(params.scale)
        else:
            params = self.shared or range_of(sample)
            number, taken = self.tensor(name, sample.shape, params), params.quantize(sample)
            self.scales.append(params.scale)
        self.given.append((number, taken))
        return number

    def parameter(self, name: str, value: Array) -> int:
        """Add a layer's weight, or its bias in the scales of its sums."""
        if value.ndim == 1:
            unit = np.float32(self.scales[0]) * np.float32(self.scales[1])
            codes = np.rint(value / unit).astype(np.int32)
            return self.file.tensor(name, value.shape, "int32", data=codes, scale=float(unit))
        scale = float(np.abs(value).max()) / 127
        # The input of a transposed convolution comes after its weight.
        self.scales.append(scale)
        channels = value.shape[LAYERS[self.case.kind]]
        several = [scale] * channels if self.case.kind != "FULLY_CONNECTED" else scale
        codes = np.rint(value / np.float32(scale)).astype(np.int8)
        axis = LAYERS[self.case.kind]
        return self.file.tensor(name, value.shape, "int8", data=codes, scale=several, axis=axis)

    def tensor(
        self, name: str, shape: tuple[int, ...], params: QParams, codes: Array | None = None
    ) -> int:
        return self.file.tensor(
            name, shape, "int8", data=codes, scale=params.scale, zero_point=params.zero_point
        )


@pytest.mark.parametrize("name", NAMES)
def test_an_int8_op_gives_the_codes_that_litert_gives(name: str) -> None:
    made = Int8(CASES[name])
    content = made.content()
    model = read_tflite(content)
    assert isinstance(model, Model), model.sentence
    quantization = model.quantization
    assert quantization is not None
    inputs = {}
    for tensor, (_, codes) in zip(model.graph.inputs, made.given, strict=True):
        real = codes.dtype == np.int8 and tensor.name in quantization.tensors
        inputs[tensor.name] = quantization[tensor.name].dequantize(codes) if real else codes
    ours = integer_outputs(model, inputs)
    expected = run(content, [codes for _, codes in made.given])
    for output, wanted in zip(model.graph.outputs, expected, strict=True):
        found = ours[output]
        assert found.shape == wanted.shape
        if wanted.dtype == np.int8 and found.dtype == np.float32:  # of a float step in between
            found = quantization[output].quantize(found)
        apart = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
        assert apart.max() <= COARSE.get(CASES[name].kind, 1)
        assert apart.mean() <= 0.5
