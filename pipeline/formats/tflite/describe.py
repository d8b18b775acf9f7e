"""What a TFLite file says of itself: its inputs and outputs, and the scales of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from device_agents.model_files import inputs_outputs
from models.codes import QParams
from models.number_format import DYNAMIC8, FLOAT16, FLOAT32, STATIC8, STATIC16X8, NumberFormat
from models.quantization import Quantization
from pipeline.formats.ends import FileEnds, to_file_ends

if TYPE_CHECKING:
    from models.graph import Graph
    from pipeline.formats.api import Numbers


def describe_tflite(content: bytes) -> FileEnds:
    """Read inputs and outputs from the FlatBuffer. Raises ConfigError if it is no TFLite file."""
    return to_file_ends("NHWC", *inputs_outputs(content, "tflite"))


def read_number_format(content: bytes) -> NumberFormat:
    """Return a static format where activations are integers, else what the weights are held as.

    Raises:
        ConfigError: it is no TFLite file.
    """
    describe_tflite(content)
    held, made = _tensor_types(content)
    if made & _INTEGERS:
        return STATIC16X8 if schema.TensorType.INT16 in made else STATIC8
    if held & _INTEGERS:
        return DYNAMIC8
    return FLOAT16 if schema.TensorType.FLOAT16 in held else FLOAT32


def read_numbers(content: bytes) -> Numbers:
    """Return integers if some tensor holds small ones, halves if some holds such."""
    held, made = _tensor_types(content)
    if (held | made) & _INTEGERS:
        return "integers"
    return "halves" if schema.TensorType.FLOAT16 in held | made else "floats"


_INTEGERS = {schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16}


def _tensor_types(content: bytes) -> tuple[set[int], set[int]]:
    """Return the types of a file's constants, and those of all other tensors."""
    model = schema.Model.GetRootAs(content)
    full = {at for at in range(model.BuffersLength()) if not model.Buffers(at).DataIsNone()}
    types: tuple[set[int], set[int]] = set(), set()
    for graph in (model.Subgraphs(place) for place in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(place) for place in range(graph.TensorsLength())):
            types[0 if tensor.Buffer() in full else 1].add(tensor.Type())
    return types


def read_quantization(content: bytes, graph: Graph) -> Quantization | None:
    """Read the parameters of the tensors that have the names of the network's.

    Of a network that is real in part, those of its codes; None where nothing is.
    """
    file = schema.Model.GetRootAs(content).Subgraphs(0)
    if file.TensorsLength() > len(content):
        return None
    tensors = [file.Tensors(index) for index in range(file.TensorsLength())]
    found = {tensor.Name(): tensor for tensor in tensors}
    # What only lays values out anew may have no tensor of its own.
    views = {op.name: op.inputs[0] for op in graph.ops if op.keeps_scale}
    held: dict[str, QParams | None] = {}
    real: set[str] = set()
    for name in graph.tensors:
        if name.encode() in found:
            held[name] = _params(found[name.encode()])
        elif views.get(name) in held:
            held[name] = held[views[name]]
        else:
            return None
        codes = found.get(f"{name}.codes".encode())
        if held[name] is None and codes is not None:
            held[name] = _params(codes)
            real.add(name)
    params = {name: own for name, own in held.items() if own is not None}
    if not params:
        return None
    layers = [op.name for op in graph.ops if op.has_weights and op.layer.one_scale]
    weights = [found.get(f"{name}.weight".encode()) for name in layers]
    scales = [tensor.Quantization() for tensor in weights if tensor is not None]
    per_output = any(of is not None and of.ScaleLength() > 1 for of in scales)
    wide = any(own.dtype == "int16" for own in params.values())
    return Quantization(
        params,
        dense_per_output=per_output,
        number_format=STATIC16X8 if wide else STATIC8,
        float_ops=frozenset(real),
    )


def _params(tensor: Any) -> QParams | None:
    """Return the parameters of a tensor of the file; None where it has none for the whole of it."""
    scales = tensor.Quantization()
    if scales is None or scales.ScaleLength() != 1 or scales.ZeroPointLength() != 1:
        return None
    dtype = "int16" if tensor.Type() == schema.TensorType.INT16 else "int8"
    return QParams(float(scales.Scale(0)), int(scales.ZeroPoint(0)), dtype)
