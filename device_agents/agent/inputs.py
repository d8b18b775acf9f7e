"""What a model is run on: the values that a host sends, or seeded ones where it sends none."""

import base64
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from .arguments import Argument, check
from .wire import Refused

_INPUT = {
    "dtype": Argument("text"),
    "shape": Argument("list"),  # [samples, …]
    # One of these two: base64, or a file that is pushed.
    "data": Argument("text", default=None),
    "sha256": Argument("text", default=None),
}

_SIZES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}


def check_all(values: List[Any], path_of: Callable[[Any], Path]) -> List[Dict[str, Any]]:
    """Return what a host sent as inputs, with "data" (base64) or the "path" of what is pushed."""
    return [_checked(item, path_of) for item in values]


def _checked(item: Any, path_of: Callable[[Any], Path]) -> Dict[str, Any]:
    given = check("an input", item, _INPUT)
    part = {"dtype": given["dtype"], "shape": given["shape"]}
    if given["sha256"]:
        return dict(part, path=str(path_of(given["sha256"])))
    if given["data"] is None:
        raise Refused("bad_request", "an input has neither data nor sha256; give one of them")
    return dict(part, data=given["data"])


def read(given: List[Dict[str, Any]], wanted: List[Dict[str, Any]]) -> Tuple[List[bytes], int]:
    """Return the bytes of every input and how many samples they hold.

    `wanted` are the inputs of the model; Refused when what is given does not fit them.
    """
    arrays = [_raw(item) for item in given]
    return arrays, _samples(given, arrays, wanted)


def fill(model: Any, given: List[Dict[str, Any]], seed: int) -> None:
    """Set the inputs of a loaded model: the first sample of what is given, else seeded values."""
    # Not both: memory that is measured would hold both.
    if given:
        model.set_inputs(first(given, model.inputs()))
    else:
        model.fill(seed)


def first(given: List[Dict[str, Any]], wanted: List[Dict[str, Any]]) -> List[bytes]:
    """Return the first sample of every input; none where nothing is given."""
    if not given:
        return []
    arrays, samples = read(given, wanted)
    return [raw[: len(raw) // samples] for raw in arrays]


def _raw(item: Dict[str, Any]) -> bytes:
    if item.get("path"):
        return Path(item["path"]).read_bytes()
    return base64.b64decode(item["data"], validate=True)


def _samples(given: List[Dict[str, Any]], arrays: List[bytes], wanted: List[Dict[str, Any]]) -> int:
    """Return how many samples there are; Refused when an input does not fit the model."""
    if len(given) != len(wanted):
        sentence = "the model takes %d inputs, got %d" % (len(wanted), len(given))
        raise Refused("bad_request", sentence)
    counts = set()
    for item, raw, info in zip(given, arrays, wanted):
        if info["dtype"] not in _SIZES:
            sentence = "input %s is of the type %s, which cannot be given"
            raise Refused("bad_request", sentence % (info["name"], info["dtype"]))
        bytes_each = _SIZES[info["dtype"]]
        for length in info["shape"]:
            bytes_each *= length
        count = item["shape"][0] if item["shape"] else 0
        if item["dtype"] != info["dtype"] or count < 1 or len(raw) != count * bytes_each:
            raise Refused(
                "bad_request",
                "input %s is %s of shape (samples, %s); got %s of shape %s in %d bytes"
                % (
                    info["name"],
                    info["dtype"],
                    ", ".join(map(str, info["shape"])),
                    item["dtype"],
                    item["shape"],
                    len(raw),
                ),
            )
        counts.add(count)
    if len(counts) != 1:
        raise Refused("bad_request", "the inputs hold different numbers of samples")
    return int(counts.pop())
