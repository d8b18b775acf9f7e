"""Is an answer what the agent sends? A device may send anything.

The agent's file is checked by its hash, but what answers in its name is the device's word alone:
an answer of another shape is a failure with a sentence, not a traceback.
"""

from __future__ import annotations

from dataclasses import fields
from statistics import median
from typing import TYPE_CHECKING, Any

from device_agents.api import SensorReading
from device_agents.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Shape = dict[str, tuple[type, ...]]

_NUMBER = (int, float)
_MAYBE = (*_NUMBER, type(None))
_WHO = {"package": (str,), "version": (str,)}
_INPUTS = {"inputs": (list,)}
_DELEGATION = {"delegate": (str,), "delegated_share": _MAYBE, "left": (dict,), "settings": (dict,)}
_SHAPES: dict[str, Shape] = {
    "bench": {
        **_WHO,
        **_INPUTS,
        **_DELEGATION,
        "load_ns": _NUMBER,
        "warmups": (list,),
        "blocks": (list,),
        "invokes_per_sample": (list,),
        "step_ns": (int,),
        **dict.fromkeys(("clock_khz", "core_max_khz", "fastest_max_khz"), (int, type(None))),
        "partitions": (int, type(None)),
        "ops": (dict,),
        "peak_rss_bytes": _NUMBER,
    },
    "sustain": {**_WHO, **_INPUTS, **_DELEGATION, "intervals": (list,), "stopped": (bool,)},
    "profile": {**_WHO, **_INPUTS, "ops": (list,)},
    "memory": {
        **_WHO,
        **_INPUTS,
        **dict.fromkeys(("before_bytes", "loaded_bytes", "peak_bytes", "model_bytes"), (int,)),
    },
    "canary": {"ns": (int,), "idle_ns": (int,)},
}
_TEXTS = ("governor", "boot_id")
_ROW: Shape = {"name": (str,), "kind": (str,), "where": (str,), "samples_ns": (list,)}
_INTERVAL: Shape = {
    "start_ns": (int,),
    "took_ns": (int,),
    "invokes": (int,),
    "samples_ns": (list,),
    "soc_celsius": _MAYBE,
    "clock_khz": _MAYBE,
    "throttled": (int, type(None)),
}
_PARTS = {"sustain": ("intervals", _INTERVAL), "profile": ("ops", _ROW)}


def check(device: str, op: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of a call; raises AgentError for one of another shape."""
    wrong = _misfits(answer, _SHAPES[op])
    if not wrong and "inputs" in answer and not _are_inputs(answer["inputs"]):
        wrong = ["inputs"]
    if not wrong and op == "bench":
        wrong = _wrong_in_run(answer)
    if not wrong and op == "canary" and min(answer["ns"], answer["idle_ns"]) <= 0:
        wrong = ["ns"]
    if not wrong and op in _PARTS:
        name, shape = _PARTS[op]
        parts = answer[name]
        wrong = [] if parts and all(_is_part(part, shape) for part in parts) else [name]
    if wrong:
        raise _unusable(device, op, wrong)
    return dict(answer)


def shapes_of(inputs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes, as they were run, of what `check` has passed as a model's inputs."""
    return {item["name"]: tuple(item["shape"]) for item in inputs}


def check_run(device: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of a `bench` call; raises AgentError also when no time passed in it."""
    run = check(device, "bench", answer)
    for subject in {who for who, _ in run["blocks"]}:
        refuse_timeless(
            device, [ns for who, part in run["blocks"] if who == subject for ns in part]
        )
    return run


def refuse_timeless(device: str, samples_ns: Sequence[int]) -> None:
    """Raise AgentError for a model that is too quick for the device's clock."""
    if median(samples_ns) == 0:
        raise AgentError(
            f"device {device!r}: 0 ms: the model is too quick for its clock; take a larger one",
            kind="invoke_failed",
        )


def check_reading(device: str, answer: Mapping[str, Any]) -> SensorReading:
    """Return the state that a `sensors` call tells; what it does not tell is unknown."""
    told = {f.name: answer.get(f.name) for f in fields(SensorReading)}
    wrong = _misfits(
        told, {name: (str, type(None)) if name in _TEXTS else _MAYBE for name in told}
    ) + [name for name in ("throttled", "thermal_status") if isinstance(told[name], float)]
    if wrong:
        raise _unusable(device, "sensors", wrong)
    return SensorReading.from_json(answer)


def _unusable(device: str, op: str, wrong: Sequence[str]) -> AgentError:
    return AgentError(
        f"device {device!r} answered {op} with no usable {', '.join(wrong)}; something else "
        "than this agent runs there: `edgewright device doctor` shows what",
        kind="internal",
    )


def _misfits(answer: Mapping[str, Any], shape: Shape) -> list[str]:
    return [
        name
        for name, kinds in shape.items()
        if name not in answer or not isinstance(answer[name], kinds)
    ]


def _wrong_in_run(answer: Mapping[str, Any]) -> list[str]:
    blocks = answer["blocks"]
    if not all(map(_is_block, blocks)) or not any(subject == 0 for subject, _ in blocks):
        return ["blocks"]
    counts = answer["invokes_per_sample"]
    wrong = {
        "inputs": len(answer["inputs"]) <= max(subject for subject, _ in blocks),
        "invokes_per_sample": len(counts) <= max(subject for subject, _ in blocks)
        or not all(map(_is_count, counts)),
        "step_ns": answer["step_ns"] < 0,
        "warmups": not all(map(_is_warmup, answer["warmups"])),
    }
    return [name for name, is_wrong in wrong.items() if is_wrong][:1]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_inputs(models: Sequence[object]) -> bool:
    """Tell whether it is a list of inputs, each with name and shape, for each model."""
    return bool(models) and all(
        isinstance(model, list) and all(map(_is_input, model)) for model in models
    )


def _is_input(item: object) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("shape"), list)
        and all(isinstance(n, int) for n in item["shape"])
    )


def _is_block(block: object) -> bool:
    """Tell whether it is [subject, nanoseconds of each invoke]."""
    return (
        isinstance(block, list)
        and len(block) == 2
        and block[0] in (0, 1)
        and isinstance(block[1], list)
        and _are_times(block[1])
    )


def _is_part(part: object, shape: Shape) -> bool:
    """Tell whether it is what an interval or an op should be, with samples."""
    return isinstance(part, dict) and not _misfits(part, shape) and _are_times(part["samples_ns"])


def _are_times(samples: list[object]) -> bool:
    return bool(samples) and all(type(ns) is int and ns >= 0 for ns in samples)


def _is_warmup(warmup: object) -> bool:
    return isinstance(warmup, dict) and isinstance(warmup.get("ns"), int) and "settled" in warmup
