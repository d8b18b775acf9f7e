"""The cases that ONNX itself keeps for every op: right or refused by name, never wrong.

They come with the onnx package, as functions that make a model of one node with its inputs and
outputs. Each is read as it is, and with all inputs but the first as constants, since files have
weights, shapes and axes so; what is read is computed by the references, and by LiteRT as a file.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case import node as cases

from device_agents.errors import ConfigError
from models.model import Model
from pipeline.formats.api import ExportError
from pipeline.formats.onnx.read import read_onnx
from pipeline.formats.tflite import TFLite
from pipeline.formats.tflite.run import run_tflite
from tests.onnx_cases import FIRST, LAST, SINGLE, run_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Array = np.ndarray[Any, Any]

_SLOW = {
    *("averagepool", "lppool", "maxpool", "image_decoder"),
    *("softmax_cross_entropy_loss", "negativeloglikelihoodloss"),
}
"""Take seconds, pools to make their data; those are held against onnxruntime in their own tests."""

_LEFT_OUT = {
    # onnxruntime, which is what the file means to its user, divides by the length rounded down.
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
    # A length of 0 is an open one, as old exporters write it.
    "test_triu_zero",
}
_NO_FILE = {
    # LiteRT refuses places that are counted from the end, where the network computes them.
    "test_gather_negative_indices",
}
_LOOSE = {"float16": 2e-3, "bfloat16": 2e-2}
"""Of the range: the recorded outputs are rounded at every step."""

# fmt: off
_REFUSED = {
    "_image_decoder_data", "acos", "acosh", "adagrad", "adam", "affinegrid", "ai_onnx_ml",
    "asin", "asinh", "atan", "atanh", "bernoulli", "bitcast", "bitshift", "bitwiseand",
    "bitwisenot", "bitwiseor", "bitwisexor", "blackmanwindow", "col2im", "compress",
    "constantofshape", "convinteger", "cosh", "cumprod", "deformconv", "dequantizelinear",
    "det", "dft", "dynamicquantizelinear", "flexattention", "gridsample", "gru",
    "hammingwindow", "hannwindow", "hardmax", "if_", "layernormalization", "linear_attention",
    "loop", "lstm", "matmulinteger", "maxunpool", "melweightmatrix", "momentum",
    "nonmaxsuppression", "nonzero", "not_", "optionalgetelement", "optionalhaselement",
    "qlinearconv", "qlinearmatmul", "rangeop", "regex_full_match", "reversesequence", "rnn",
    "roialign", "scan", "scatter", "scatterelements", "sequence_map", "sequenceinsert", "sinh",
    "splittosequence", "stft", "string_concat", "string_split", "stringnormalizer",
    "tensorscatter", "tfidfvectorizer", "topk", "unique",
}
# fmt: on
"""Of which no case is read: ops that are not known, and some whose cases give away codes, take
codes, or ask for what is known of other cases only."""

FAMILIES = [item.name for item in pkgutil.iter_modules(cases.__path__) if item.name not in _SLOW]


def worth_it(name: str) -> bool:
    """Tell whether a case says more than others do.

    What is "expanded" is the op written out as those that define it, as the reader does itself;
    and of the many of attention those in single precision suffice.
    """
    halves = "attention" in name and ("fp16" in name or "bf16" in name)
    return name not in _LEFT_OUT and "_expanded" not in name and not halves


def made(family: str) -> list[Any]:
    """Return the cases of a family, which importing it makes."""
    known = len(cases._NodeTestCases)  # the list that its own runner reads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"{cases.__name__}.{family}")
    return [case for case in cases._NodeTestCases[known:] if worth_it(case.name)]


def as_array(value: Any) -> Array | None:
    """Return a recorded value as an array, None for what is no tensor."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def ways(model: onnx.ModelProto, given: Mapping[str, Array]) -> Iterator[onnx.ModelProto]:
    """Yield a model as it is, and with all inputs but the first real one as constants."""
    yield model
    real = [name for name, value in given.items() if value.dtype.kind == "f"]
    kept = (real or list(given))[:1]
    if 1 < len(given) == len(model.graph.input):
        other = onnx.ModelProto()
        other.CopyFrom(model)
        del other.graph.input[:]
        for item in model.graph.input:
            if item.name in kept:
                other.graph.input.append(item)
            else:
                other.graph.initializer.append(numpy_helper.from_array(given[item.name], item.name))
        yield other


def same(found: Array, wanted: Array, where: str) -> None:
    loose = _LOOSE.get(str(wanted.dtype), 1e-4)
    assert found.shape == wanted.shape, where
    assert str(found.dtype) == SINGLE.get(str(wanted.dtype), str(wanted.dtype)), where
    if wanted.dtype.kind in "iub":
        np.testing.assert_array_equal(found, wanted, err_msg=where)
        return
    exact = wanted.astype(np.float64)
    span = max(float(np.abs(exact[np.isfinite(exact)]).max(initial=0)), 1.0)
    np.testing.assert_allclose(found, exact, rtol=loose, atol=loose * span, err_msg=where)


def by_litert(content: bytes, model: Model, given: Mapping[str, Array]) -> list[Array]:
    fed = {}
    for end in model.inputs:
        value = given[end.name]
        value = value.astype(SINGLE.get(str(value.dtype), value.dtype))
        fed[end.name] = (value.transpose(LAST[end.layout]) if end.layout else value)[None]
    found = run_tflite(content, fed).values()
    return [
        value[0].transpose(FIRST[end.layout]) if end.layout else value[0]
        for value, end in zip(found, model.outputs, strict=True)
    ]


def read(content: bytes) -> Model | str:
    """Return what is read of a file, or the sentence that says why it is not."""
    try:
        model = read_onnx(content)
    except ConfigError as error:
        return str(error)
    return model if isinstance(model, Model) else model.sentence


def check(case: Any, proto: onnx.ModelProto, given: Mapping[str, Array]) -> bool:
    """Hold a case against what is recorded; return whether it was read."""
    model = read(proto.SerializeToString())
    if isinstance(model, str):
        assert "\n" not in model, case.name
        assert "cannot be read" not in model, f"{case.name}: {model}"
        return False
    wanted = [as_array(value) for value in case.data_sets[0][1]]
    if model.quantization is not None:
        return True  # its ends are codes; `test_onnx_read_codes` holds them against onnxruntime
    with np.errstate(all="ignore"):
        computed = run_read(model, given)
    try:
        content = TFLite().write(model)
    except ExportError:
        files = computed
    else:
        files = computed if case.name in _NO_FILE else by_litert(content, model, given)
    for found, file, right in zip(computed, files, wanted, strict=True):
        assert right is not None, case.name
        same(found, right, f"{case.name}, by the references")
        same(file, right, f"{case.name}, in LiteRT")
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_an_op_is_right_or_refused(family: str) -> None:
    found = False
    for case in made(family):
        names = [item.name for item in case.model.graph.input]
        values = map(as_array, case.data_sets[0][0])
        pairs = zip(names, values, strict=False)
        given = {name: value for name, value in pairs if value is not None}
        for proto in ways(case.model, given):
            found |= check(case, proto, given)
    assert found is (family not in _REFUSED)
