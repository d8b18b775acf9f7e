"""How LiteRT will part a TFLite file between XNNPACK's delegate and its own kernels.

What the delegate takes runs as few large pieces, each one DELEGATE node; every op that it leaves
may end a piece. `predict` repeats, on the file alone, what the runtime does when it loads it: the
delegate's rules op by op (`pipeline.formats.tflite.xnnpack`), then the partition of
`tflite/graph_info.cc`: epochs of ops of one side, each as large as the data allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.formats.tflite.xnnpack.rules import KERNELS, UNKNOWN, why_left
from pipeline.formats.tflite.xnnpack.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.formats.tflite.contents import Contents, FileOp, FileTensor, Subgraph

_CONTROL = "model_control_dependencies"
_STATEFUL = ("IF", "WHILE", "CALL_ONCE")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_UNPACKED = {"DEQUANTIZE": ("float16", "int8"), "DENSIFY": ("float16", "int8", "float32")}


@dataclass(frozen=True, slots=True)
class LeftOp:
    """An op that stays with LiteRT's own kernels.

    Attributes:
        place: of the op in the file, from 0.
        kind: TFLite's name of it.
        output: the name of what it computes.
        why: in a clause.
        breaks: whether it stands between two partitions, which could be one without it.
    """

    place: int
    kind: str
    output: str
    why: str
    breaks: bool


@dataclass(frozen=True, slots=True)
class Partitions:
    """What is expected of a file.

    Attributes:
        count: DELEGATE nodes; None where a rule is not known, `unknown` says which.
        ops: of the file.
        taken: ops that are in some partition.
        left: the others, in the file's order.
        unknown: why there is no count; empty where there is one.
    """

    count: int | None
    ops: int
    taken: int
    left: tuple[LeftOp, ...]
    unknown: str = ""


def predict(contents: Contents) -> Partitions:
    """Return how the first subgraph of a file is expected to be parted."""
    graph = contents.main
    if unknown := _unknown(contents):
        return Partitions(None, len(graph.ops), 0, (), unknown)
    reasons = _reasons(graph)
    if unknown := _refused(graph, reasons):
        return Partitions(None, len(graph.ops), 0, (), unknown)
    epochs = _part(graph, [not reason for reason in reasons])
    sides = {epoch: not reasons[place] for place, epoch in enumerate(epochs)}
    delegated = [epoch for epoch, taken in sides.items() if taken]
    first, last = min(delegated, default=0), max(delegated, default=0)
    left = tuple(
        LeftOp(
            place,
            op.custom or op.kind,
            _name(graph, op),
            reasons[place],
            breaks=first < epochs[place] < last,
        )
        for place, op in enumerate(graph.ops)
        if reasons[place]
    )
    return Partitions(len(delegated), len(graph.ops), len(graph.ops) - len(left), left)


def _unknown(contents: Contents) -> str:
    if _CONTROL in contents.metadata:
        return "the file prescribes an order of its ops, which is not read"
    for place, op in enumerate(contents.main.ops):
        what = UNKNOWN.get(op.custom or op.kind)
        if what:
            return f"op {place} is {op.custom or op.kind}, {what}"
    return ""


def _refused(graph: Subgraph, reasons: Sequence[str]) -> str:
    """Return which op has no kernel, so that the runtime does not load the file; empty if none."""
    for place, (op, reason) in enumerate(zip(graph.ops, reasons, strict=True)):
        if reason and op.custom and op.custom not in KERNELS:
            return f"op {place} is {op.custom}, a custom op that LiteRT has no kernel for"
    return ""


def _name(graph: Subgraph, op: FileOp) -> str:
    return graph.tensors[op.outputs[0]].name if op.outputs else ""


def _reasons(graph: Subgraph) -> list[str]:
    """Return why each op is left, empty for those that are taken, as PrepareOpsToDelegate does."""
    reasons = [""] * len(graph.ops)
    producers: dict[int, int] = {}
    halves: set[int] = set()
    variables = _Variables(graph)
    for place, op in enumerate(graph.ops):
        if _is_unpacking(graph, op, producers):
            producers[op.outputs[0]] = place
            if graph.tensors[op.inputs[0]].dtype == "float16" and op.kind == "DEQUANTIZE":
                halves |= _stay_half(graph, op.outputs[0])
            continue
        if op.kind == "VAR_HANDLE":
            variables.handle(place, op)
            reasons[place] = "its variable is not read or written in XNNPACK"
            continue
        if op.kind in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
            reason = variables.use(op)
        else:
            reason = why_left(View(graph, op, set(producers), halves))
        reasons[place] = reason
        if reason:
            for source in op.inputs:
                if source in producers:
                    reasons[producers[source]] = f"it feeds {op.custom or op.kind}, which is left"
    for place in variables.handles_taken():
        reasons[place] = ""
    return reasons


def _is_unpacking(graph: Subgraph, op: FileOp, producers: dict[int, int]) -> bool:
    """Tell whether an op only unpacks a constant, which is done before anything runs."""
    if op.kind not in _UNPACKED or len(op.inputs) != 1 or len(op.outputs) != 1:
        return False
    source, output = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if source.dtype not in _UNPACKED[op.kind]:
        return False
    if op.kind == "DENSIFY":
        return source.data is not None and source.sparse and output.dtype == source.dtype
    fixed = source.data is not None or op.inputs[0] in producers
    scaled = source.dtype != "int8" or bool(source.scales)
    return fixed and scaled and not source.sparse and output.dtype == "float32"


def _stay_half(graph: Subgraph, tensor: int) -> set[int]:
    """Return the tensor if all that read it are layers that take float16 weights."""
    for op in graph.ops:
        if tensor in op.inputs and (op.kind not in _WEIGHTED or op.inputs[0] == tensor):
            return set()
    return {tensor}


class _Variables:
    """Which variables XNNPACK can keep: those whose values have one type and shape throughout."""

    def __init__(self, graph: Subgraph) -> None:
        self._graph = graph
        self._handles: dict[int, int] = {}
        self._values: dict[int, FileTensor] = {}

    def handle(self, place: int, op: FileOp) -> None:
        """Note where a variable comes from."""
        self._handles.setdefault(op.outputs[0], place)

    def use(self, op: FileOp) -> str:
        """Return why a variable cannot be read or written by an op; empty where it can."""
        variable = op.inputs[0]
        reading = op.kind == "READ_VARIABLE"
        value = self._graph.tensors[op.outputs[0] if reading else op.inputs[1]]
        if reading and not value.shape:
            return "the shape of its variable is not known"
        floats = value.dtype in ("float32", "float16")
        one = value.dtype in ("int8", "uint8") and len(value.scales) == 1 and not value.axis
        if not floats and not one:
            return f"its variable is {value.dtype}"
        if variable not in self._handles:
            return "its variable comes from elsewhere"
        before = self._values.setdefault(variable, value)
        same = (before.dtype, before.shape) == (value.dtype, value.shape)
        return "" if same else "its variable changes its shape or type"

    def handles_taken(self) -> list[int]:
        """Return the places of the ops that name the variables which are kept."""
        return [self._handles[variable] for variable in self._values]


def _part(graph: Subgraph, taken: Sequence[bool]) -> list[int]:
    """Return the epoch of each op.

    An epoch is begun by the first op whose inputs are ready, and takes, over and over in the file's
    order, what is ready and of its side. Ops with side effects keep their order.
    """
    made = {tensor for op in graph.ops for tensor in op.outputs}
    before = _chain(graph)
    epochs = [-1] * len(graph.ops)
    ready: set[int] = set()
    epoch = 0
    while -1 in epochs:
        side, grown = None, True
        while grown:
            grown = False
            for place, op in enumerate(graph.ops):
                if epochs[place] >= 0 or any(t in made and t not in ready for t in op.inputs):
                    continue
                if place in before and epochs[before[place]] < 0:
                    continue
                side = taken[place] if side is None else side
                if taken[place] == side:
                    epochs[place], grown = epoch, True
                    ready.update(op.outputs)
        if side is None:  # ops that wait for each other: the runtime refuses the file
            return [epoch if found < 0 else found for found in epochs]
        epoch += 1
    return epochs


def _chain(graph: Subgraph) -> dict[int, int]:
    """Return for each op with side effects the one that must run before it."""
    chain: dict[int, int] = {}
    last: int | None = None
    for place, op in enumerate(graph.ops):
        ends = (*op.inputs, *op.outputs)
        resources = any(t >= 0 and graph.tensors[t].dtype == "resource" for t in ends)
        if op.kind in _STATEFUL or resources:
            if last is not None:
                chain[place] = last
            last = place
    return chain
