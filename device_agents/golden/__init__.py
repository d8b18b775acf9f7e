"""Does a device's runtime compute what it should? One small model per runtime tells.

Each op of a golden model is an output of its own, so a wrong kernel is named. The files and what
is right were written once by `scripts/make_golden.py`, with exact integers and no runtime.
"""

from __future__ import annotations

import array
import base64
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import inference
from device_agents.api import Failure, TensorValue
from device_agents.errors import AgentError
from device_agents.refusals import last_words
from device_agents.rejoin import REJOIN_S, repeat

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription, Inference
    from device_agents.leased import Exclusive
    from device_agents.session import Session

_FOLDER = Path(__file__).parent
_DEADLINE_S = 60.0
_TYPECODES = {"int8": "b", "float32": "f"}
# The runtime ended, or its process did: what it computes is wrong too. Anything else is not its.
_RUNTIME_FAULTS = ("load_failed", "invoke_failed", "crashed", "timeout")


@dataclass(frozen=True, slots=True)
class Golden:
    """What a device made of the golden model.

    Attributes:
        runtime: the agent's word, such as tflite.
        package: and version, such as "tflite_runtime 2.9.1"; empty if the model did not run.
        wrong: the ops that it computes wrongly, in words.
        saturates: its int8 kernels add two products in 16 bits, and overflow when both are large:
            right for most files, not for all.
        failure: why the model did not run; empty if it did.
    """

    runtime: str
    package: str
    wrong: tuple[str, ...] = ()
    saturates: bool = False
    failure: str = ""

    @property
    def right(self) -> bool:
        """Whether every op computed what it should."""
        return not self.wrong and not self.failure

    @property
    def sentence(self) -> str:
        """Say what is wrong, or that nothing is."""
        if self.failure:
            return f"{self.runtime} cannot run the golden model: {self.failure}"
        if self.wrong:
            return f"{self.package} computes {' and '.join(self.wrong)} wrongly"
        also = "; its int8 kernels saturate at large products, which files are checked for"
        return f"{self.package} computes the golden model right{also if self.saturates else ''}"


def advice(device: str) -> str:
    """Say what gives a device a runtime that computes rightly."""
    return f"let `edgewright device setup {device}` put a newer runtime there"


def exists_for(runtime: str) -> bool:
    """Tell whether there is a golden model for a runtime; null, say, computes no networks."""
    return runtime in _about()


def model(runtime: str) -> tuple[Path, list[TensorValue]]:
    """Return the golden model of a runtime, which must have one, and what it is to be run on."""
    about = _about()[runtime]
    return _FOLDER / about["file"], [_expected(item) for item in about["inputs"]]


def examine(session: Session, description: DeviceDescription, runtime: str, threads: int) -> Golden:
    """Run the golden model of a runtime, which must have one, on a device.

    Raises RuntimeMissing, TransferFailed, LinkLost, DeadlineExceeded, and AgentError for what is
    not the runtime's fault.
    """
    file, inputs = model(runtime)
    try:
        found = inference.run(
            session,
            description,
            {"sha256": session.push(file)},
            inputs,
            inference.How(runtime, threads, timeout_s=_DEADLINE_S),
        )
    except AgentError as error:
        if error.kind not in _RUNTIME_FAULTS:
            raise
        return Golden(runtime, "", failure=last_words(error) or str(error))
    package = str(session.hello["runtimes"].get(runtime, runtime))
    return judge(runtime, package, found)


class GoldenRuns:
    """The golden models of one device's runtimes, each run once as long as it is open."""

    def __init__(
        self, session: Session, description: DeviceDescription, exclusive: Exclusive
    ) -> None:
        self._session = session
        self._description = description
        self._exclusive = exclusive
        self._found: dict[tuple[str, int], Golden] = {}

    def run(self, runtime: str, threads: int) -> Golden | Failure | None:
        """Return what the device makes of a runtime's golden model; None without such a model."""
        if not exists_for(runtime):
            return None
        key = (runtime, threads)
        if key not in self._found:

            def attempt() -> Golden:
                return examine(self._session, self._description, runtime, threads)

            found = self._exclusive.attempt(
                lambda: repeat(self._session, attempt, rejoin_s=REJOIN_S)
            )
            if isinstance(found, Failure):
                return found
            self._found[key] = found
        return self._found[key]


def judge(runtime: str, package: str, found: Inference) -> Golden:
    """Hold the outputs of a golden model against what is right."""
    wrong, saturates = [], False
    told = _about()[runtime]["outputs"]
    for right, value in zip(told, found.outputs, strict=True):
        if _agree(right, value):
            continue
        if right.get("saturation"):
            saturates = True
        else:
            wrong.append(right["op"])
    return Golden(runtime, package, tuple(wrong), saturates)


def _agree(right: dict[str, Any], value: TensorValue) -> bool:
    if value.dtype != right["dtype"]:
        return False
    wanted, got = (
        array.array(_TYPECODES[found.dtype], found.data) for found in (_expected(right), value)
    )
    # Written so that a NaN fails.
    return len(wanted) == len(got) and all(
        math.fabs(a - b) <= right["tolerance"] for a, b in zip(wanted, got, strict=True)
    )


def _expected(item: dict[str, Any]) -> TensorValue:
    """Return an input or a right output as one sample."""
    return TensorValue(item["dtype"], (1, *item["shape"]), base64.b64decode(item["data"]))


@cache
def _about() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((_FOLDER / "golden.json").read_text(encoding="ascii"))
    return told
