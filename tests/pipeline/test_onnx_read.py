"""ONNX files of other people, read into our graph: whole networks, open shapes, bad files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from device_agents.errors import ConfigError
from pipeline.formats.api import Unsupported
from pipeline.formats.onnx.read import read_onnx
from tests.onnx_cases import Case, check
from tests.other_models import need

if TYPE_CHECKING:
    from pathlib import Path

    from models.model import Model

OTHERS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("basic-pitch.onnx", {}),
    ("ocr-det.onnx", {"": (1, 3, 96, 160)}),
    ("ocr-rec.onnx", {"": (1, 3, 48, 80)}),
    ("ocr-cls.onnx", {"": (1, 3, 48, 192)}),
]


def kinds(model: Model) -> Counter[str]:
    return Counter(op.kind for op in model.graph.ops)


@pytest.mark.parametrize(("name", "shapes"), OTHERS)
def test_a_network_of_other_people_computes_the_same(
    name: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    check(need(name), shapes, tolerance=1e-3)


def test_functions_that_are_written_out_are_one_op_each() -> None:
    found = kinds(check(need("ocr-rec.onnx"), {"": (1, 3, 48, 80)}, tolerance=1e-3))
    assert found["layernorm"] == 5
    assert not found["unary"]


def test_ops_that_are_not_known_are_all_named_with_their_places() -> None:
    case = Case()
    x = case.input("x", 1, 4, 3)
    y = case.node("LSTM", x, case.weight(1, 8, 3), case.weight(1, 8, 2), hidden_size=2)
    boxes = case.node("NonMaxSuppression", case.input("b", 1, 5, 4), case.input("s", 1, 1, 5))
    found = read_onnx(case.content(case.node("Relu", y), boxes))
    assert isinstance(found, Unsupported)
    assert "LSTM at 'LSTM_0'" in found.sentence
    assert "NonMaxSuppression at 'NonMaxSuppression_1'" in found.sentence
    assert [op.kind for op in found.ops] == ["LSTM", "NonMaxSuppression"]


@pytest.mark.parametrize(
    ("name", "kinds_"),
    [
        ("silero.onnx", {"LSTM"}),
        ("silero-16k.onnx", {"LSTM", "If"}),
        ("silero-ifless.onnx", {"If"}),
    ],
)
def test_a_network_with_state_is_refused_by_name(name: str, kinds_: set[str]) -> None:
    shapes = {} if name == "silero.onnx" else {"input": (1, 576)}
    if name == "silero-ifless.onnx":
        shapes |= {"state": (2, 1, 128)}
    found = read_onnx(need(name), shapes)
    assert isinstance(found, Unsupported)
    assert kinds_ <= {op.kind for op in found.ops}


def test_what_no_output_depends_on_need_not_be_known() -> None:
    case = Case()
    x = case.input("x", 1, 4, 3)
    case.node("LSTM", x, case.weight(1, 8, 3), case.weight(1, 8, 2), hidden_size=2)
    check(case.content(case.node("Relu", x)))


def test_outputs_that_nothing_reads_are_not_asked_for() -> None:
    case = Case()
    x = case.node("Dropout", case.input("x", 1, 4, 3), outputs=2)
    y = case.node("LayerNormalization", x, case.weight(3), case.weight(3), outputs=3)
    check(case.content(case.node("Relu", y)))
    found = read_onnx(case.content(y, "t1_1"))
    assert isinstance(found, Unsupported)
    assert "is asked for 't1_1' beside its result" in found.sentence


def test_arithmetic_of_single_numbers() -> None:
    case = Case()
    total = case.node("ReduceSum", case.input("x", 2, 3), keepdims=0)
    check(case.content(case.node("Div", total, case.constant(2.5, np.float32))))


def open_case() -> bytes:
    case = Case()
    x = case.input("x", "batch", 3, "height", "width")
    y = case.input("y", "batch", 3, "height", "width")
    return case.content(case.node("Conv", case.node("Add", x, y), case.weight(4, 3, 3, 3)))


def test_an_open_dimension_is_named_with_what_to_say() -> None:
    with pytest.raises(ConfigError, match=r"height, width of x .*--input-shape x=") as raised:
        read_onnx(open_case())
    assert "y=" in str(raised.value)


def test_open_dimensions_are_given() -> None:
    model = check(open_case(), {"x": (1, 3, 5, 7)})
    assert [tensor.shape for tensor in model.graph.inputs] == [(1, 5, 7, 3)] * 2


def test_an_open_batch_alone_is_one() -> None:
    case = Case()
    made = case.node("Conv", case.input("x", "N", 3, 5, 7), case.weight(4, 3, 3, 3))
    assert check(case.content(made)).graph.inputs[0].shape == (1, 5, 7, 3)


def test_dimensions_without_a_name_are_open_each_by_itself() -> None:
    case = Case()
    made = case.node("Relu", case.input("x", "?", 3, "?", "?"))
    check(case.content(made), {"x": (1, 3, 5, 7)})


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"z": (1, 3, 5, 7)}, "no input 'z'; its inputs are x .*, y"),
        ({"x": (1, 4, 5, 7)}, "1x4x5x7 does not fit input x"),
        ({"x": (1, 3, 5, 7), "y": (1, 3, 6, 7)}, "height, which is 5 in the shape of x and 6"),
    ],
)
def test_a_shape_that_does_not_fit(shapes: dict[str, tuple[int, ...]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_onnx(open_case(), shapes)


def test_a_file_that_is_none_and_one_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ConfigError, match=r"m\.onnx"):
        read_onnx(path)
    content = open_case()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="cut short or damaged"):
        read_onnx(path)


def save_beside(folder: Path) -> Path:
    case = Case()
    made = case.node("Conv", case.input("x", 1, 3, 5, 7), case.weight(40, 3, 3, 3))
    model = onnx.load_model_from_string(case.content(made))
    path = folder / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_weights_beside_the_file(tmp_path: Path) -> None:
    path = save_beside(tmp_path)
    check(path)
    with pytest.raises(ConfigError, match=r"keeps weights in 'm\.data' beside it"):
        read_onnx(path.read_bytes())
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(ConfigError, match="ends before it"):
        read_onnx(path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ConfigError, match="which is not there"):
        read_onnx(path)


def test_weights_elsewhere_are_not_followed(tmp_path: Path) -> None:
    path = save_beside(tmp_path)
    model = onnx.load_model(path, load_external_data=False)
    for item in model.graph.initializer:
        for entry in item.external_data:
            if entry.key == "location":
                entry.value = "../m.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match="not beside it or below"):
        read_onnx(path)


def test_shapes_that_are_computed_leave_nothing() -> None:
    case = Case(13)
    x = case.node("Conv", case.input("x", 1, 3, 5, 7), case.weight(6, 3, 3, 3))
    shape = case.node("Shape", x)
    parts = [
        case.node(
            "Unsqueeze",
            case.node("Gather", shape, case.constant(n, np.int64)),
            case.constant([0], np.int64),
        )
        for n in (0, 2, 3)
    ]
    half = case.node("Div", case.constant([6], np.int64), case.constant([2], np.int64))
    wanted = case.node("Concat", parts[0], half, case.constant([-1], np.int64), *parts[1:], axis=0)
    wanted = case.node("Cast", case.node("Cast", wanted, to=1), to=7)
    y = case.node("Reshape", x, wanted)
    y = case.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    filled = case.node("ConstantOfShape", case.constant([1], np.int64))
    y = case.node("Add", y, filled)
    model = check(case.content(y))
    assert set(kinds(model)) <= {"conv", "reshape", "transpose", "add"}


def test_ops_of_known_tensors_alone_are_computed_whatever_they_are() -> None:
    case = Case(13)
    places = case.node("NonZero", case.constant([0, 3, 0, 5], np.float32))
    total = case.node("CumSum", case.constant([1.0, 2.0], np.float32), case.constant(0, np.int32))
    row = case.node("Reshape", places, case.constant([-1], np.int64))
    picked = case.node("Gather", case.input("x", 3, 4), row, axis=1)
    model = check(case.content(case.node("Mul", picked, total)))
    assert kinds(model) == {"slice": 1, "mul": 1}


def branch(name: str, kind: str) -> onnx.GraphProto:
    made = helper.make_node(kind, ["x"], [name])
    end = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3])
    return helper.make_graph([made], name, [], [end])


def conditional(*inputs: onnx.ValueInfoProto, known: bool) -> bytes:
    chosen = helper.make_node(
        "If",
        ["c"],
        ["y"],
        name="chosen",
        then_branch=branch("a", "Relu"),
        else_branch=branch("b", "Neg"),
    )
    held = [numpy_helper.from_array(np.array([False]), "c")] if known else []
    graph = helper.make_graph(
        [chosen],
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3]), *inputs],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
        held,
    )
    imports = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(
        graph, opset_imports=imports, ir_version=8
    ).SerializeToString()
    return content


def test_a_condition_that_is_known_is_decided() -> None:
    assert kinds(check(conditional(known=True))) == {"unary": 1}


def test_a_condition_that_is_computed_is_named() -> None:
    given = helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [1])
    found = read_onnx(conditional(given, known=False))
    assert isinstance(found, Unsupported)
    assert found.sentence.endswith("If at 'chosen' (its condition is computed while it runs)")


def test_functions_of_the_file_are_written_out() -> None:
    double = helper.make_function(
        "own",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    graph = helper.make_graph(
        [helper.make_node("Double", ["x"], ["y"], domain="own")],
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[double], ir_version=8)
    assert kinds(check(model.SerializeToString())) == {"add": 1}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_files_of_other_precisions_are_read_as_single(dtype: Any) -> None:
    case = Case()
    weight = case.constant(case.rng.standard_normal((4, 3, 3, 3)) / 4, dtype)
    x = case.input("x", 1, 3, 5, 7, dtype=dtype)
    if dtype == np.float64:  # onnxruntime has no convolution of doubles
        made = case.node("MatMul", x, case.constant(case.rng.standard_normal((7, 4)), dtype))
    else:
        made = case.node("Relu", case.node("Conv", x, weight))
    made = case.node("Mul", made, case.constant(0.5, dtype))
    if dtype == np.float64:
        made = case.node("Cast", made, to=onnx.TensorProto.FLOAT)
    model = check(case.content(made), tolerance=2e-3 if dtype == np.float16 else 1e-4)
    assert all(tensor.dtype == "float32" for tensor in model.graph.inputs)


def test_an_image_of_bytes_is_fed_as_such() -> None:
    case = Case()
    x = case.node("Cast", case.input("x", 1, 5, 7, 3, dtype=np.uint8), to=1)
    x = case.node(
        "Div", case.node("Transpose", x, perm=[0, 3, 1, 2]), case.constant(255, np.float32)
    )
    model = check(case.content(case.node("Conv", x, case.weight(4, 3, 3, 3))))
    assert model.graph.inputs[0].dtype == "uint8"
    assert model.inputs[0].layout == ""
    assert "transpose" not in kinds(model)


def test_outputs_that_no_op_of_the_graph_makes() -> None:
    case = Case()
    x = case.input("x", 1, 3)
    same = case.node("Identity", x)
    fixed = case.node("Shape", x)
    y = case.node("Relu", x)
    check(case.content(same, fixed, y, case.node("Identity", y)))


def test_weights_that_are_listed_as_inputs_are_none() -> None:
    case = Case()
    weight = case.weight(4, 3)
    case.input(weight, 4, 3)
    made = case.node("Gemm", case.input("x", 1, 3), weight, transB=1)
    assert [end.name for end in check(case.content(made)).inputs] == ["x"]


def test_a_batch_that_the_file_fixes_is_kept() -> None:
    case = Case()
    x = case.node("Conv", case.input("x", 2, 3, 5, 7), case.weight(4, 3, 3, 3))
    x = case.node("Flatten", case.node("GlobalAveragePool", x))
    x = case.node("Gemm", x, case.weight(5, 4), transB=1)
    model = check(case.content(x))
    assert model.graph.output.out_shape == (2, 5)
    assert not kinds(model)["transpose"]


def test_two_ways_of_one_network_agree() -> None:
    """The same convolution, its input channels-first and channels-last in the file."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    case = Case()
    x = case.node("Transpose", case.input("x", 1, 5, 7, 3), perm=[0, 3, 1, 2])
    x = case.node("Conv", x, case.constant(weight))
    model = check(case.content(case.node("Transpose", x, perm=[0, 2, 3, 1])))
    assert kinds(model) == {"conv": 1}
    assert (model.inputs[0].layout, model.outputs[0].layout) == ("", "")


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Change some bytes, or some numbers and names of nodes."""
    if rng.random() < 0.4:
        changed = bytearray(content)
        for place in rng.integers(0, len(changed), 4):
            changed[place] = rng.integers(0, 256)
        return bytes(changed)
    model = onnx.load_model_from_string(content)
    nodes = model.graph.node
    for _ in range(3):
        node = nodes[rng.integers(len(nodes))]
        other = nodes[rng.integers(len(nodes))]
        numbers = [attribute for attribute in node.attribute if attribute.ints]
        if numbers and rng.random() < 0.5:
            numbers[0].ints[0] = int(rng.choice([0, -1, 7, 2**40, -(2**62)]))
        elif rng.random() < 0.5:
            node.input[0] = other.output[0]
        elif rng.random() < 0.5:
            node.op_type = other.op_type
        else:
            del node.input[-1]
    damaged_content: bytes = model.SerializeToString()
    return damaged_content


def test_a_damaged_file_is_refused_by_a_sentence() -> None:
    case = Case(13)
    x = case.node("Conv", case.input("x", 1, 3, 8, 6), case.weight(4, 3, 3, 3), pads=[1, 1, 1, 1])
    x = case.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = case.node("Resize", x, "", case.constant([1, 1, 2, 2], np.float32))
    x = case.node("Slice", x, *(case.constant([n], np.int64) for n in (1, 5, 2)))
    x = case.node("Pad", x, case.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    y = case.node("ReduceMean", case.node("Transpose", x, perm=[0, 2, 3, 1]), axes=[1, 2])
    y = case.node("Gemm", case.node("Flatten", y), case.weight(4, 5))
    split = case.node("Split", y, case.constant([2, 3], np.int64), outputs=2, axis=1)
    shape = case.node("Unsqueeze", case.node("Size", split), case.constant([0], np.int64))
    content = case.content(case.node("Reshape", split, shape), f"{split}_1", x)
    check(content)
    rng = np.random.default_rng(0)
    found: Counter[str] = Counter()
    for _ in range(200):
        try:
            found[type(read_onnx(damaged(content, rng))).__name__] += 1
        except ConfigError:
            found["refused"] += 1
    assert min(found["Unsupported"], found["refused"], found["Model"]) > 10
