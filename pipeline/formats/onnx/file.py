"""An ONNX file as it is read: its nodes, and its weights wherever they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from device_agents import bounded, model_files
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.ops import Shape

Array = npt.NDArray[Any]

OLDEST_OPSET = 7
_OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A file that is whole.

    Attributes:
        name: in sentences.
        proto: its content; functions of its own are written out.
        opset: of ONNX's own ops.
        beside: files that hold weights, by the name that it gives them.
    """

    name: str
    proto: onnx.ModelProto
    opset: int
    beside: Mapping[str, Path]

    def array(self, tensor: onnx.TensorProto) -> Array:
        """Return the value of a stored tensor.

        Raises:
            ConfigError: it is damaged.
        """
        try:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return self._from_beside(tensor)
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ConfigError(
                f"{self.name} is damaged: the tensor {tensor.name!r} cannot be read: "
                f"{' '.join(str(error).split())[:200]}; copy or download it again"
            ) from error

    def _from_beside(self, tensor: onnx.TensorProto) -> Array:
        told = {item.key: item.value for item in tensor.external_data}
        location = str(PurePosixPath(told["location"]))
        if location not in self.beside:
            raise ConfigError(
                f"{self.name} keeps weights in {location!r} beside it; give the path of the file"
            )
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        shape = tuple(tensor.dims)
        count = int(np.prod(shape, dtype=np.int64))
        start, path = int(told.get("offset", 0)), self.beside[location]
        if int(told.get("length", count * dtype.itemsize)) != count * dtype.itemsize:
            raise ValueError(f"it has {told['length']} bytes in {location!r}, not those of {shape}")
        values = np.fromfile(path, dtype, count, offset=start)
        if len(values) != count:
            raise ValueError(f"{location!r} ends before it")
        return values.reshape(shape)


def load(source: bytes | Path) -> File:
    """Read a file without its weights.

    Raises:
        ConfigError: it is no ONNX file, damaged, lacks files beside it, or is too old.
    """
    name = str(source) if isinstance(source, Path) else "the file"
    beside: Mapping[str, Path] = {}
    if isinstance(source, Path):
        read = model_files.read(source)
        if read.format != "onnx":
            kind = model_files.what_is(source)
            raise ConfigError(f"{name} is no ONNX model: it is {kind.words}")
        beside = {part.location: part.path for part in read.parts}
        content = bounded.read_bytes(source)
    else:
        model_files.inputs_outputs(source, "onnx")
        content = source
    try:
        proto = onnx.load_model_from_string(content)
        if proto.functions:
            from onnx import inliner

            proto = inliner.inline_local_functions(proto)
    except Exception as error:  # protobuf's exceptions differ between its implementations
        raise ConfigError(
            f"{name} is an ONNX model that is damaged: {' '.join(str(error).split())[:200]}; "
            "copy or download it again"
        ) from error
    opset = max(
        (item.version for item in proto.opset_import if item.domain in _OWN_DOMAINS), default=0
    )
    if opset < OLDEST_OPSET:
        raise ConfigError(
            f"{name} is of ONNX opset {opset}; {OLDEST_OPSET} and later are read: convert it with "
            "onnx.version_converter, or export it again"
        )
    return File(name, proto, opset, beside)


def input_shapes(file: File, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of every input of the network, of open ones as given.

    Raises:
        ConfigError: a dimension stays open, or a given shape does not fit.
    """
    tensors = [_tensor(info) for info in inputs(file)]
    told = model_files.ModelFile(Path(file.name), "onnx", tuple(tensors))
    return model_files.input_shapes(told, given)


def inputs(file: File) -> list[onnx.ValueInfoProto]:
    """Return what the network is fed: weights may be listed beside it."""
    graph = file.proto.graph
    held = {item.name for item in graph.initializer}
    return [info for info in graph.input if info.name not in held]


def needed_nodes(graph: onnx.GraphProto) -> Sequence[onnx.NodeProto]:
    """Return the nodes that outputs depend on, in the order of the file."""
    wanted = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    wanted.update(names_read(inner))
    return kept[::-1]


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Return all names that a graph and those within it read, or give as their outputs."""
    found = {info.name for info in graph.output}
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= names_read(inner)
    return found


def _tensor(info: onnx.ValueInfoProto) -> model_files.Tensor:
    kind = info.type.tensor_type
    dims = None
    if kind.HasField("shape"):
        dims = tuple(_dim(dim) for dim in kind.shape.dim)
    return model_files.Tensor(info.name, str(kind.elem_type), dims)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    """Return a length, or the name of an open dimension; old exporters write 0 and -1 for such."""
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param)
