"""Runs a model over a session, and turns tensors into what the agent takes and back."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import Inference, TensorInfo, TensorValue
from device_agents.measure import measuring
from device_agents.refusals import blame_answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.api import DeviceDescription, Shapes
    from device_agents.session import Session

_INLINE_BYTES = 256 * 1024
_PLAIN = {"xnnpack": False, "optimised": False}


@dataclass(frozen=True, slots=True)
class How:
    """How a model is run.

    Attributes:
        runtime: empty for the device's own, as `threads` 0.
        shapes: of inputs that the file leaves open.
        plain: as in `api.Runs`.
        timeout_s: how long it may take on the device.
    """

    runtime: str = ""
    threads: int = 0
    shapes: Shapes | None = None
    plain: bool = False
    timeout_s: float = 300.0


def run(
    session: Session,
    description: DeviceDescription,
    model: Mapping[str, Any],
    inputs: Sequence[TensorValue],
    how: How,
) -> Inference:
    """Run a model on the inputs, sample after sample.

    `model` are the arguments that name it: {"sha256": …}, or {"release": {"name", "version"}} or
    "staged" likewise. Raises AgentError, RuntimeMissing, TransferFailed, LinkLost,
    DeadlineExceeded.
    """
    sent = [_sent(session, value) for value in inputs]
    asked = measuring.how_to_run(
        description,
        how.runtime or description.runtime,
        how.threads or description.threads,
        how.shapes or {},
    )
    answer = session.call(
        "run",
        timeout_s=how.timeout_s + measuring.GRACE_S,
        inputs=sent,
        **model,
        **{**asked, **(_PLAIN if how.plain else {})},
        deadline_s=how.timeout_s,
    )
    with blame_answer(session.name, "run"):
        return _inference(answer)


def _sent(session: Session, value: TensorValue) -> dict[str, Any]:
    sent: dict[str, Any] = {"dtype": value.dtype, "shape": list(value.shape)}
    if len(value.data) <= _INLINE_BYTES:
        return {**sent, "data": base64.b64encode(value.data).decode()}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        path = Path(folder) / "input.bin"
        path.write_bytes(value.data)
        return {**sent, "sha256": session.push(path)}


def _inference(answer: dict[str, Any]) -> Inference:
    outputs: list[TensorValue] = []
    for info, text in zip(answer["outputs"], answer.get("data", []), strict=False):
        shape = (answer["samples"], *info["shape"])
        outputs.append(TensorValue(info["dtype"], shape, base64.b64decode(text)))
    return Inference(
        outputs=tuple(outputs),
        inputs_info=_infos(answer["inputs"]),
        outputs_info=_infos(answer["outputs"]),
        invoke_ns=answer.get("invoke_ns", 0),
    )


def _infos(items: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(i["name"], i["dtype"], tuple(i["shape"]), i["scale"], i["zero_point"])
        for i in items
    )
