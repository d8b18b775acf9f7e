"""The parts of an ONNX file as they are added: nodes, and the arrays that they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from models.ops import Shape

IR_VERSION = 8


class FileBuilder:
    """Nodes in execution order and initializers, no two of which have one name.

    Whoever adds something names it, and must go on with the name that it then has: a network may
    have ops that are called what a writer calls a scale.
    """

    def __init__(self, opset: int) -> None:
        self._model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="edgewright")
        self._model.opset_import.append(helper.make_opsetid("", opset))
        self._graph = self._model.graph
        self._graph.name = "main"
        self._names: set[str] = set()
        self._constants: dict[str, list[onnx.TensorProto]] = {}
        self._renamed: dict[str, str] = {}

    def input(self, name: str, shape: Shape, dtype: str) -> str:
        """Add an input of the file."""
        self._graph.input.append(_end(name, shape, dtype))
        self._names.add(name)
        return name

    def output(self, name: str, value: str, shape: Shape, dtype: str) -> None:
        """Make a value an output of the file, under the output's name; nothing is added after."""
        value = self._renamed.get(value, value)
        if value != name:
            ends = (*self._graph.input, *self._graph.output, *self._graph.initializer)
            if value in {end.name for end in ends}:
                value = self.node("Identity", [value], f"{name}.same")
            self._rename(name, self._free(f"{name}.inner"))  # an op may have the name
            self._rename(value, name)
        self._graph.output.append(_end(name, shape, dtype))

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which has the node's name; return that."""
        name = self._free(name)
        self._graph.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an array under a name, once; return the name that it has."""
        held = self._constants.setdefault(name, [])
        for stored in held:
            if _is(stored, array):
                return stored.name
        # Into the file at once: a copy of all weights less.
        added: onnx.TensorProto = self._graph.initializer.add()
        added.name = self._free(name)
        added.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        added.dims.extend(array.shape)
        added.raw_data = array.tobytes()
        held.append(added)
        return added.name

    def integers(self, *values: int) -> str:
        """Add a vector of whole numbers, once; return its name."""
        name = f"constant.integers.{'_'.join(map(str, values))}"
        return self.constant(name, np.array(values, np.int64))

    def number(self, value: float, dtype: str = "float32") -> str:
        """Add a single number, once; return its name."""
        kind = "" if dtype == "float32" else f".{dtype}"
        return self.constant(f"constant.{value!r}{kind}", np.array(value, dtype))

    def finish(self, metadata: Mapping[str, str]) -> bytes:
        """Return the file; `metadata` are its properties by name."""
        if metadata:
            helper.set_model_props(self._model, dict(metadata))
        content: bytes = self._model.SerializeToString(deterministic=True)
        return content

    def _free(self, name: str) -> str:
        """Take a name, or the next like it that nothing has."""
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}.{number}"
        self._names.add(found)
        return found

    def _rename(self, old: str, new: str) -> None:
        self._renamed = {k: new if v == old else v for k, v in self._renamed.items()} | {old: new}
        for node in self._graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new
        for named in (*self._graph.output, *self._graph.initializer):
            if named.name == old:
                named.name = new


def _is(stored: onnx.TensorProto, array: npt.NDArray[Any]) -> bool:
    """Tell whether an array of a file is this one."""
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    alike = (stored.data_type, tuple(stored.dims)) == (dtype, array.shape)
    return alike and bytes(stored.raw_data) == array.tobytes()


def _end(name: str, shape: Shape, dtype: str) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
