"""What becomes of a whole TFLite file: its ends, and what is put together."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import Padding, TensorType

from device_agents.errors import ConfigError
from models.execute import execute_all
from models.model import Model
from models.ops import Conv, Depthwise, Reshape
from pipeline.formats.tflite.read import read_tflite
from scripts.tflite_maker import TFLiteFile
from tests.tflite_cases import conv, negated, real, strided
from tests.tflite_reading import model_of, run

if TYPE_CHECKING:
    from models.graph import Op

Array = np.ndarray[Any, Any]
SAME, VALID = Padding.SAME, Padding.VALID
RNG = np.random.default_rng(2)


def checked(content: bytes) -> tuple[Op, ...]:
    """Read a file, hold what it computes against LiteRT, and return its ops."""
    model = model_of(content)
    given = {
        tensor.name: RNG.normal(0, 1, tensor.shape).astype(np.float32)
        for tensor in model.graph.inputs
    }
    ours = execute_all(model, given)
    for name, expected in zip(model.graph.outputs, run(content, list(given.values())), strict=True):
        assert ours[name].shape == expected.shape
        assert np.abs(ours[name] - expected).max() <= 1e-4 * np.ptp(expected)
    return model.graph.ops


def padded(
    margins: tuple[tuple[int, int], ...], padding: int, *, read_twice: bool = False
) -> bytes:
    """A map with margins of zeros before a convolution."""
    file = TFLiteFile()
    x, before = file.tensor("x", (1, 9, 14, 4)), file.tensor("before", ())
    file.op("PAD", [x, file.constant("margins", np.int32(margins))], [before], ("PadOptions", {}))
    y, depth = file.tensor("y", ()), 4 + sum(margins[3])
    weights = [file.constant("w", real(3, 3, 2, depth)), file.constant("b", real(3))]
    file.op("CONV_2D", [before, *weights], [y], conv(padding, stride=(2, 1)))
    return file.content([x], [y, before] if read_twice else [y])


@pytest.mark.parametrize("padding", [SAME, VALID])
def test_zeros_before_a_convolution_are_its_padding(padding: int) -> None:
    (op,) = checked(padded(((0, 0), (2, 1), (0, 3), (0, 0)), padding))
    assert isinstance(op.attributes, Conv)
    more = (0, 0, 0, 0) if padding == VALID else (0, 1, 0, 1)
    expected = tuple(a + b for a, b in zip((2, 1, 0, 3), more, strict=True))
    assert op.attributes.padding == expected


def test_zeros_that_others_read_or_in_channels_stay_an_op() -> None:
    kinds = [op.kind for op in checked(padded(((0, 0), (2, 1), (0, 3), (0, 1)), VALID))]
    assert kinds == ["pad", "conv"]
    twice = padded(((0, 0), (2, 1), (0, 3), (0, 0)), VALID, read_twice=True)
    assert [op.kind for op in checked(twice)] == ["pad", "conv"]


def phases(
    kind: str,
    margins: tuple[tuple[int, int], tuple[int, int]],
    crops: tuple[tuple[int, int], tuple[int, int]],
    *,
    padding: int = VALID,
    joined: bool = True,
) -> bytes:
    """A convolution on the phases of a map, as dilation is written by older converters."""
    file = TFLiteFile()
    block = file.constant("block", np.int32((2, 3)))
    x, apart, made, y = (
        file.tensor(n, s) for n, s in (("x", (1, 9, 14, 4)), *((n, ()) for n in "amy"))
    )
    around = file.constant("margins", np.int32(margins))
    file.op("SPACE_TO_BATCH_ND", [x, block, around], [apart], ("SpaceToBatchNDOptions", {}))
    depthwise = kind == "DEPTHWISE_CONV_2D"
    weight = file.constant("w", real(*((1, 3, 2, 4) if depthwise else (5, 3, 2, 4))))
    options = conv(padding, act=1, **({"depthMultiplier": 1} if depthwise else {}))
    bias = file.constant("b", real(4 if depthwise else 5))
    file.op(kind, [apart, weight, bias], [made], options)
    last = made
    if not joined:  # an op of its own on the phases
        last = file.tensor("negative", ())
        file.op("NEG", [made], [last], ("NegOptions", {}))
    cut = file.constant("crops", np.int32(crops))
    file.op("BATCH_TO_SPACE_ND", [last, block, cut], [y], ("BatchToSpaceNDOptions", {}))
    return file.content([x], [y])


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize(
    ("margins", "crops", "padding", "expected"),
    [
        (((0, 1), (1, 0)), ((0, 1), (0, 0)), VALID, (0, 0, 1, 0)),
        (((2, 3), (1, 3)), ((0, 1), (0, 1)), VALID, (2, 2, 1, 2)),
        (((0, 1), (0, 1)), ((0, 1), (0, 1)), SAME, (2, 2, 0, 3)),
    ],
)
def test_a_convolution_on_phases_is_dilated(
    kind: str, margins: Any, crops: Any, padding: int, expected: tuple[int, ...]
) -> None:
    (op,) = checked(phases(kind, margins, crops, padding=padding))
    assert isinstance(op.attributes, (Conv, Depthwise))
    assert (op.name, op.attributes.dilation, op.attributes.padding) == ("y", (2, 3), expected)
    assert op.act == "relu"


def test_phases_with_other_ops_stay_what_they_are() -> None:
    ops = checked(phases("CONV_2D", ((0, 1), (1, 0)), ((0, 1), (0, 0)), joined=False))
    assert [op.kind for op in ops if op.kind not in ("reshape", "transpose")] == [
        *("pad", "conv", "unary", "slice")
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_a_gate_of_its_own_input_is_a_silu(turned: bool) -> None:  # noqa: FBT001
    file = TFLiteFile()
    x, gate, y = file.tensor("x", (1, 5, 7)), file.tensor("gate", ()), file.tensor("y", ())
    file.op("LOGISTIC", [x], [gate])
    file.op("MUL", [gate, x] if turned else [x, gate], [y], ("MulOptions", {}))
    (op,) = checked(file.content([x], [y]))
    assert (op.kind, op.act, op.name) == ("act", "silu", "y")


def test_shapes_that_are_computed_are_known() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5, 7, 3)), file.tensor("y", ())
    shape, rows, wanted = (file.tensor(name, (), "int32") for name in ("shape", "rows", "wanted"))
    file.op("SHAPE", [x], [shape], ("ShapeOptions", {"outType": TensorType.INT32}))
    ends = [file.constant(name, np.int32([n])) for name, n in (("first", 1), ("last", 2))]
    file.op("STRIDED_SLICE", [shape, *ends, ends[0]], [rows], strided(shrinkAxisMask=1))
    one, rest = file.constant("one", np.int32(1)), file.constant("rest", np.int32(-1))
    file.op("PACK", [one, rows, rest], [wanted], ("PackOptions", {"valuesCount": 3, "axis": 0}))
    file.op("RESHAPE", [x, wanted], [y])
    (op,) = checked(file.content([x], [y]))
    assert op.attributes == Reshape((1, 5, 21))


def test_parts_of_a_shape_may_be_empty() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 6)), file.tensor("y", (1, 3, 2))
    names = ("shape", "batch", "width", "rest", "wanted")
    shape, batch, width, rest, wanted = (file.tensor(name, (), "int32") for name in names)
    file.op("SHAPE", [x], [shape], ("ShapeOptions", {"outType": TensorType.INT32}))
    sizes, axis = file.constant("sizes", np.int32([1, 1, 0])), file.constant("axis", np.int32(0))
    options = ("SplitVOptions", {"numSplits": 3})
    file.op("SPLIT_V", [shape, sizes, axis], [batch, width, rest], options)
    row = file.constant("row", np.int32([3, 2]))
    file.op("CONCATENATION", [batch, row, rest], [wanted], ("ConcatenationOptions", {"axis": 0}))
    file.op("RESHAPE", [x, wanted], [y])
    (op,) = checked(file.content([x], [y]))
    assert op.attributes == Reshape((1, 3, 2))


def test_constants_that_are_computed_are_known() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5)), file.tensor("y", ())
    places, real_places, filled, row = (
        file.tensor(n, (), d)
        for n, d in (
            ("places", "int32"),
            ("real", "float32"),
            ("filled", "float32"),
            ("row", "float32"),
        )
    )
    numbers = [file.constant(f"n{n}", np.int32(n)) for n in (2, 12, 2)]
    file.op("RANGE", numbers, [places], ("RangeOptions", {}))
    file.op("CAST", [places], [real_places], ("CastOptions", {}))
    size = file.constant("size", np.int32([5]))
    file.op("FILL", [size, file.constant("value", np.float32(0.5))], [filled], ("FillOptions", {}))
    file.op("MUL", [real_places, filled], [row], ("MulOptions", {}))
    file.op("ADD", [x, row], [y], ("AddOptions", {}))
    model = model_of(file.content([x], [y]))
    assert [op.kind for op in model.graph.ops] == ["add"]
    (constant,) = model.graph.constants
    np.testing.assert_array_equal(model.weights[constant.name][0], [[1, 2, 3, 4, 5]])


def test_ends_have_the_names_of_the_signature() -> None:
    from ai_edge_litert import schema_py_generated as schema

    file = TFLiteFile()
    x, y = file.tensor("serving_default_x:0", (1, 5), signature=(-1, -1)), file.tensor("y:0", ())
    file.op("NEG", [x], [y])
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    for ends, name, number in (("inputs", "image", x), ("outputs", "score", y)):
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, number
        setattr(signature, ends, [end])
    file.model.signatureDefs = [signature]
    content = file.content([x], [y])
    for name in ("image", "serving_default_x:0"):
        model = read_tflite(content, {name: (1, 9)})
        assert isinstance(model, Model)
        assert [(end.name, end.layout) for end in model.inputs] == [("image", "NHWC")]
        assert [end.name for end in model.outputs] == ["score"]
        assert model.graph.inputs[0].shape == (1, 9)
        assert model.graph.output.name == "y:0"


def test_an_open_batch_is_one_and_other_open_sides_are_asked_for() -> None:
    open_batch = negated(1, 5, 7, signature=(-1, 5, 7))
    assert model_of(open_batch).graph.inputs[0].shape == (1, 5, 7)
    open_side = negated(1, 1, 7, signature=(-1, -1, 7))
    with pytest.raises(ConfigError, match=r"leaves dimensions of its inputs open.*--input-shape"):
        read_tflite(open_side)
    assert model_of(open_side, x=(1, 6, 7)).graph.output.out_shape == (1, 6, 7)
    with pytest.raises(ConfigError, match="does not fit input x"):
        read_tflite(open_side, {"x": (1, 6, 8)})
    with pytest.raises(ConfigError, match="no input 'z'"):
        read_tflite(open_side, {"z": (1, 6, 7)})


def test_what_is_given_twice_or_only_passed_on_is_copied() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5)), file.tensor("y", (1, 5))
    file.op("NEG", [x], [y])
    ops = checked(file.content([x], [y, x]))
    assert [(op.kind, op.inputs, op.name) for op in ops] == [
        ("unary", ("x",), "y"),
        ("reshape", ("x",), "x.copy"),
    ]
    assert len(model_of(negated(1, 5, outputs=3)).outputs) == 3


def test_names_that_are_empty_or_taken_become_their_own() -> None:
    file = TFLiteFile()
    x, same, y = file.tensor("same", (1, 5)), file.tensor("same", (1, 5)), file.tensor("", (1, 5))
    file.op("NEG", [x], [same])
    file.op("ABS", [same], [y])
    ops = checked(file.content([x], [y]))
    assert [op.name for op in ops] == ["same.1", "tensor_2"]


@pytest.mark.parametrize(("lines", "expected"), [(5, True), (4, False)])
def test_labels_of_an_appended_archive_are_those_of_the_output(lines: int, expected: Any) -> None:
    archive = io.BytesIO(negated(1, 5))
    labels = tuple(f"class {n}" for n in range(lines))
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr("labels.txt", "\n".join(labels))
        added.writestr("notes.md", "a\nb\nc\nd\ne")
    assert model_of(archive.getvalue()).outputs[0].labels == (labels if expected else ())
