"""Is the answer of a `bench` call what the agent sends? A device may send anything.

The agent's file is checked by its hash, but what answers in its name is the device's word alone:
an answer of another shape is a failure with a sentence, not a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = (int, float)
_SHAPE: dict[str, tuple[type, ...]] = {
    "package": (str,),
    "version": (str,),
    "load_ns": _NUMBER,
    "warmups": (list,),
    "blocks": (list,),
    "clock_khz": (int, type(None)),
    "partitions": (int, type(None)),
    "ops": (dict,),
    "delegate": (str,),
    "delegated_share": (*_NUMBER, type(None)),
    "left": (dict,),
    "settings": (dict,),
    "peak_rss_bytes": _NUMBER,
}


def checked_run(device: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of a `bench` call; raises AgentError for one of another shape."""
    wrong = [
        name
        for name, kinds in _SHAPE.items()
        if name not in answer or not isinstance(answer[name], kinds)
    ]
    if not wrong and not all(map(_is_block, answer["blocks"])):
        wrong = ["blocks"]
    if not wrong and not any(subject == 0 for subject, _ in answer["blocks"]):
        wrong = ["blocks"]
    if not wrong and not all(map(_is_warmup, answer["warmups"])):
        wrong = ["warmups"]
    if wrong:
        raise AgentError(
            f"device {device!r} answered bench with no usable {', '.join(wrong)}; something else "
            "than this agent runs there: `edgewright device doctor` shows what",
            kind="internal",
        )
    return dict(answer)


def _is_block(block: object) -> bool:
    """Tell whether it is [subject, nanoseconds of each invoke]."""
    return (
        isinstance(block, list)
        and len(block) == 2
        and block[0] in (0, 1)
        and isinstance(block[1], list)
        and bool(block[1])
        and all(isinstance(ns, int) and ns >= 0 for ns in block[1])
    )


def _is_warmup(warmup: object) -> bool:
    return isinstance(warmup, dict) and isinstance(warmup.get("ns"), int) and "settled" in warmup
