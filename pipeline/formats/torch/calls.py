"""Ops of an exported program: their arguments by name, and what they are named after."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.export import ExportedProgram
    from torch.fx import Node

    from models.ops import Shape
    from pipeline.formats.torch.writer import Value

OpOverload = type(torch.ops.aten.relu.default)
"""The class of torch's ops; others are control flow."""

_NORMALISATIONS = ("_native_batch_norm_legit_no_training", "native_layer_norm")
"""Ops that are named like their module, whatever else it does."""


@dataclass(frozen=True, slots=True)
class Call:
    """One op of the program with its arguments.

    Attributes:
        run: torch's op.
        args: by their names in torch's schema, defaults filled in; tensors are `Value`.
        shape: of its (first) result.
        dtype: of its (first) result, one of `models.ops.DTYPES`.
        used: which of its results are read, where they are several.
        masks: whether all that comes of it are scores of a softmax.
    """

    run: Callable[..., Any]
    args: Mapping[str, Any]
    shape: Shape
    dtype: str
    used: frozenset[int]
    masks: bool = False

    @property
    def first(self) -> Value:
        """The first argument, which is a tensor."""
        value: Value = next(iter(self.args.values()))
        return value

    def __getitem__(self, name: str) -> Any:
        """Return an argument by its name; None for one that the op's overload does not have."""
        return self.args.get(name)


_SOFTMAXES = ("softmax", "_softmax", "_safe_softmax")
_KEEP_MASKS = (
    *("view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "unsqueeze", "squeeze"),
    *("clone", "alias", "detach", "contiguous", "slice", "select", "where", "add", "_to_copy"),
)
"""Ops of which what a softmax must not see stays that."""


def masks(node: Node) -> bool:
    """Tell whether all that comes of a tensor are scores of a softmax, or masks of attention."""
    return bool(node.users) and all(
        kind_of(user) in _SOFTMAXES
        or (kind_of(user) == "scaled_dot_product_attention" and _is_mask(node, user))
        or (kind_of(user) in _KEEP_MASKS and masks(user))
        for user in node.users
    )


def _is_mask(node: Node, attention: Node) -> bool:
    """Tell whether a tensor is what an attention adds to its scores, and nothing else of it."""
    read = (*attention.args[:3], *(attention.kwargs.get(name) for name in ("key", "value")))
    return node not in read


def kind_of(node: Node) -> str:
    """Return torch's name of an op, without its library and overload."""
    target = node.target
    if isinstance(target, OpOverload):
        return str(target).split(".")[1]
    return str(getattr(target, "__name__", target))


def bind(node: Node, values: Mapping[Node, Any]) -> dict[str, Any]:
    """Return a call's arguments by their names, tensors as values, defaults filled in."""
    target: Any = node.target
    schema = target._schema  # noqa: SLF001  # there is no public way to names of arguments
    given = {item.name: value for item, value in zip(schema.arguments, node.args, strict=False)}
    given |= node.kwargs
    args = {
        item.name: given.get(item.name, item.default_value if item.has_default_value() else None)
        for item in schema.arguments
    }
    bound: dict[str, Any] = {name: _valued(value, values) for name, value in args.items()}
    return bound


def _valued(given: Any, values: Mapping[Node, Any]) -> Any:
    if isinstance(given, torch.fx.Node):
        return values[given]
    if isinstance(given, list | tuple):
        return [_valued(each, values) for each in given]
    return given


def flatten(args: Mapping[str, Any]) -> list[Any]:
    """Return all arguments, those in lists too."""
    flat: list[Any] = []
    for value in args.values():
        flat += value if isinstance(value, list) else [value]
    return flat


def name_ops(program: ExportedProgram) -> dict[Node, str]:
    """Return what each op is named: its module's path, with the op's name where it does several.

    A layer is named by the path of its weight, whoever computes with it.
    """
    inputs = program.graph_signature.inputs_to_parameters
    ops = [node for node in program.graph.nodes if node.op == "call_function"]
    paths = {node: _module_path(node) for node in ops if node.target is not operator.getitem}
    alone = Counter(paths.values())
    places = {}
    for node in ops:
        path, leaf = paths.get(node, ("", False))
        kind = kind_of(node)
        weight = inputs.get(str(node.args[1]), "") if len(node.args) > 1 else ""
        if kind in ("convolution", "linear") and weight.endswith(".weight"):
            places[node] = weight.removesuffix(".weight")
        elif path and leaf and (alone[path, leaf] == 1 or kind in _NORMALISATIONS):
            places[node] = path
        else:
            said = kind.strip("_").removeprefix("native_").removesuffix("_with_indices")
            places[node] = f"{path}.{said}" if path else said
    return places


def _module_path(node: Node) -> tuple[str, bool]:
    """Return the path of the module that an op is the work of, and whether it is one of torch's."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", False
    path, kind = list(stack.values())[-1]
    named = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
    return path, named.startswith("torch.nn.")


def name_outputs(program: ExportedProgram) -> list[str]:
    """Return names of the outputs: the keys of a dict, places in a tuple, or ``output``."""
    spec = program.call_spec.out_spec
    count = spec.num_leaves
    if count == 1 and spec.is_leaf():
        return ["output"]
    found = dict(_paths(spec.unflatten(list(range(count)))))
    names = ["_".join(found.get(place, (str(place),))) for place in range(count)]
    return [f"output_{name}" if name[:1].isdigit() else name for name in names]


def _paths(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each leaf of a structure of places with the keys that lead to it."""
    if isinstance(tree, int):
        yield tree, path
    elif isinstance(tree, dict):
        for key, each in tree.items():
            yield from _paths(each, (*path, str(key)))
    elif isinstance(tree, tuple | list):
        for key, each in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True):
            yield from _paths(each, (*path, str(key)))
