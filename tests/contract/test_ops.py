"""Every kind of op, on random attributes: rule, reference, executors, counts and files agree."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from models import ops
from models.codes import QParams, QuantizationError
from models.cost import cost
from models.execute import execute_all
from models.graph import Graph, GraphBuilder, GraphError, Op
from models.graph_json import graph_from_json, graph_to_json
from models.integer import integer_outputs, integer_reals
from models.model import Model, Output
from models.ops import KINDS, Attributes, Conv, Deconv, Dense, Mean
from models.ops.arithmetic import COMPARISONS, FUNCTIONS, LOGICAL
from models.ops.reducing import PLACES, REDUCTIONS
from models.ops.resizing import COORDINATES, MODES, ROUNDING
from models.ops.shaping import PAD_MODES
from models.quantization import Quantization, float_tensors, hardsigmoid_sources
from models.window import Window
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.formats import FORMATS, create
from pipeline.formats.api import ExportError
from pipeline.formats.onnx.emit import EMITTERS as TO_ONNX
from pipeline.formats.onnx.write import write_onnx
from pipeline.formats.tflite.emit import EMITTERS as TO_TFLITE
from pipeline.formats.tflite.write import write_tflite
from pipeline.measure.isolated import isolate
from tests.op_draws import DRAWS, ELEMENTWISE, SEEDS, drawn, modelled, referred

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

Arrays = dict[str, npt.NDArray[Any]]

WRITTEN = {"TFLite": TO_TFLITE, "ONNX": TO_ONNX}
"""Format -> the kinds that its writer has something for."""
FOLDED = {"TFLite": ("batchnorm",), "ONNX": ("batchnorm",)}
"""Format -> the kinds that its writer makes into others."""

INT8 = ("conv", "depthwise", "dense", "add", "mul", "mean", "maxpool", "act")
"""Kinds that writers have integer forms of."""

OTHER_WORDS: Mapping[str, Collection[str]] = {
    "function": (*COMPARISONS, *LOGICAL, *FUNCTIONS, *REDUCTIONS, *PLACES),
    "dtype": ("int32", "int64", "float32"),
    "mode": (*MODES, *PAD_MODES),
    "coordinates": tuple(COORDINATES),
    "rounding": tuple(ROUNDING),
    "order": ("DCR", "CRD"),
}
"""Attribute that is a word -> words for it; not each goes with each op."""


def quantized(model: Model, inputs: Arrays) -> Quantization:
    found = calibrate_all(model, inputs).quantization
    assert found is not None
    return found


def run_tflite(content: bytes, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Run a file sample by sample by the names of its signature."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    rows = [
        runner(**{name: np.ascontiguousarray(x[i : i + 1]) for name, x in inputs.items()})
        for i in range(len(next(iter(inputs.values()))))
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def run_onnx(content: bytes, inputs: Arrays) -> Arrays:
    """Run a file sample by sample; maps go in channels last, and come out as the graph has them."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(content, settings, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = []
    for i in range(len(next(iter(inputs.values())))):
        given = {
            name: x[i : i + 1].transpose(0, 3, 1, 2) if x.ndim == 4 else x[i : i + 1]
            for name, x in inputs.items()
        }
        rows.append(session.run(names, given))
    return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}


