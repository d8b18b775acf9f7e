"""Every op of ONNX that is read, with attributes of all kinds, against onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.onnx_cases import Case, check

if TYPE_CHECKING:
    from collections.abc import Callable

OPSETS = (11, 13, 17, 21)

WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 1, 0, 1]},
    {"kernel_shape": [3, 4], "strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 3], "strides": [2, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 2], "auto_pad": "VALID", "strides": [3, 2]},
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("groups", "out"), [(1, 5), (2, 8), (4, 4), (4, 12)])
def test_conv(window: dict[str, Any], groups: int, out: int) -> None:
    case = Case()
    weight = case.weight(out, 4 // groups, *window["kernel_shape"])
    made = case.node(
        "Conv", case.input("x", 1, 4, 9, 11), weight, case.weight(out), group=groups, **window
    )
    model = check(case.content(made))
    assert [op.kind for op in model.graph.ops] == ["depthwise" if groups == 4 else "conv"]


def test_conv_without_a_bias_and_of_one_channel() -> None:
    case = Case()
    made = case.node("Conv", case.input("x", 1, 1, 5, 7), case.weight(3, 1, 2, 3))
    check(case.content(made))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_conv_of_a_sequence(groups: int) -> None:
    case = Case()
    x = case.input("x", 1, 6, 17)
    made = case.node(
        "Conv",
        x,
        case.weight(12, 6 // groups, 3),
        case.weight(12),
        group=groups,
        strides=[2],
        pads=[2, 1],
    )
    made = case.node("Relu", made)
    made = case.node("Conv", made, case.weight(4, 12, 3), dilations=[2], pads=[1, 3])
    check(case.content(made))


def test_conv_with_a_bias_that_is_computed() -> None:
    case = Case()
    bias = case.node("Relu", case.input("b", 3))
    check(
        case.content(case.node("Conv", case.input("x", 1, 2, 5, 7), case.weight(3, 2, 2, 3), bias))
    )


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"strides": [2, 3]},
    {"strides": [2, 3], "pads": [1, 0, 2, 1]},
    {"strides": [3, 2], "output_padding": [2, 1], "pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "dilations": [2, 1]},
    {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 2], "output_shape": [11, 13]},
    {"strides": [2, 2], "output_shape": [11, 13], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("attributes", TRANSPOSED)
@pytest.mark.parametrize(("groups", "kernel"), [(1, (3, 2)), (2, (4, 3)), (4, (3, 3))])
def test_conv_transpose(attributes: dict[str, Any], groups: int, kernel: tuple[int, int]) -> None:
    case = Case()
    weight = case.weight(4, 3, *kernel)
    made = case.node(
        "ConvTranspose",
        case.input("x", 1, 4, 5, 6),
        weight,
        case.weight(3 * groups),
        group=groups,
        **attributes,
    )
    check(case.content(made))


def test_conv_transpose_of_a_sequence() -> None:
    case = Case()
    made = case.node(
        "ConvTranspose", case.input("x", 1, 4, 9), case.weight(4, 3, 4), strides=[2], pads=[1, 1]
    )
    check(case.content(made))


@pytest.mark.parametrize("turned_a", [0, 1])
@pytest.mark.parametrize("turned_b", [0, 1])
@pytest.mark.parametrize("added", ["none", "scalar", "row", "matrix", "computed"])
@pytest.mark.parametrize("weights", ["constant", "computed"])
def test_gemm(turned_a: int, turned_b: int, added: str, weights: str) -> None:
    case = Case()
    a = case.input("a", *((5, 3) if turned_a else (3, 5)))
    shape = (4, 5) if turned_b else (5, 4)
    b = case.weight(*shape) if weights == "constant" else case.input("b", *shape)
    c = {
        "none": [],
        "scalar": [case.constant(0.5, np.float32)],
        "row": [case.weight(4)],
        "matrix": [case.weight(3, 4)],
        "computed": [case.input("c", 1, 4)] if added == "computed" else [],
    }[added]
    made = case.node("Gemm", a, b, *c, transA=turned_a, transB=turned_b, alpha=0.7, beta=1.3)
    check(case.content(made))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 5), (5, 4)),
        ((1, 3, 5), (5, 4)),
        ((2, 1, 3, 5), (2, 5, 4)),
        ((5,), (5, 4)),
        ((3, 5), (5,)),
        ((2, 3, 5), (5,)),
        ((5,), (2, 5, 4)),
        ((1, 3, 5), (1, 5, 4)),
    ],
)
@pytest.mark.parametrize("known", ["neither", "second", "first"])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], known: str) -> None:
    case = Case()
    first = case.weight(*a) if known == "first" else case.input("a", *a)
    second = case.weight(*b) if known == "second" else case.input("b", *b)
    check(case.content(case.node("MatMul", first, second)))


def test_a_product_and_a_bias_are_one_dense_layer() -> None:
    case = Case()
    made = case.node("MatMul", case.input("x", 1, 3, 5), case.weight(5, 4))
    made = case.node("Relu", case.node("Add", case.weight(4), made))
    model = check(case.content(made))
    assert [(op.kind, op.act) for op in model.graph.ops] == [("dense", "relu")]


UNARY = [
    *(
        "Abs",
        "Neg",
        "Exp",
        "Reciprocal",
        "Sin",
        "Cos",
        "Tan",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Erf",
    ),
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Identity"),
]


@pytest.mark.parametrize("kind", UNARY)
def test_a_function_of_every_value(kind: str) -> None:
    case = Case()
    check(case.content(case.node(kind, case.input("x", 1, 3, 5, 7))))


@pytest.mark.parametrize("kind", ["Log", "Sqrt"])
def test_a_function_of_positive_values(kind: str) -> None:
    case = Case()
    check(case.content(case.node(kind, case.node("Exp", case.input("x", 2, 5)))))


ACTIVATIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("LeakyRelu", 17, {"alpha": 0.2}),
    ("Elu", 17, {"alpha": 0.7}),
    ("Selu", 17, {}),
    ("Celu", 17, {"alpha": 1.7}),
    ("HardSigmoid", 17, {}),
    ("HardSigmoid", 17, {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", 17, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("ThresholdedRelu", 17, {"alpha": 0.4}),
]


@pytest.mark.parametrize(("kind", "opset", "attributes"), ACTIVATIONS)
def test_an_activation(kind: str, opset: int, attributes: dict[str, Any]) -> None:
    case = Case(opset)
    scaled = case.node("Mul", case.input("x", 1, 3, 5, 7), case.constant(3, np.float32))
    check(case.content(case.node(kind, scaled, **attributes)))


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), (3, 5, 7), ()])
def test_prelu(shape: tuple[int, ...]) -> None:
    case = Case()
    check(case.content(case.node("PRelu", case.input("x", 1, 3, 5, 7), case.weight(*shape))))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax(kind: str, opset: int, axis: int | None) -> None:
    case = Case(opset)
    attributes = {} if axis is None else {"axis": axis}
    check(case.content(case.node(kind, case.input("x", 2, 3, 5, 7), **attributes)))


BROADCAST = [
    ((1, 3, 5, 7), (3, 1, 1)),
    ((1, 3, 5, 7), ()),
    ((5, 7), (1, 3, 1, 7)),
    ((2, 3), (2, 3)),
    ((1, 3, 1, 1), (1, 3, 5, 7)),
]


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean"])
@pytest.mark.parametrize(("first", "second"), BROADCAST)
@pytest.mark.parametrize("known", ["neither", "first", "second"])
def test_arithmetic_of_two(
    kind: str, first: tuple[int, ...], second: tuple[int, ...], known: str
) -> None:
    case = Case()
    names = [
        case.weight(*shape) if known == which else case.input(which, *shape)
        for which, shape in (("first", first), ("second", second))
    ]
    if kind in ("Div", "Pow"):
        names = [case.node("Exp", name) for name in names]
    check(case.content(case.node(kind, *names)))


@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean"])
def test_arithmetic_of_several(kind: str) -> None:
    case = Case()
    names = [case.input("a", 3, 5), case.input("b", 5), case.input("c", 3, 1)]
    check(case.content(case.node(kind, *names)))


@pytest.mark.parametrize("exponent", [2.0, 0.5, -1.0, 3.0, 1.0, -0.5])
def test_a_power(exponent: float) -> None:
    case = Case()
    x = case.node("Exp", case.input("x", 2, 5))
    check(case.content(case.node("Pow", x, case.constant(exponent, np.float32))))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Mod", "Max"])
def test_arithmetic_of_whole_numbers(kind: str, dtype: Any) -> None:
    case = Case()
    by = case.constant([3, -2, 5], dtype)
    x = case.node("Sub", case.input("x", 4, 3, dtype=dtype), case.constant(2, dtype))
    check(case.content(case.node(kind, x, by)))


def test_the_remainder_of_real_numbers() -> None:
    case = Case()
    made = case.node(
        "Mod", case.input("x", 4, 3), case.constant([0.3, -0.2, 0.7], np.float32), fmod=1
    )
    check(case.content(made))


@pytest.mark.parametrize("kind", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
def test_comparisons_and_choices(kind: str) -> None:
    case = Case()
    x = case.input("x", 1, 3, 5, 7)
    y = case.node("Round", case.input("y", 5, 1))
    found = case.node(kind, case.node("Round", x), y)
    check(case.content(case.node("Where", found, x, case.constant(-3, np.float32)), found))


@pytest.mark.parametrize("kind", ["And", "Or", "Xor", "Equal"])
def test_truth_values(kind: str) -> None:
    case = Case()
    made = case.node(kind, case.input("a", 3, 5, dtype=bool), case.input("b", 5, dtype=bool))
    check(case.content(case.node("Not", made)))


@pytest.mark.parametrize("to", [1, 6, 7, 9, 11, 10])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, bool])
def test_casts(to: int, dtype: Any) -> None:
    case = Case()
    x = case.input("x", 3, 5, dtype=dtype)
    made = case.node("Cast", x, to=to)
    if to in (10, 11):
        made = case.node("Cast", made, to=1)
    check(case.content(made), tolerance=1e-3 if to == 10 else 1e-4)  # the file rounds to halves


@pytest.mark.parametrize("bounds", ["none", "low", "high", "both", "six", "computed"])
def test_clip(bounds: str) -> None:
    case = Case()
    x = case.node("Mul", case.input("x", 1, 3, 5, 7), case.constant(4, np.float32))
    low, high = case.constant(-0.5, np.float32), case.constant(0.7, np.float32)
    given = {
        "none": [],
        "low": [low],
        "high": ["", high],
        "both": [low, high],
        "six": [case.constant(0, np.float32), case.constant(6, np.float32)],
        "computed": [case.node("ReduceMin", case.input("l", 4), keepdims=0)],
    }[bounds]
    check(case.content(case.node("Clip", x, *given)))


def test_a_relu6_is_fused_into_the_convolution() -> None:
    case = Case()
    made = case.node("Conv", case.input("x", 1, 3, 5, 7), case.weight(4, 3, 3, 3))
    made = case.node("Clip", made, case.constant(0, np.float32), case.constant(6, np.float32))
    model = check(case.content(made))
    assert [(op.kind, op.act) for op in model.graph.ops] == [("conv", "relu6")]


@pytest.mark.parametrize("window", WINDOWS)
def test_max_pool(window: dict[str, Any]) -> None:
    case = Case()
    check(case.content(case.node("MaxPool", case.input("x", 1, 3, 9, 11), **window)))


@pytest.mark.parametrize("window", [w for w in WINDOWS if "dilations" not in w])
@pytest.mark.parametrize("count", [0, 1])
def test_average_pool(window: dict[str, Any], count: int) -> None:
    case = Case()
    made = case.node("AveragePool", case.input("x", 1, 3, 9, 11), count_include_pad=count, **window)
    check(case.content(made))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", [(8, 9), (9, 11), (10, 12), (7, 7)])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]])
@pytest.mark.parametrize("count", [0, 1])
def test_pools_that_round_up(kind: str, size: tuple[int, int], pads: list[int], count: int) -> None:
    case = Case(19)
    attributes: dict[str, Any] = {"count_include_pad": count} if kind == "AveragePool" else {}
    if kind == "MaxPool" and count:
        attributes = {"dilations": [1, 1]}
    made = case.node(
        kind,
        case.input("x", 1, 2, *size),
        kernel_shape=[3, 2],
        strides=[2, 3],
        pads=pads,
        ceil_mode=1,
        **attributes,
    )
    check(case.content(made))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pools_of_a_sequence(kind: str) -> None:
    case = Case()
    made = case.node(kind, case.input("x", 1, 3, 17), kernel_shape=[3], strides=[2], pads=[1, 1])
    check(case.content(made))


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 3, 11)])
def test_pools_of_a_whole_map(kind: str, shape: tuple[int, ...]) -> None:
    case = Case()
    made = case.node("Flatten", case.node(kind, case.input("x", *shape)))
    check(case.content(made))


REDUCTIONS = [
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
]


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("axes", [[1], [2, 3], [-1], [-3, 1], None, [0, 1, 2, 3]])
@pytest.mark.parametrize(("opset", "keepdims"), [(11, 1), (18, 0)])
def test_reductions(kind: str, axes: list[int] | None, opset: int, keepdims: int) -> None:
    case = Case(opset)
    x = case.node("Exp", case.input("x", 2, 3, 2, 4))
    if axes == [-3, 1]:
        axes = [-3, 2]
    attributes: dict[str, Any] = {"keepdims": keepdims}
    given = []
    if axes is not None and (opset >= 18 or (kind == "ReduceSum" and opset >= 13)):
        given = [case.constant(axes, np.int64)]
    elif axes is not None:
        attributes["axes"] = axes
    check(case.content(case.node(kind, x, *given, **attributes)))


def test_a_reduction_over_no_axes_does_nothing() -> None:
    case = Case(18)
    axes = case.constant(np.zeros(0), np.int64)
    made = case.node("ReduceSum", case.input("x", 2, 3), axes, noop_with_empty_axes=1)
    check(case.content(case.node("Relu", made)))


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_places_of_extremes(kind: str, axis: int, keepdims: int) -> None:
    case = Case()
    check(case.content(case.node(kind, case.input("x", 2, 3, 5, 7), axis=axis, keepdims=keepdims)))


@pytest.mark.parametrize("largest", [0, 1])
def test_the_first_of_an_order(largest: int) -> None:
    case = Case()
    made = case.node(
        "TopK", case.input("x", 2, 7), case.constant([1], np.int64), outputs=2, largest=largest
    )
    check(case.content(made, f"{made}_1"))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    case = Case()
    x = case.node("Mul", case.input("x", 1, 7, 3, 5), case.constant(3, np.float32))
    check(case.content(case.node("LRN", x, size=size, alpha=0.3, beta=0.6, bias=1.5)))


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (1, 4, 9), (3, 4)])
def test_batch_normalisation(shape: tuple[int, ...]) -> None:
    case = Case()
    variance = case.constant(np.linspace(0.4, 2, 4), np.float32)
    parameters = [case.weight(4), case.weight(4), case.weight(4), variance]
    made = case.node("BatchNormalization", case.input("x", *shape), *parameters, epsilon=1e-3)
    check(case.content(made))


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (1, 4, 9)])
def test_instance_normalisation(shape: tuple[int, ...]) -> None:
    case = Case()
    made = case.node(
        "InstanceNormalization", case.input("x", *shape), case.weight(4), case.weight(4)
    )
    check(case.content(made))


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalisation(opset: int, groups: int) -> None:
    case = Case(opset)
    count = groups if opset == 18 else 6
    x = case.input("x", 1, 6, 5, 7)
    made = case.node(
        "GroupNormalization", x, case.weight(count), case.weight(count), num_groups=groups
    )
    check(case.content(made))


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("shift", [1, 0])
def test_layer_normalisation(axis: int, shift: int) -> None:
    case = Case()
    shape = (1, 3, 5, 7)
    parameters = [case.weight(*shape[axis:]) for _ in range(1 + shift)]
    made = case.node(
        "LayerNormalization", case.input("x", *shape), *parameters, axis=axis, epsilon=1e-4
    )
    check(case.content(made))


@pytest.mark.parametrize("power", [1, 2])
def test_vectors_of_one_length(power: int) -> None:
    case = Case()
    x = case.node("Exp", case.input("x", 1, 3, 5, 7))
    check(case.content(case.node("LpNormalization", x, axis=1, p=power)))


def test_mean_and_variance_normalisation() -> None:
    case = Case()
    check(case.content(case.node("MeanVarianceNormalization", case.input("x", 1, 3, 5, 7))))


@pytest.mark.parametrize(
    "shape", [[1, -1], [0, 3, 35], [0, 0, -1], [105], [1, 5, 3, 7], [-1, 3, 1, 5, 7]]
)
def test_reshape(shape: list[int]) -> None:
    case = Case()
    made = case.node("Reshape", case.input("x", 1, 3, 5, 7), case.constant(shape, np.int64))
    check(case.content(made))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, 4])
def test_flatten(axis: int) -> None:
    case = Case()
    check(case.content(case.node("Flatten", case.input("x", 2, 3, 5, 7), axis=axis)))


@pytest.mark.parametrize("order", [None, [0, 2, 3, 1], [3, 1, 0, 2]])
def test_transpose(order: list[int] | None) -> None:
    case = Case()
    attributes = {} if order is None else {"perm": order}
    check(case.content(case.node("Transpose", case.input("x", 2, 3, 5, 7), **attributes)))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    case = Case(opset)

    def axes(*numbers: int) -> dict[str, Any]:
        return {"axes": list(numbers)} if opset < 13 else {}

    def more(*numbers: int) -> list[str]:
        return [] if opset < 13 else [case.constant(numbers, np.int64)]

    x = case.node("Unsqueeze", case.input("x", 1, 3, 5), *more(0, -1), **axes(0, -1))
    y = case.node("Squeeze", x, *more(0, -1), **axes(0, -1))
    check(case.content(x, y, case.node("Squeeze", x)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    case = Case()
    shape = [2, 3, 5]
    other = list(shape)
    other[axis] = 4
    made = case.node(
        "Concat", case.input("x", *shape), case.weight(*other), case.input("y", *shape), axis=axis
    )
    check(case.content(made))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split(opset: int) -> None:
    case = Case(opset)
    x = case.input("x", 1, 6, 5)
    sizes = [1, 2, 3]
    given = [] if opset < 13 else [case.constant(sizes, np.int64)]
    attributes: dict[str, Any] = {"split": sizes} if opset < 13 else {}
    made = case.node("Split", x, *given, outputs=3, axis=1, **attributes)
    whole = {"num_outputs": 3} if opset >= 18 else {}
    equal = case.node("Split", x, outputs=3, axis=2 if whole else 1, **whole)
    check(case.content(made, f"{made}_1", f"{made}_2", equal, f"{equal}_2"))


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [3], [2], None),
        ([0, -3], [2, 100], [1, -1], [1, 2]),
        ([-1], [-100], [3], [-1]),
        ([-2, 1], [-6, 9], [3, 2], [-2, 3]),
        ([1, 0], [2, 2], None, None),
    ],
)
def test_slice(
    starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None
) -> None:
    case = Case()
    given = [case.constant(starts, np.int64), case.constant(ends, np.int64)]
    if axes is not None or steps is not None:
        given.append("" if axes is None else case.constant(axes, np.int64))
    if steps is not None:
        given.append(case.constant(steps, np.int64))
    check(case.content(case.node("Slice", case.input("x", 2, 3, 5, 7), *given)))


@pytest.mark.parametrize("indices", [[0, 2], [-1, 1, -2], 1, -1, [[0, 1], [2, -1]]])
@pytest.mark.parametrize("axis", [1, -1, 0])
def test_gather(indices: Any, axis: int) -> None:
    case = Case()
    made = case.node(
        "Gather", case.input("x", 3, 4, 5), case.constant(indices, np.int64), axis=axis
    )
    check(case.content(made))


def test_entries_that_are_looked_up_while_it_runs() -> None:
    case = Case()
    made = case.node("Gather", case.weight(7, 4), case.input("ids", 1, 6, dtype=np.int64))
    check(case.content(made))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 2, 1], [0, 1, -1, 0, 0, 0, 2, -2]])
@pytest.mark.parametrize("opset", [13, 18])
def test_pad(mode: str, pads: list[int], opset: int) -> None:
    case = Case(opset)
    given = [case.constant(pads, np.int64)]
    if mode == "constant":
        given.append(case.constant(0.7, np.float32))
    check(case.content(case.node("Pad", case.input("x", 1, 3, 5, 7), *given, mode=mode)))


def test_pad_of_some_axes() -> None:
    case = Case(18)
    given = [case.constant([1, 2, 0, 3], np.int64), "", case.constant([-1, 1], np.int64)]
    check(case.content(case.node("Pad", case.input("x", 1, 3, 5, 7), *given)))


@pytest.mark.parametrize("shape", [[1, 3, 5, 7], [2, 3, 1, 7], [3, 5, 1], [7]])
def test_expand(shape: list[int]) -> None:
    case = Case()
    made = case.node("Expand", case.input("x", 1, 3, 1, 7), case.constant(shape, np.int64))
    check(case.content(made))


def test_tile() -> None:
    case = Case()
    made = case.node("Tile", case.input("x", 1, 3, 2), case.constant([1, 2, 3], np.int64))
    check(case.content(made))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    case = Case()
    made = case.node("DepthToSpace", case.input("x", 1, 12, 3, 5), blocksize=2, mode=mode)
    check(case.content(made, case.node("SpaceToDepth", made, blocksize=2)))


RESIZES: list[tuple[str, dict[str, Any]]] = [
    (mode, {"coordinate_transformation_mode": coordinates, **more})
    for mode, more in [
        *(
            ("nearest", {"nearest_mode": r})
            for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        ),
        ("linear", {}),
        ("cubic", {}),
        ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1}),
    ]
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
]


@pytest.mark.parametrize(("mode", "attributes"), RESIZES)
@pytest.mark.parametrize("size", [(10, 14), (3, 4), (8, 9), (1, 5)])
def test_resize_to_a_size(mode: str, attributes: dict[str, Any], size: tuple[int, int]) -> None:
    case = Case()
    given = ["", "", case.constant([1, 3, *size], np.int64)]
    check(
        case.content(
            case.node("Resize", case.input("x", 1, 3, 5, 7), *given, mode=mode, **attributes)
        )
    )


@pytest.mark.parametrize(("mode", "attributes"), RESIZES)
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.5, 2.3), (0.6, 0.5), (1.0, 3.0)])
def test_resize_by_scales(
    mode: str, attributes: dict[str, Any], scales: tuple[float, float]
) -> None:
    case = Case()
    given = ["", case.constant([1, 1, *scales], np.float32)]
    check(
        case.content(
            case.node("Resize", case.input("x", 1, 3, 5, 7), *given, mode=mode, **attributes)
        )
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_other_axes(mode: str) -> None:
    case = Case(18)
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    x = case.input("x", 1, 5, 7, 3)
    last = case.node("Resize", x, "", "", case.constant([1, 10, 14, 3], np.int64), **attributes)
    some = case.node(
        "Resize", x, "", "", case.constant([14, 10], np.int64), axes=[2, 1], **attributes
    )
    line = case.node(
        "Resize",
        case.input("y", 1, 3, 7),
        "",
        "",
        case.constant([1, 3, 14], np.int64),
        **attributes,
    )
    check(case.content(last, some, line))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_without_aliasing(mode: str) -> None:
    case = Case(18)
    given = ["", "", case.constant([1, 3, 4, 5], np.int64)]
    made = case.node("Resize", case.input("x", 1, 3, 9, 14), *given, mode=mode, antialias=1)
    check(case.content(made))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    case = Case(9)
    made = case.node(
        "Upsample", case.input("x", 1, 3, 5, 7), case.constant([1, 1, 2, 3], np.float32), mode=mode
    )
    check(case.content(made))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 5), (5, 4)]),
        ("bhid,bhjd->bhij", [(1, 2, 3, 5), (1, 2, 4, 5)]),
        ("bhwc,hkc->bhwk", [(1, 3, 4, 5), (3, 7, 5)]),
        ("nchw,c->nhw", [(1, 3, 5, 7), (3,)]),
        ("...ij,...jk->...ik", [(2, 3, 5), (2, 5, 4)]),
        ("ij->ji", [(3, 5)]),
        ("ijk->ik", [(3, 5, 4)]),
        ("i,j->ij", [(3,), (5,)]),
        ("ij,jk", [(3, 5), (5, 4)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    case = Case()
    names = [case.input(f"x{place}", *shape) for place, shape in enumerate(shapes)]
    check(case.content(case.node("Einsum", *names, equation=equation)))


@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(upper: int) -> None:
    case = Case()
    made = case.node("Trilu", case.input("x", 1, 5, 7), case.constant(1, np.int64), upper=upper)
    check(case.content(made))


@pytest.mark.parametrize("places", [[[0, 1], [2, -1]], [[0], [2]], [[[1, 0]], [[2, 3]]]])
def test_entries_at_places_of_several_axes(places: Any) -> None:
    case = Case()
    x = case.input("x", 3, 4, 2)
    found = case.node("GatherND", x, case.constant(places, np.int64))
    shape = (*np.shape(places)[:-1], *(3, 4, 2)[np.shape(places)[-1] :])
    put = case.node("ScatterND", x, case.constant(places, np.int64), case.input("u", *shape))
    check(case.content(found, put))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_values_at_places_of_their_own(axis: int) -> None:
    case = Case()
    places = case.constant([[[0, 1], [1, 0], [-1, 1]]], np.int64)
    check(case.content(case.node("GatherElements", case.input("x", 2, 3, 2), places, axis=axis)))


@pytest.mark.parametrize("axis", [0, -1])
def test_one_of_many(axis: int) -> None:
    case = Case()
    x = case.node("Sub", case.input("x", 2, 3, dtype=np.int64), case.constant(2, np.int64))
    depth, values = case.constant(4, np.int64), case.constant([0.5, 2], np.float32)
    check(case.content(case.node("OneHot", x, depth, values, axis=axis)))


@pytest.mark.parametrize("attributes", [{}, {"exclusive": 1}, {"reverse": 1}])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_running_sums(attributes: dict[str, Any], dtype: Any) -> None:
    case = Case()
    x = case.input("x", 3, 5, 2, dtype=dtype)
    check(case.content(case.node("CumSum", x, case.constant(1, np.int64), **attributes)))


def test_a_diagonal_and_what_is_no_number() -> None:
    case = Case()
    x = case.input("x", 3, 5)
    eye = case.node("Add", x, case.node("EyeLike", x, k=1))
    with np.errstate(invalid="ignore"):
        check(case.content(eye, case.node("IsNaN", case.node("Log", x))))


def test_an_op_that_is_defined_by_others_is_written_out() -> None:
    case = Case(23)
    names = [case.input(name, 1, 2, 5, 8) for name in ("q", "k", "v")]
    check(case.content(case.node("Attention", *names)))
    case = Case(17)
    check(case.content(case.node("Shrink", case.input("x", 3, 5), lambd=0.4, bias=0.1)))


MICROSOFT: list[tuple[str, Callable[[Case], list[str]], dict[str, Any]]] = [
    ("Gelu", lambda case: [case.input("x", 1, 3, 5)], {}),
    (
        "SkipLayerNormalization",
        lambda case: [
            case.input("x", 1, 3, 5),
            case.input("y", 1, 3, 5),
            case.weight(5),
            case.weight(5),
        ],
        {"epsilon": 1e-4},
    ),
]


MICROSOFT += [
    ("FastGelu", lambda case: [case.input("x", 1, 3, 5), case.weight(5)], {}),
    ("BiasGelu", lambda case: [case.input("x", 1, 3, 5), case.weight(5)], {}),
    ("QuickGelu", lambda case: [case.input("x", 1, 3, 5)], {"alpha": 1.702}),
    (
        "FusedMatMul",
        lambda case: [case.input("x", 2, 5, 3), case.input("y", 2, 4, 5)],
        {"transA": 1, "transB": 1, "alpha": 0.5},
    ),
    *(
        (
            "FusedConv",
            lambda case: [case.input("x", 1, 3, 6, 5), case.weight(4, 3, 3, 3), case.weight(4)],
            {"activation": act, **more},
        )
        for act, more in [
            ("Relu", {}),
            ("LeakyRelu", {"activation_params": [0.2]}),
            ("Clip", {"activation_params": [0.0, 0.5]}),
        ]
    ),
]


@pytest.mark.parametrize(("kind", "inputs", "attributes"), MICROSOFT)
def test_an_op_of_onnxruntime(
    kind: str, inputs: Callable[[Case], list[str]], attributes: dict[str, Any]
) -> None:
    case = Case()
    check(case.content(case.node(kind, *inputs(case), domain="com.microsoft", **attributes)))
