"""TFLite files of one op each, for readers: sizes are never square. See `scripts.tflite_maker`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.schema_py_generated import (
    ActivationFunctionType,
    MirrorPadMode,
    Padding,
    TensorType,
)

from scripts.tflite_maker import TFLiteFile

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)
SAME, VALID = Padding.SAME, Padding.VALID
RELU, RELU6 = ActivationFunctionType.RELU, ActivationFunctionType.RELU6
RELU_N1_TO_1 = ActivationFunctionType.RELU_N1_TO_1


@dataclass
class Fed:
    """An input of the file."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = -3.0
    high: float = 3.0

    def sample(self, rng: np.random.Generator) -> Array:
        values = rng.uniform(self.low, self.high, self.shape)
        return values > 0 if self.dtype == "bool" else values.astype(self.dtype)


@dataclass
class Case:
    """A file of one op: what it reads (arrays are constants, None is left out), what it has."""

    kind: str
    reads: list[Any]
    options: tuple[str, Mapping[str, Any]] | None = None
    out: str | list[str] = "float32"
    version: int = 1

    def build(self) -> tuple[bytes, list[Fed]]:
        file, fed, reads = TFLiteFile(), [], []
        for place, read in enumerate(self.reads):
            if read is None:
                reads.append(-1)
            elif isinstance(read, Fed):
                reads.append(file.tensor(f"x{place}", read.shape, read.dtype))
                fed.append((reads[-1], read))
            else:
                reads.append(file.constant(f"c{place}", read))
        kinds = [self.out] if isinstance(self.out, str) else self.out
        outputs = [file.tensor(f"y{place}", (), kind) for place, kind in enumerate(kinds)]
        file.op(self.kind, reads, outputs, self.options, version=self.version)
        return file.content([number for number, _ in fed], outputs), [each for _, each in fed]