def ended(model: Model, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's outputs under their names in the graph."""
    names = zip(model.graph.outputs, model.outputs, strict=True)
    return {inside: outputs[end.name] for inside, end in names}


def refuses(format_: str, model: Model) -> bool:
    """Tell whether a format cannot say an op, and check that its writer says so."""
    op = model.graph.output
    if op.kind not in (*WRITTEN[format_], *FOLDED[format_]):
        sentence = f"op 'op' is a {op.kind!r}, which is not written as {format_}"
        with pytest.raises(ExportError, match=sentence):
            {"TFLite": write_tflite, "ONNX": write_onnx}[format_](model)
        return True
    if format_ == "TFLite" and op.kind == "maxpool" and op.attributes.dilation != (1, 1):
        with pytest.raises(ExportError, match=f"op {op.name!r} is a max pool with dilation"):
            write_tflite(model)
        return True
    if format_ == "ONNX" and op.kind in ("maxpool", "avgpool"):
        (height, width), (top, bottom, left, right) = op.attributes.kernel, op.attributes.padding
        if max(top, bottom) >= height or max(left, right) >= width:
            with pytest.raises(ExportError, match=rf"op {op.name!r} is an? .* pool of .* refuses"):
                write_onnx(model)
            return True
    return False


def every_op(kinds: Collection[str] = tuple(KINDS)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("kind", "seed"), list(itertools.product(kinds, range(SEEDS))))


def test_every_kind_is_drawn() -> None:
    assert DRAWS.keys() == KINDS.keys()
    grid = [drawn(kind, seed)["op"] for kind in KINDS for seed in range(SEEDS)]
    for kind, row in KINDS.items():
        assert {op.act for op in grid if op.kind == kind} == set(row.activations)
    windows = [op.attributes for op in grid if isinstance(op.attributes, Window)]
    for attribute in ("kernel", "stride", "padding", "dilation"):
        values = [getattr(one, attribute) for one in windows]
        assert any(value[0] != value[-1] for value in values), attribute
    assert any(op.constants for op in grid)
    assert {len(op.out_shape) for op in grid if op.kind in ELEMENTWISE} == {2, 3, 4, 5}
    assert any(getattr(op.attributes, "groups", 1) > 1 for op in grid)
    assert any(getattr(op.attributes, "multiplier", 1) > 1 for op in grid)


@every_op()
def test_rule_reference_and_execution_agree(kind: str, seed: int) -> None:
    model, inputs = modelled(drawn(kind, seed))
    expected, found = referred(model, inputs), execute_all(model, inputs)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert value.shape == (len(next(iter(inputs.values()))), *model.graph.shape(name)[1:])
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


@every_op()
def test_multiply_accumulates_are_those_of_the_loops(kind: str, seed: int) -> None:
    """A layer of ones on a map of ones adds up as many ones as it multiplies inside the map."""
    graph = drawn(kind, seed)
    op, counted = graph["op"], cost(graph)
    item = counted.per_op[-1]
    assert item.out_elements == prod(op.out_shape)
    if op.kind == "matmul":
        item_ones = ops.compute(op, [np.ones(shape) for shape in op.in_shapes])
        assert item.macs == int(item_ones.sum())
        return
    if not op.has_weights:
        assert item.macs == 0
        constants = {name: graph.shape(name) for name in op.constants}
        assert item.params == sum(prod(shape) for shape in constants.values())
        return
    padded, attributes = op.in_shapes[0], op.attributes
    if isinstance(attributes, Deconv):  # every input is spread whole, whatever is cut off
        attributes = replace(attributes, padding=(0, 0, 0, 0), extra=(0, 0))
    elif isinstance(attributes, Window):  # papers count products with padding too
        top, bottom, left, right = attributes.padding
        batch, height, width, channels = padded
        padded = (batch, height + top + bottom, width + left + right, channels)
        attributes = replace(attributes, padding=(0, 0, 0, 0))
    alone = replace(op, in_shapes=(padded,), attributes=attributes, act="none")
    assert isinstance(attributes, Deconv) or alone.out_shape == op.out_shape
    ones = [np.ones(padded), np.ones(op.weight_shape), np.zeros(op.out_shape[-1])]
    assert item.macs == int(ops.compute(alone, ones).sum())


@every_op()
def test_attributes_are_in_the_key_and_kept_by_json(kind: str, seed: int) -> None:
    graph = drawn(kind, seed)
    op = graph["op"]
    text = json.dumps(graph_to_json(graph), allow_nan=False)
    assert graph_from_json(json.loads(text)) == graph
    for field in fields(op.attributes):
        value = getattr(op.attributes, field.name)
        if field.name in ("kernel", "stride", "dilation", "extra"):
            others = [(value[0] + 1, value[1])]
        elif field.name == "padding":
            others = [(value[0] + 1, *value[1:])]
        elif isinstance(value, str):
            others: list[Any] = [word for word in OTHER_WORDS[field.name] if word != value]
        else:
            others = [not value if isinstance(value, bool) else 2 * value]
        for other in others:
            try:
                changed = replace(op, attributes=replace(op.attributes, **{field.name: other}))
            except (GraphError, TypeError):  # a window that the map cannot hold
                continue
            assert changed.key != op.key or changed.attributes == op.attributes


@every_op()
@pytest.mark.parametrize("format_", ["TFLite", "ONNX"])
def test_float_files_compute_the_reference(kind: str, seed: int, format_: str) -> None:
    model, inputs = modelled(drawn(kind, seed))
    write, run = {"TFLite": (write_tflite, run_tflite), "ONNX": (write_onnx, run_onnx)}[format_]
    if refuses(format_, model):
        return
    found = ended(model, run(write(model), inputs))
    for name, value in referred(model, inputs).items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


@every_op(INT8)
@pytest.mark.parametrize("format_", ["TFLite", "ONNX"])
def test_int8_files_compute_the_codes(kind: str, seed: int, format_: str) -> None:
    model, inputs = modelled(drawn(kind, seed))
    scales = quantized(model, inputs)
    if not scales.is_integer(model.graph["op"]):
        return  # a function that stays real
    model = replace(model, quantization=replace(scales, dense_per_output=format_ == "ONNX"))
    codes = integer_outputs(model, inputs)
    for name, value in codes.items():
        assert value.shape == (len(next(iter(inputs.values()))), *model.graph.shape(name)[1:])
    if refuses(format_, model):
        return
    if format_ == "TFLite":
        held = scales.tensors
        given: Any = {n: held[n].quantize(x) if n in held else x for n, x in inputs.items()}
        found = ended(model, run_tflite(write_tflite(model), given))
    else:
        real = ended(model, run_onnx(write_onnx(model), inputs))
        found = {name: scales[name].quantize(value) for name, value in real.items()}
    for name, value in codes.items():
        assert found[name].shape == value.shape
        assert np.abs(found[name].astype(int) - value).max(initial=0) <= 2


@every_op()
def test_codes_are_near_the_reference(kind: str, seed: int) -> None:
    drawn_model, inputs = modelled(drawn(kind, seed))
    model = calibrate_all(drawn_model, inputs)  # which folds normalisation
    found, op, scales = integer_reals(model, inputs), model.graph["op"], model.quantization
    assert scales is not None
    assert scales.is_integer(op) or not (float_tensors(op) and op.rules.integer(op))
    assert not hardsigmoid_sources(model.graph, scales) & set(model.graph.outputs)
    for name, value in referred(drawn_model, inputs).items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype)
        if not scales.is_integer(op):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
        elif op.out_dtype == "float32":
            error = found[name] - value
            assert np.sqrt(np.mean(error**2)) < 0.03 * max(float(np.abs(value).max()), 0.1)


