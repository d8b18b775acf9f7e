"""Facts of what torch.export saved (.pt2), from the JSON in the archive; no torch, no pickle."""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.model_files import Tensor
from pipeline.formats.facts.values import Facts, Weights, find_peak, shorten, sort_counts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TYPES = {
    1: ("uint8", 1),
    2: ("int8", 1),
    3: ("int16", 2),
    4: ("int32", 4),
    5: ("int64", 8),
    6: ("float16", 2),
    7: ("float32", 4),
    8: ("float64", 8),
    12: ("bool", 1),
    13: ("bfloat16", 2),
}
_MODEL = "models/model.json"
_PREFIX = "torch.ops."
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, RuntimeError)


def exported_program_facts(path: Path) -> Facts:
    """Return the facts of a file.

    Raises:
        ConfigError: it is no such file, or damaged.
    """
    size_bytes = path.stat().st_size if bounded.is_file(path) else 0
    try:
        with bounded.open_file(path, limit_bytes=bounded.MODEL_BYTES) as file:
            program = _program(file, size_bytes)
        graph = program["graph_module"]["graph"]
        return _facts(program, graph, size_bytes)
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} is no exported program of torch.export, or it is damaged "
            f"({shorten(str(error)) or type(error).__name__}); save it again with torch.export.save"
        ) from error


def _program(file: Any, size_bytes: int) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(_MODEL)]
        if len(infos) != 1:
            raise ValueError(f"its archive holds {len(infos)} {_MODEL}")
        bounded.refuse_expansion(size_bytes, infos[0].file_size)
        found = json.loads(archive.read(infos[0]))
    if not isinstance(found, dict):
        raise TypeError("its model is no table")
    return found


def _facts(program: dict[str, Any], graph: dict[str, Any], size_bytes: int) -> Facts:
    values = {name: _tensor(name, meta) for name, meta in graph["tensor_values"].items()}
    signature = program["graph_module"]["signature"]
    held = dict(_held(signature))
    weights = Weights()
    for name, is_param in held.items():
        tensor = values[name]
        size = _elements(tensor) * _width(tensor)
        weights.add(tensor.dtype, _elements(tensor), size, table=not is_param)
    fed = [name for name in _names(graph["inputs"]) if name not in held]
    outputs = _names(graph["outputs"])
    lives = [(tuple(_read(node)), tuple(_names(node["outputs"]))) for node in graph["nodes"]]
    computed = [values[name] for _, gives in lives for name in gives if name in values]
    whole = all(_is_whole(tensor) for tensor in (*computed, *(values[name] for name in fed)))
    sizes = {t.name: _elements(t) * _width(t) for t in (*computed, *(values[n] for n in fed))}
    opset = ", ".join(f"{name} {number}" for name, number in program["opset_version"].items())
    schema = program["schema_version"]
    return Facts(
        format="exported program of torch",
        version=f"schema {schema['major']}.{schema['minor']}, {opset}",
        producer=f"torch {program.get('torch_version', '')}".strip(),
        size_bytes=size_bytes,
        inputs=tuple(values[name] for name in fed),
        outputs=tuple(values[name] for name in outputs if name in values),
        ops=sort_counts(Counter(_short(node["target"]) for node in graph["nodes"])),
        params=weights.params,
        weight_bytes=sort_counts(weights.weight_bytes),
        activations=sort_counts(Counter(tensor.dtype for tensor in computed)),
        peak_activation_bytes=find_peak(lives, fed, outputs, sizes) if whole else None,
        uncounted="multiply-accumulates are counted on the graph only",
    )


def _tensor(name: str, meta: dict[str, Any]) -> Tensor:
    dims = tuple(
        int(size["as_int"]) if "as_int" in size else _symbol(size) for size in meta["sizes"]
    )
    return Tensor(name, _TYPES.get(meta["dtype"], (f"type {meta['dtype']}", 0))[0], dims)


def _symbol(size: dict[str, Any]) -> str:
    return str(size.get("as_expr", {}).get("expr_str", ""))


def _is_whole(tensor: Tensor) -> bool:
    return all(isinstance(length, int) for length in tensor.dims or ())


def _elements(tensor: Tensor) -> int:
    return math.prod(length for length in tensor.dims or () if isinstance(length, int))


def _width(tensor: Tensor) -> int:
    return next((width for name, width in _TYPES.values() if name == tensor.dtype), 0)


def _held(signature: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the tensors that the module holds, and whether each is a trained parameter."""
    for spec in signature["input_specs"]:
        for kind, given in spec.items():
            if kind in ("parameter", "buffer", "tensor_constant"):
                yield given["arg"]["name"], kind == "parameter"


def _names(arguments: list[dict[str, Any]]) -> list[str]:
    found = []
    for argument in arguments:
        if "as_tensor" in argument:
            found.append(str(argument["as_tensor"]["name"]))
        found += [str(item["name"]) for item in argument.get("as_tensors", ())]
    return found


def _read(node: dict[str, Any]) -> list[str]:
    return _names([argument["arg"] for argument in node["inputs"]])


def _short(target: str) -> str:
    return target.removeprefix(_PREFIX).removesuffix(".default")
