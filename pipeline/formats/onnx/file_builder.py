"""The parts of an ONNX file as they are added: nodes, and the arrays that they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.ops import Shape

IR_VERSION = 8


class FileBuilder:
    """Nodes in execution order and initializers, no two of which have one name.

    Whoever adds something names it, and must go on with the name that it then has: a network may
    have ops that are called what a writer calls a scale.
    """

    def __init__(self) -> None:
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._names: set[str] = set()
        self._constants: dict[str, list[tuple[str, npt.NDArray[Any]]]] = {}
        self._renamed: dict[str, str] = {}

    def input(self, name: str, shape: Shape, dtype: str) -> str:
        """Add an input of the file."""
        self.inputs.append(_end(name, shape, dtype))
        self._names.add(name)
        return name

    def output(self, name: str, value: str, shape: Shape, dtype: str) -> None:
        """Make a value an output of the file, under the output's name; nothing is added after."""
        value = self._renamed.get(value, value)
        if value != name:
            given = {end.name for end in (*self.inputs, *self.outputs)}
            if value in given or value in self.initializers:
                value = self.node("Identity", [value], f"{name}.same")
            self._rename(name, self._free(f"{name}.inner"))  # an op may have the name
            self._rename(value, name)
        self.outputs.append(_end(name, shape, dtype))

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which has the node's name; return that."""
        name = self._free(name)
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an array under a name, once; return the name that it has."""
        array = np.require(array, None, "C")
        for stored, value in self._constants.setdefault(name, []):
            if (value.dtype, value.shape, value.tobytes()) == (
                array.dtype,
                array.shape,
                array.tobytes(),
            ):
                return stored
        free = self._free(name)
        self.initializers[free] = numpy_helper.from_array(array, free)
        self._constants[name].append((free, array))
        return free

    def integers(self, *values: int) -> str:
        """Add a vector of whole numbers, once; return its name."""
        name = f"constant.integers.{'_'.join(map(str, values))}"
        return self.constant(name, np.array(values, np.int64))

    def number(self, value: float, dtype: str = "float32") -> str:
        """Add a single number, once; return its name."""
        kind = "" if dtype == "float32" else f".{dtype}"
        return self.constant(f"constant.{value!r}{kind}", np.array(value, dtype))

    def finish(self, opset: int) -> bytes:
        """Return the file."""
        body = helper.make_graph(
            self.nodes, "main", self.inputs, self.outputs, list(self.initializers.values())
        )
        model = helper.make_model(
            body,
            producer_name="edgewright",
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=IR_VERSION,
        )
        content: bytes = model.SerializeToString(deterministic=True)
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
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new
        for end in self.outputs:
            if end.name == old:
                end.name = new
        if old in self.initializers:
            stored = self.initializers[new] = self.initializers.pop(old)
            stored.name = new


def _end(name: str, shape: Shape, dtype: str) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