@every_op()
def test_kernels_want_one_scale_where_values_only_move(kind: str, seed: int) -> None:
    model, inputs = modelled(drawn(kind, seed))
    scales, op = quantized(model, inputs), model.graph["op"]
    if not scales.is_integer(op) or op.out_dtype != "float32":
        return
    if op.rules.shares_scale:
        assert len({scales[name] for name in float_tensors(op)}) == 1
    elif op.keeps_scale:
        assert scales[op.name] == scales[op.inputs[0]]
    elif op.act in op.rules.fixed_scale:
        assert scales[op.name] == QParams(*op.rules.fixed_scale[op.act])


def test_what_is_no_op_is_refused_by_name() -> None:
    shape = (1, 8, 8, 4)
    refused: list[tuple[Callable[[], Op], str]] = [
        (lambda: Op("lstm", "cell", ("x",), (shape,)), "op 'cell' is a 'lstm'; known: conv"),
        (lambda: Op("add", "sum", ("x", "x"), (shape, shape), act="gelu"),
         r"op 'sum' \(add\) has activation 'gelu'; known: none, relu, relu6"),
        (lambda: Op("mean", "m", ("x",), (shape,), Mean(), act="relu"),
         r"op 'm' \(mean\) has activation 'relu'; known: none"),
        (lambda: Op("conv", "c", ("x",), (shape,)), r"'c' \(conv\) has None where it needs a Conv"),
        (lambda: Op("conv", "c", ("x",), (shape,), Conv(out=6, groups=3)),
         r"op 'c' \(conv\) cuts 4 -> 6 channels into 3 groups"),
        (lambda: Op("conv", "c", ("x",), ((1, 4),), Conv(out=6)),
         r"reads \(1, 4\), which is no map"),
        (lambda: Op("conv", "c", ("x",), (shape,), Conv(out=6, kernel=(9, 1))),
         "which a 8x8 map cannot hold"),
        (lambda: Op("conv", "c", ("x",), (shape,), Conv(out=6, stride=(0, 1))),
         "whose numbers cannot all be"),
        (lambda: Op("maxpool", "p", ("x",), (shape,), Window(kernel=(2, 2), padding=(2, 0, 0, 0))),
         "can lie wholly in its padding"),
        (lambda: Op("add", "sum", ("x", "y"), (shape, (1, 4))),
         "whose dimensions are neither equal nor 1"),
        (lambda: Op("dense", "f", ("x",), ((4,),), Dense(3)), "which is no vector"),
        (lambda: Op("dense", "f", ("x",), ((1, 4),), Dense(0)), r"the shape \(1, 0\), which holds"),
        (lambda: Op("add", "sum", ("x",), (shape,)), "reads 1 tensors; it needs 2"),
        (lambda: Op("act", "a", ("x",), (shape,), Attributes(), "silu", ("y",)), "has constants"),
    ]  # fmt: skip
    for make, sentence in refused:
        with pytest.raises(GraphError, match=sentence):
            make()


