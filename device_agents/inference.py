"""Runs a model over a session and turns tensors into what the agent takes and back."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import Inference, TensorInfo, TensorValue
from device_agents.refusals import reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.session import Session

_INLINE_BYTES = 256 * 1024


def run(
    session: Session,
    model: Mapping[str, Any],
    inputs: Sequence[TensorValue],
    *,
    timeout_s: float,
    **how: Any,
) -> Inference:
    """Run `model`, {"sha256": …} or {"release": {"name", "version"}}, on the inputs.

    `how` are the arguments runtime, threads, cpus, argmax and deadline_s of the agent's `run`.
    Raises AgentError, RuntimeMissing, TransferFailed, LinkLost, DeadlineExceeded.
    """
    sent = [_sent(session, value) for value in inputs]
    answer = session.call("run", timeout_s=timeout_s, inputs=sent, **model, **how)
    with reading(session.name, "run"):
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
    if "argmax" in answer:
        classes = answer["argmax"]
        data = b"".join(value.to_bytes(8, "little", signed=True) for value in classes)
        outputs.append(TensorValue("int64", (len(classes),), data))
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
