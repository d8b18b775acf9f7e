"""Ops that ONNX itself defines by other ops, written out as these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from pipeline.formats.onnx.node import UnknownError, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES = {
    "float32": onnx.TensorProto.FLOAT,
    "int32": onnx.TensorProto.INT32,
    "int64": onnx.TensorProto.INT64,
    "bool": onnx.TensorProto.BOOL,
}


def write_out(
    node: onnx.NodeProto, opset: int, values: Sequence[Value | None]
) -> tuple[Sequence[onnx.NodeProto], int]:
    """Return the nodes that mean the same as one node, and the opset that they are of.

    Raises:
        UnknownError: ONNX does not define it by other ops.
    """
    function = _function(node, opset, values)
    names = dict(zip(function.input, node.input, strict=False))
    names.update(dict.fromkeys(function.input[len(node.input) :], ""))
    names.update(zip(function.output, node.output, strict=False))
    own = node.name or next(filter(None, node.output))
    given = {item.name: item for item in node.attribute}
    given = {item.name: item for item in function.attribute_proto} | given
    found = []
    for place, inner in enumerate(function.node):
        new = onnx.NodeProto()
        new.CopyFrom(inner)
        new.name = f"{own}/{inner.op_type}_{place}"
        del new.input[:], new.output[:], new.attribute[:]
        new.input.extend(names.get(name, f"{own}/{name}") if name else "" for name in inner.input)
        new.output.extend(
            names.get(name) or f"{own}/{name}" if name else "" for name in inner.output
        )
        for item in inner.attribute:
            if item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise UnknownError("")
            if not item.ref_attr_name:
                new.attribute.append(item)
            elif item.ref_attr_name in given:
                kept = onnx.AttributeProto()
                kept.CopyFrom(given[item.ref_attr_name])
                kept.name = item.name
                new.attribute.append(kept)
        found.append(new)
    opsets = [item.version for item in function.opset_import if item.domain in ("", "ai.onnx")]
    return found, max(opsets, default=opset)


def _function(
    node: onnx.NodeProto, opset: int, values: Sequence[Value | None]
) -> onnx.FunctionProto:
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError as error:
        raise UnknownError("") from error
    function = onnx.FunctionProto()
    try:
        if schema.has_function:
            body = schema.get_function_with_opset_version(max(schema.function_opset_versions))
        elif schema.has_context_dependent_function:
            types = [_type(value).SerializeToString() for value in values]
            version = max(schema.context_dependent_function_opset_versions)
            body = schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), types
            )
        else:
            raise UnknownError("")
    except RuntimeError as error:
        raise UnknownError("") from error
    function.ParseFromString(body)
    if not function.node:
        raise UnknownError("")
    return function


def _type(value: Value | None) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    code = _CODES.get(value.dtype, onnx.TensorProto.FLOAT)
    return onnx.helper.make_tensor_type_proto(code, value.shape)