def branching() -> Graph:
    """Two inputs, a constant that two ops read, and two outputs, one of them read again."""
    builder = GraphBuilder()
    image, state = builder.input("image", (1, 9, 13, 3)), builder.input("state", (1, 6))
    scale = builder.constant("scale", (1, 1, 1, 6))
    strip = Conv(out=6, kernel=(1, 5), stride=(1, 2), padding=(0, 0, 2, 2))
    features = builder.op("conv", "features", [image], strip, act="relu")
    scaled = builder.op("mul", "scaled", [features, scale])
    shifted = builder.op("add", "shifted", [scale, scaled], act="relu6")
    pooled = builder.op("mean", "pooled", [shifted], Mean(keepdims=False))
    new = builder.op("add", "new", [pooled, state])
    scores = builder.op("dense", "scores", [new], Dense(4))
    return builder.graph(new, scores)


@pytest.mark.parametrize("format_", ["TFLite", "ONNX"])
@pytest.mark.parametrize("scheme", ["float32", "static8"])
def test_files_have_every_input_and_output_by_its_name(format_: str, scheme: str) -> None:
    model, inputs = modelled(branching())
    assert [end.name for end in (*model.inputs, *model.outputs)] == [
        *("image", "state", "new", "scores"),
    ]
    expected: dict[str, Any] = referred(model, inputs)
    given: dict[str, Any] = inputs
    scales = quantized(model, inputs)
    if scheme == "static8":
        per_output = format_ == "ONNX"
        model = replace(model, quantization=replace(scales, dense_per_output=per_output))
        expected = integer_outputs(model, inputs)
    if (format_, scheme) == ("TFLite", "static8"):
        given = {name: scales[name].quantize(x) for name, x in inputs.items()}
    write, run = {"TFLite": (write_tflite, run_tflite), "ONNX": (write_onnx, run_onnx)}[format_]
    found: dict[str, Any] = run(write(model), given)
    assert found.keys() == expected.keys() == {"new", "scores"}
    for name, value in expected.items():
        if scheme == "float32":
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
            continue
        codes = found[name] if format_ == "TFLite" else scales[name].quantize(found[name])
        assert np.abs(codes.astype(int) - value).max() <= 2


