"""What a model's file says of pixels and classes: a line of JSON that any format can carry.

Mean, scale, order of colours and layout of inputs, names of the classes of outputs. The line stands
in a file as it is (in TFLite's description, in ONNX's metadata), so it is found again in the bytes
of either without reading the rest. Whoever writes such a line into a file of his own is believed:
it says nothing that a user could not say beside it.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from device_agents import bounded

if TYPE_CHECKING:
    from models.model import Input, Model, Output

KEY = "edgewright.ends"
"""Of the line, where a format has keys."""

_BEGIN = '{"edgewright": "ends"'
_MOST_BYTES = 1 << 20
_MOST_CHANNELS = 4096


def record(model: Model) -> str:
    """Return the line; empty where nothing of it is known: files of before stay the same."""
    inputs = [_fed(end) for end in model.inputs]
    outputs = [{"labels": list(end.labels)} if end.labels else {} for end in model.outputs]
    if not any(inputs) and not any(outputs):
        return ""
    line = json.dumps({"edgewright": "ends", "inputs": inputs, "outputs": outputs})
    return line if len(line) <= _MOST_BYTES else ""


def find(content: bytes) -> str:
    """Return the line that a file holds; empty if it holds none."""
    begin = content.find(_BEGIN.encode())
    if begin < 0:
        return ""
    text = bytes(content[begin : begin + _MOST_BYTES]).decode("utf-8", "replace")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return ""
    return text[:end]


def read_inputs(line: str) -> list[dict[str, Any]]:
    """Return mean, scale and colours of each input, as `Input` has them; empty where not said."""
    return [_known_input(value) for value in _entries(line, "inputs")]


def apply(model: Model, line: str) -> Model:
    """Return a model that says what a line says; what it says already stays, what cannot be too."""
    fed, named = read_inputs(line), _entries(line, "outputs")
    inputs: tuple[Input, ...] = model.inputs
    outputs: tuple[Output, ...] = model.outputs
    if len(fed) == len(inputs):
        pairs = zip(inputs, fed, strict=True)
        inputs = tuple(end if end.mean or not said else replace(end, **said) for end, said in pairs)
    if len(named) == len(outputs):
        shapes = [model.graph.shape(name) for name in model.graph.outputs]
        triples = zip(outputs, named, shapes, strict=True)
        outputs = tuple(_labelled(end, said, shape) for end, said, shape in triples)
    return replace(model, inputs=inputs, outputs=outputs)


def _fed(end: Input) -> dict[str, Any]:
    if not end.mean:
        return {}
    said = {"mean": end.mean, "scale": end.scale, "colours": end.colours, "layout": end.layout}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in said.items() if v}


def _entries(line: str, which: str) -> list[dict[str, Any]]:
    if not line:
        return []
    try:
        found = bounded.json_value(line)
    except bounded.Undecodable:
        return []
    entries = found.get(which) if isinstance(found, dict) else None
    known = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    return entries if known and entries is not None else []


def _known_input(value: dict[str, Any]) -> dict[str, Any]:
    mean, scale, colours = value.get("mean"), value.get("scale"), value.get("colours", "")
    numbers = all(
        isinstance(one, list)
        and 0 < len(one) <= _MOST_CHANNELS
        and all(type(n) in (int, float) and math.isfinite(n) for n in one)
        for one in (mean, scale)
    )
    if not numbers or mean is None or scale is None or colours not in ("", "RGB", "BGR", "grey"):
        return {}
    return {
        "mean": tuple(map(float, mean)),
        "scale": tuple(map(float, scale)),
        "colours": colours,
    }


def _labelled(end: Output, said: dict[str, Any], shape: tuple[int, ...]) -> Output:
    labels = said.get("labels")
    fits = isinstance(labels, list) and all(isinstance(name, str) for name in labels)
    if end.labels or not fits or labels is None or shape[-1:] != (len(labels),):
        return end
    return replace(end, labels=tuple(labels))