def real(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def ints(*values: Any) -> Array:
    return np.array(values, np.int32)


def steps(padding: int, down: int, across: int, **more: Any) -> dict[str, Any]:
    return {"padding": padding, "strideH": down, "strideW": across, **more}


def conv(padding: int, *, stride: tuple[int, int] = (1, 1), act: int = 0, **more: Any) -> Any:
    dilation = more.pop("dilation", (1, 1))
    fields = steps(padding, *stride, fusedActivationFunction=act, **more)
    fields |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
    return ("DepthwiseConv2DOptions" if "depthMultiplier" in more else "Conv2DOptions", fields)


def pool(padding: int, kernel: tuple[int, int], stride: tuple[int, int], act: int = 0) -> Any:
    fields = steps(padding, *stride, fusedActivationFunction=act)
    return "Pool2DOptions", {**fields, "filterHeight": kernel[0], "filterWidth": kernel[1]}


def act(name: str, number: int = 0) -> Any:
    return f"{name}Options", {"fusedActivationFunction": number}


def strided(**masks: int) -> Any:
    names = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")
    return "StridedSliceOptions", {name: masks.get(name, 0) for name in names}


MAP = Fed((1, 9, 14, 6))
ROW = Fed((1, 5, 7))
CONVOLUTIONS = {
    "conv same": Case("CONV_2D", [MAP, real(4, 3, 5, 6), real(4)], conv(SAME, stride=(2, 3))),
    "conv valid relu6": Case("CONV_2D", [MAP, real(4, 3, 5, 6), real(4)], conv(VALID, act=RELU6)),
    "conv dilated": Case("CONV_2D", [MAP, real(4, 3, 2, 6), real(4)], conv(SAME, dilation=(2, 3))),
    "conv of one": Case("CONV_2D", [MAP, real(4, 1, 1, 6), real(4)], conv(VALID)),
    "conv grouped": Case(
        "CONV_2D", [MAP, real(4, 3, 2, 3), real(4)], conv(SAME, act=RELU), version=6
    ),
    "conv to -1..1": Case(
        "CONV_2D", [MAP, real(4, 3, 2, 6), real(4)], conv(SAME, act=RELU_N1_TO_1)
    ),
    "depthwise": Case(
        "DEPTHWISE_CONV_2D",
        [MAP, real(1, 3, 5, 6), real(6)],
        conv(SAME, stride=(2, 2), depthMultiplier=1, act=RELU),
    ),
    "depthwise multiplied, dilated": Case(
        "DEPTHWISE_CONV_2D",
        [MAP, real(1, 3, 2, 12), real(12)],
        conv(VALID, depthMultiplier=2, dilation=(2, 3)),
        version=2,
    ),
    **{
        f"deconv {name}": Case(
            "TRANSPOSE_CONV",
            [ints(1, *size, 4), real(4, *kernel, 6), MAP, *bias],
            ("TransposeConvOptions", steps(padding, *stride, fusedActivationFunction=fused)),
            version=version,
        )
        for name, size, kernel, padding, stride, bias, fused, version in (
            ("same", (18, 42), (3, 5), SAME, (2, 3), [], 0, 1),
            ("same odd", (17, 41), (3, 5), SAME, (2, 3), [real(4)], 0, 3),
            ("valid", (19, 44), (3, 5), VALID, (2, 3), [real(4)], RELU, 4),
            ("valid gaps", (17, 41), (1, 2), VALID, (2, 3), [real(4)], 0, 3),
            ("valid with extra", (20, 46), (3, 5), VALID, (2, 3), [real(4)], 0, 3),
        )
    },
}
DENSE = {
    "dense": Case(
        "FULLY_CONNECTED", [Fed((1, 7)), real(3, 7), real(3)], act("FullyConnected", RELU)
    ),
    "dense of a map": Case(
        "FULLY_CONNECTED", [Fed((1, 2, 3, 5)), real(4, 30), real(4)], act("FullyConnected")
    ),
    "dense keeps dimensions": Case(
        "FULLY_CONNECTED",
        [ROW, real(4, 7), real(4)],
        ("FullyConnectedOptions", {"keepNumDims": True}),
        version=5,
    ),
    "dense without bias": Case(
        "FULLY_CONNECTED", [Fed((1, 7)), real(3, 7), None], act("FullyConnected"), version=6
    ),
    "dense of computed weights": Case(
        "FULLY_CONNECTED", [Fed((1, 7)), Fed((3, 7)), real(3)], act("FullyConnected", RELU)
    ),
    "matmul": Case("BATCH_MATMUL", [ROW, Fed((1, 7, 4))], ("BatchMatMulOptions", {})),
    "matmul turned": Case(
        "BATCH_MATMUL",
        [Fed((1, 2, 7, 5)), Fed((2, 4, 7))],
        ("BatchMatMulOptions", {"adjX": True, "adjY": True}),
    ),
    "matmul of a constant": Case("BATCH_MATMUL", [ROW, real(7, 4)], ("BatchMatMulOptions", {})),
    "matmul of constants turned": Case(
        "BATCH_MATMUL", [ROW, real(1, 4, 7)], ("BatchMatMulOptions", {"adjY": True})
    ),
}
POOLS = {
    **{
        f"{kind} {name}": Case(kind, [MAP], pool(padding, (3, 2), stride, fused))
        for kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D")
        for name, padding, stride, fused in (
            ("same", SAME, (2, 3), 0),
            ("valid", VALID, (1, 2), RELU if kind != "L2_POOL_2D" else 0),
        )
    },
    **{
        f"{kind} {axes} {keep}": Case(
            kind, [MAP, ints(*axes)], ("ReducerOptions", {"keepDims": keep})
        )
        for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
        for axes, keep in (((1, 2), True), ((1, 2), False), ((-1,), False), ((2, 3), True))
    },
    "any": Case("REDUCE_ANY", [Fed((1, 4, 3), "bool"), ints(1)], ("ReducerOptions", {}), "bool"),
    "all": Case("REDUCE_ALL", [Fed((1, 4, 3), "bool"), ints(2)], ("ReducerOptions", {}), "bool"),
    "argmax": Case(
        "ARG_MAX", [MAP, ints(-1)], ("ArgMaxOptions", {"outputType": TensorType.INT32}), "int32"
    ),
    "argmin": Case(
        "ARG_MIN",
        [MAP, np.array(2, np.int32)],
        ("ArgMinOptions", {"outputType": TensorType.INT64}),
        "int64",
    ),
}
_FUNCTIONS = ("ABS", "NEG", "EXP", "SQUARE", "SIN", "COS", "FLOOR", "CEIL", "ROUND", "SIGN")
ARITHMETIC = {
    **{
        f"{kind} {name}": Case(kind, [first, second], options)
        for kind, options in (
            ("ADD", act("Add", RELU6)),
            ("SUB", act("Sub", RELU)),
            ("MUL", act("Mul", RELU_N1_TO_1)),
            ("DIV", act("Div")),
            ("MAXIMUM", ("MaximumMinimumOptions", {})),
            ("MINIMUM", ("MaximumMinimumOptions", {})),
            ("SQUARED_DIFFERENCE", ("SquaredDifferenceOptions", {})),
        )
        for name, first, second in (
            ("both", MAP, Fed((1, 1, 14, 1), low=0.5)),
            ("a constant", MAP, real(6) + np.float32(4)),
            ("before", real(14, 1), Fed((1, 9, 14, 6), low=0.5)),
            ("a number", MAP, np.float32(1.5)),
            ("lower rank", MAP, Fed((14, 6), low=0.5)),
        )
    },
    "add of integers": Case(
        "ADD", [Fed((1, 5), "int32"), ints(1, 2, 3, 4, 5)], act("Add"), "int32"
    ),
    "pow": Case("POW", [Fed((1, 5), low=0.1), real(1, 5)], ("PowOptions", {})),
    "floordiv": Case("FLOOR_DIV", [Fed((1, 5)), Fed((1, 5), low=0.5)], ("FloorDivOptions", {})),
    "mod": Case("FLOOR_MOD", [Fed((1, 5)), Fed((1, 5), low=0.5)], ("FloorModOptions", {})),
    "add_n": Case("ADD_N", [Fed((1, 5)), Fed((1, 5)), real(1, 5)], ("AddNOptions", {})),
    **{kind.lower(): Case(kind, [MAP]) for kind in _FUNCTIONS},
    **{kind.lower(): Case(kind, [Fed((1, 4, 5), low=0.1)]) for kind in ("LOG", "SQRT", "RSQRT")},
    "not": Case("LOGICAL_NOT", [Fed((1, 5), "bool")], None, "bool"),
    **{
        kind.lower(): Case(kind, [Fed((1, 4, 5), "bool"), Fed((1, 4, 5), "bool")], None, "bool")
        for kind in ("LOGICAL_AND", "LOGICAL_OR")
    },
    **{
        kind.lower(): Case(kind, [Fed((1, 4, 5), "int32"), ints(*range(-2, 3))], None, "bool")
        for kind in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
    },
    "select": Case("SELECT", [Fed((3,), "bool"), Fed((3, 4)), Fed((3, 4))], ("SelectOptions", {})),
    "select_v2": Case(
        "SELECT_V2", [Fed((1, 9, 1, 1), "bool"), MAP, real(6)], ("SelectV2Options", {})
    ),
    "cast": Case("CAST", [Fed((1, 7), "int32")], ("CastOptions", {})),
    "cast of pixels": Case("CAST", [Fed((1, 7), "uint8", 0, 255)], ("CastOptions", {})),
    "cast to integers": Case("CAST", [Fed((1, 7))], ("CastOptions", {}), "int32"),
}
ACTIVATIONS = {
    **{
        kind.lower(): Case(kind, [MAP])
        for kind in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "ELU")
    },
    "hardswish": Case("HARD_SWISH", [Fed((1, 5, 7), low=-5, high=5)]),
    "gelu": Case("GELU", [MAP], ("GeluOptions", {"approximate": False})),
    "gelu_tanh": Case("GELU", [MAP], ("GeluOptions", {"approximate": True})),
    "leaky": Case("LEAKY_RELU", [MAP], ("LeakyReluOptions", {"alpha": 0.3})),
    "prelu": Case("PRELU", [MAP, real(1, 1, 6)]),
    "prelu whole": Case("PRELU", [MAP, real(9, 14, 6)]),
    "softmax": Case("SOFTMAX", [ROW], ("SoftmaxOptions", {"beta": 1.0})),
    "softmax sharper": Case("SOFTMAX", [ROW], ("SoftmaxOptions", {"beta": 2.5})),
    "logsoftmax": Case("LOG_SOFTMAX", [ROW], ("LogSoftmaxOptions", {})),
    "l2norm": Case("L2_NORMALIZATION", [MAP], act("L2Norm")),
}
SHAPING = {
    "reshape": Case(
        "RESHAPE", [MAP, ints(1, -1, 12)], ("ReshapeOptions", {"newShape": [1, -1, 12]})
    ),
    "reshape by options": Case("RESHAPE", [MAP], ("ReshapeOptions", {"newShape": [1, 14, 54]})),
    "squeeze": Case("SQUEEZE", [Fed((1, 1, 5, 1))], ("SqueezeOptions", {"squeezeDims": [-1, 1]})),
    "squeeze all": Case("SQUEEZE", [Fed((1, 1, 5, 3))], ("SqueezeOptions", {"squeezeDims": []})),
    "expand": Case("EXPAND_DIMS", [ROW, np.array(-2, np.int32)], ("ExpandDimsOptions", {})),
    "transpose": Case("TRANSPOSE", [MAP, ints(0, 3, 1, 2)], ("TransposeOptions", {})),
    "concat": Case(
        "CONCATENATION",
        [MAP, real(1, 9, 14, 2), Fed((1, 9, 14, 3))],
        ("ConcatenationOptions", {"axis": -1}),
    ),
    "pack": Case(
        "PACK", [ROW, Fed((1, 5, 7)), real(1, 5, 7)], ("PackOptions", {"valuesCount": 3, "axis": 2})
    ),
    "unpack": Case(
        "UNPACK", [Fed((1, 3, 7))], ("UnpackOptions", {"num": 3, "axis": 1}), ["float32"] * 3
    ),
    "split": Case(
        "SPLIT", [np.array(3, np.int32), MAP], ("SplitOptions", {"numSplits": 3}), ["float32"] * 3
    ),
    "split_v": Case(
        "SPLIT_V",
        [MAP, ints(5, -1, 2), np.array(-2, np.int32)],
        ("SplitVOptions", {"numSplits": 3}),
        ["float32"] * 3,
    ),
    "slice": Case("SLICE", [MAP, ints(0, 2, 3, 0), ints(1, 4, -1, 5)], ("SliceOptions", {})),
    "strided": Case(
        "STRIDED_SLICE", [MAP, ints(0, 1, -9, 0), ints(1, -2, 13, 6), ints(1, 2, 3, 1)], strided()
    ),
    "strided masks": Case(
        "STRIDED_SLICE",
        [MAP, ints(0, 4, 2), ints(0, 0, 5), ints(1, 1, 1)],
        strided(beginMask=1, endMask=3, ellipsisMask=0),
    ),
    "strided ellipsis": Case(
        "STRIDED_SLICE", [MAP, ints(0, 2), ints(0, 5), ints(1, 2)], strided(ellipsisMask=1)
    ),
    "strided shrinks": Case(
        "STRIDED_SLICE",
        [MAP, ints(0, -2, 0, -1), ints(1, 0, 14, 0), ints(1, 1, 1, 1)],
        strided(shrinkAxisMask=2 + 8),
    ),
    "strided new axis": Case(
        "STRIDED_SLICE", [ROW, ints(0, 0, 1), ints(1, 0, 4), ints(1, 1, 1)], strided(newAxisMask=2)
    ),
    "strided backwards": Case(
        "STRIDED_SLICE", [ROW, ints(0, 0, 6), ints(1, 5, 1), ints(1, 1, -2)], strided()
    ),
    "pad": Case("PAD", [MAP, ints((0, 0), (1, 2), (3, 0), (0, 1))], ("PadOptions", {})),
    "padv2": Case(
        "PADV2",
        [MAP, ints((0, 0), (1, 2), (3, 0), (0, 1)), np.array([1.5], np.float32)],
        ("PadV2Options", {}),
    ),
    "pad reflect": Case(
        "MIRROR_PAD",
        [MAP, ints((0, 0), (1, 2), (3, 0), (0, 0))],
        ("MirrorPadOptions", {"mode": MirrorPadMode.REFLECT}),
    ),
    "pad symmetric": Case(
        "MIRROR_PAD",
        [MAP, ints((0, 0), (1, 2), (3, 0), (0, 0))],
        ("MirrorPadOptions", {"mode": MirrorPadMode.SYMMETRIC}),
    ),
    **{
        f"{kind} {name}": Case(
            kind,
            [MAP, ints(*size)],
            (options, {"alignCorners": corners, "halfPixelCenters": half}),
            version=3,
        )
        for kind, options in (
            ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
            ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        )
        for name, size, corners, half in (
            ("asymmetric", (18, 20), False, False),
            ("half", (13, 31), False, True),
            ("half smaller", (4, 7), False, True),
            ("corners", (17, 20), True, False),
        )
    },
    "gather": Case("GATHER", [MAP, ints(3, 0, 3, 5)], ("GatherOptions", {"axis": 3})),
    "embedding": Case(
        "GATHER", [real(11, 4), Fed((1, 5), "int32", 0, 10)], ("GatherOptions", {"axis": 0})
    ),
    "embedding lookup": Case("EMBEDDING_LOOKUP", [Fed((5,), "int32", 0, 10), real(11, 4)]),
    "reverse both": Case("REVERSE_V2", [MAP, ints(2, 1)], ("ReverseV2Options", {})),
    "strided backwards and shrunk": Case(
        "STRIDED_SLICE",
        [MAP, ints(0, 8, 12, 2), ints(1, 0, 1, 3), ints(1, -2, -3, 1)],
        strided(shrinkAxisMask=1 + 8),
    ),
    "reverse": Case("REVERSE_V2", [MAP, ints(2)], ("ReverseV2Options", {})),
    "tile": Case("TILE", [ROW, ints(1, 2, 3)], ("TileOptions", {})),
    "broadcast": Case(
        "BROADCAST_TO", [Fed((5, 1)), ints(1, 2, 5, 3)], ("BroadcastToOptions", {}), version=2
    ),
    "space to depth": Case(
        "SPACE_TO_DEPTH", [Fed((1, 4, 6, 3))], ("SpaceToDepthOptions", {"blockSize": 2})
    ),
    "depth to space": Case(
        "DEPTH_TO_SPACE", [Fed((1, 4, 6, 12))], ("DepthToSpaceOptions", {"blockSize": 2})
    ),
    "space to batch": Case(
        "SPACE_TO_BATCH_ND",
        [Fed((1, 5, 7, 2)), ints(2, 3), ints((1, 0), (1, 1))],
        ("SpaceToBatchNDOptions", {}),
    ),
    "batch to space": Case(
        "BATCH_TO_SPACE_ND",
        [Fed((6, 3, 4, 2)), ints(2, 3), ints((1, 0), (0, 2))],
        ("BatchToSpaceNDOptions", {}),
    ),
    "one hot": Case(
        "ONE_HOT",
        [
            Fed((1, 4), "int32", 0, 6),
            np.array(6, np.int32),
            np.array(2.0, np.float32),
            np.array(-1.0, np.float32),
        ],
        ("OneHotOptions", {"axis": 1}),
    ),
}
CASES = {**CONVOLUTIONS, **DENSE, **POOLS, **ARITHMETIC, **ACTIVATIONS, **SHAPING}


def negated(*shape: int, signature: tuple[int, ...] | None = None, outputs: int = 1) -> bytes:
    """A file that gives its only input negated, as many times as is said."""
    file = TFLiteFile()
    x = file.tensor("x", shape, signature=signature)
    made = [file.tensor(f"y{n}", shape) for n in range(outputs)]
    for number in made:
        file.op("NEG", [x], [number])
    return file.content([x], made)