def test_a_graph_whose_ops_do_not_fit_is_refused_by_name() -> None:
    graph = branching()
    with pytest.raises(GraphError, match=r"op 'scaled' reads 'features' as .*: no tensor of that"):
        replace(graph, ops=graph.ops[1:])
    with pytest.raises(GraphError, match="two tensors of the network are named 'features'"):
        replace(graph, ops=(graph.ops[0], *graph.ops))
    scaled = graph["scaled"]
    held = replace(scaled, constants=(*scaled.constants, "features"))
    with pytest.raises(GraphError, match="two tensors of the network are named 'features'"):
        replace(graph, ops=tuple(held if op is scaled else op for op in graph.ops))
    with pytest.raises(GraphError, match=r"outputs .* are not all made by its ops"):
        replace(graph, outputs=("image",))
    with pytest.raises(GraphError, match="has the outputs new, scores, not one"):
        _ = graph.output
    with pytest.raises(GraphError, match=r"reads image \(1, 9, 13, 3\), state \(1, 6\), not one"):
        _ = graph.image_shape
    with pytest.raises(GraphError, match="1 inputs are named; the network has 2"):
        replace(Model(graph, {}), inputs=Model(graph, {}).inputs[:1])


def test_a_digest_tells_ends_and_constants_apart() -> None:
    graph = branching()
    one_output = replace(graph, outputs=("scores",))
    given = replace(
        graph,
        inputs=(*graph.inputs, *graph.constants),
        ops=tuple(replace(op, constants=()) for op in graph.ops),
    )
    assert len({graph.digest(), one_output.digest(), given.digest()}) == 3


@pytest.mark.parametrize("name", FORMATS.names())
def test_scales_of_every_tensor_are_read_back_from_a_file(name: str) -> None:
    model, inputs = modelled(branching())
    scales = quantized(model, inputs)
    format_ = create(name)
    found = format_.read_quantization(
        format_.write(replace(model, quantization=scales)), model.graph
    )
    assert found is not None
    assert found.tensors == scales.tensors
    assert format_.read_quantization(format_.write(model), model.graph) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs: {"image": inputs["image"]},
        lambda inputs: {**inputs, "state": inputs["state"][:1]},
        lambda inputs: {**inputs, "state": inputs["state"][:, :5]},
        lambda inputs: {name: values[:0] for name, values in inputs.items()},
    ],
)
def test_calibration_wants_every_input_with_as_many_samples(
    change: Callable[[Arrays], Arrays],
) -> None:
    model, inputs = modelled(branching())
    with pytest.raises(QuantizationError, match=r"the network needs .*'state': \('N', 6\)"):
        calibrate_all(model, change(inputs))


@pytest.mark.parametrize("scheme", ["float32", "static8"])
def test_outputs_may_have_names_that_ops_and_constants_have(scheme: str) -> None:
    model, inputs = modelled(branching())
    ends = (Output("scores"), Output("scale"))  # of `new` and of `scores`
    swapped = replace(model, outputs=ends)
    if scheme == "static8":
        swapped = replace(swapped, quantization=quantized(model, inputs))
    found, expected = run_onnx(write_onnx(swapped), inputs), referred(model, inputs)
    for name, end in zip(model.graph.outputs, ends, strict=True):
        error = np.abs(found[end.name] - expected[name]).max()
        assert error < (1e-4 if scheme == "float32" else 0.1) * np.abs(expected[name]).max()


@every_op()
def test_an_op_can_be_measured_alone(kind: str, seed: int) -> None:
    op = drawn(kind, seed)["op"]
    if op.act == "hardsigmoid" and len(op.out_shape) == 2:
        return  # formats fold half of it into a layer, and no network of ours has one
    alone = isolate(op)
    assert alone.graph.output.key == op.key
    assert alone.graph.digest() == isolate(replace(op, name="other")).graph.digest()
    for graph in (alone.graph, alone.without):
        model, inputs = modelled(graph)
        model = replace(model, quantization=quantized(model, inputs))
        for format_, write in (("TFLite", write_tflite), ("ONNX", write_onnx)):
            assert refuses(format_, model) or write(model)
