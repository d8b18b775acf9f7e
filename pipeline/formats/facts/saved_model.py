"""Facts of TensorFlow's SavedModel folders, from the protocol buffer; no TensorFlow.

Numbers of fields: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import Tensor
from device_agents.model_files.flatbuffer import DamagedError
from device_agents.model_files.protobuf import last, messages, number, text
from pipeline.formats.facts.values import Facts, sort_counts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from device_agents.model_files.protobuf import Place

GRAPH_FILE = "saved_model.pb"
_SERVING = "serving_default"
_INTERNAL = "__"
_OPEN = (1 << 64) - 1  # -1
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}
_MOST_NODES = 1_000_000
# What a graph holds to be saved and called, and what computes nothing.
_HELPERS = (
    *("Placeholder", "NoOp", "Identity", "IdentityN", "Const", "VarHandleOp", "ReadVariableOp"),
    *("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "AssignVariableOp"),
    *("VarIsInitializedOp", "StaticRegexFullMatch", "DisableCopyOnRead"),
)


def saved_model_facts(folder: Path) -> Facts:
    """Return the facts of a folder.

    Raises:
        ConfigError: it holds no SavedModel, or a damaged one.
    """
    path = folder / GRAPH_FILE
    if not bounded.is_file(path):
        raise ConfigError(f"{folder} is a folder without {GRAPH_FILE}; give a model file in it")
    content = bounded.read_bytes(path)
    try:
        graph = _graph(content)
        signatures = _signatures(content, graph)
        name = _SERVING if _SERVING in signatures else next(iter(signatures))
        about = last(content, graph, 1) or (0, 0)
        ops = _ops(content, graph, signatures[name])
        inputs = tuple(_ends(content, signatures[name], 1))
        outputs = tuple(_ends(content, signatures[name], 2))
        wrote = f"TensorFlow {text(content, last(content, about, 5))}".strip()
        version = number(content, (0, len(content)), 1)
    except DamagedError as error:
        raise ConfigError(
            f"{path} is no SavedModel, or it is damaged: {error}; copy the folder again, or save "
            "the model again"
        ) from error
    weights = _weights(folder)
    return Facts(
        format="SavedModel",
        version=f"schema {version}",
        producer=wrote,
        size_bytes=len(content) + sum(weights.values()),
        inputs=inputs,
        outputs=outputs,
        ops=sort_counts(ops),
        params=None,
        weight_bytes=weights,
        uncounted="a SavedModel does not hold the shapes between its ops",
        metadata={"signatures": ", ".join(signatures)},
        remarks=(f"inputs and outputs are those of the signature {name}",),
    )


def _graph(content: bytes) -> Place:
    graph = last(content, (0, len(content)), 2)
    if graph is None:
        raise DamagedError("it holds no network")
    return graph


def _signatures(content: bytes, graph: Place) -> dict[str, Place]:
    found = {}
    for entry in messages(content, graph, 5):
        name, signature = text(content, last(content, entry, 1)), last(content, entry, 2)
        if signature is not None and not name.startswith(_INTERNAL):
            found[name] = signature
    if not found:
        raise DamagedError("it has no signature: nothing says what goes in")
    return found


def _ends(content: bytes, signature: Place, which: int) -> Iterator[Tensor]:
    for entry in messages(content, signature, which):
        name, info = text(content, last(content, entry, 1)), last(content, entry, 2)
        if info is None:
            continue
        shape = last(content, info, 3)
        dims = None
        if shape is not None and not number(content, shape, 3):
            lengths = [number(content, dim, 1) for dim in messages(content, shape, 2)]
            dims = tuple("" if length == _OPEN else length for length in lengths)
        yield Tensor(name, _DTYPES.get(number(content, info, 2), "unknown"), dims)


def _ops(content: bytes, graph: Place, signature: Place) -> Counter[str]:
    """Count the ops that a signature computes with: in the functions that it calls, else all."""
    definition = last(content, graph, 2)
    if definition is None:
        return Counter()
    library = last(content, definition, 2)
    functions = {} if library is None else dict(_functions(content, library))
    ends = [last(content, entry, 2) for entry in messages(content, signature, 2)]
    tensors = [text(content, last(content, end, 1)) for end in ends if end is not None]
    wanted = {tensor.partition(":")[0] for tensor in tensors}
    nodes = list(messages(content, definition, 1))
    called = [node for node in nodes if text(content, last(content, node, 1)) in wanted]
    if not any(_callee(content, node) for node in called):
        called = nodes
    found: Counter[str] = Counter()
    waiting, deep = list(called), 0
    while waiting and deep < _MOST_NODES:
        node, deep = waiting.pop(), deep + 1
        callee = _callee(content, node)
        if callee in functions:
            waiting += messages(content, functions[callee], 3)
        else:
            found[text(content, last(content, node, 2))] += 1
    for name in (*_HELPERS, ""):
        found.pop(name, None)
    return found


def _functions(content: bytes, library: Place) -> Iterator[tuple[str, Place]]:
    for function in messages(content, library, 1):
        signature = last(content, function, 1)
        if signature is not None:
            yield text(content, last(content, signature, 1)), function


def _callee(content: bytes, node: Place) -> str:
    """Return the function that a node calls; empty where it is an op of its own."""
    if not text(content, last(content, node, 2)).endswith("PartitionedCall"):
        return ""
    for entry in messages(content, node, 5):
        value = last(content, entry, 2)
        if value is not None and text(content, last(content, entry, 1)) == "f":
            function = last(content, value, 10)
            return "" if function is None else text(content, last(content, function, 1))
    return ""


def _weights(folder: Path) -> dict[str, int]:
    files = sorted((folder / "variables").glob("variables.data-*"))
    held = sum(path.stat().st_size for path in files)
    return {"variables": held} if held else {}
