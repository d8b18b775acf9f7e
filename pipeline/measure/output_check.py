"""Does a file compute on a device what it computes here? Asked once before its figure is believed.

The same file runs on the same generated inputs on the device, as it would be used there, and on
this computer, by the plainest kernels of the same format's runtime. No image and no class is known
here: a user's file may be anything.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from device_agents import golden
from device_agents.api import Failure, TensorValue
from device_agents.errors import AgentError, DeviceError, RuntimeMissing, VerificationError
from device_agents.refusals import last_words
from device_agents.runner import Device
from pipeline.formats.generated_inputs import ADVICE
from pipeline.formats.numbers import numbers_of
from pipeline.measure.agreement import (
    Incomparable,
    arrays_of,
    compare_outputs,
    generate_inputs,
    nudge,
)
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from device_agents.api import Inference, Runs, Shapes
    from device_agents.golden import Golden
    from pipeline.formats.api import Numbers
    from pipeline.measure.agreement import Samples

LEAST_DB: dict[Numbers, float] = {"integers": 10.0, "halves": 25.0, "floats": 40.0}
"""The least agreement of the outputs, by the file's number format: kernels differ in rounding.

Sums in half precision, as some ARM kernels make them, agree to 36 dB after 50 layers.
"""

_SATURATION_DB = 6.0  # that plain kernels must be better by before saturation is named
_GOOD_DB = 40.0
_HOST_THREADS = 2
# About what one rounding changes.
_NUDGES: dict[Numbers, float] = {"integers": 1 / 256, "halves": 1 / 2048, "floats": 1e-5}


@dataclass(frozen=True, slots=True)
class Checked:
    """How a file's outputs on a device compare with this computer's.

    Attributes:
        sqnr_db: 10 log10 of the power of this computer's outputs over that of the difference, of
            the median sample and the worst output; infinite: equal; None: not compared.
        words: the result, or why there is none, in one clause.
    """

    sqnr_db: float | None
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which knows no infinity: equal outputs have no `sqnr_db` either."""
        known = self.sqnr_db is not None and math.isfinite(self.sqnr_db)
        return {
            "compared": self.sqnr_db is not None,
            "sqnr_db": self.sqnr_db if known else None,
            "words": self.words,
        }


def check_outputs(
    device: Device,
    path: Path,
    run: Runs,
    *,
    runtime: str,
    examined: Golden | Failure | None,
    inputs: Samples | None = None,
    shapes: Shapes | None = None,
) -> Checked:
    """Hold a file's outputs on a device against this computer's.

    Args:
        device: where.
        path: the file here.
        run: runs that file on the device.
        runtime: of the agent, such as tflite.
        examined: what the device made of the golden model: `device.golden(…)`, asked before.
        inputs: one array (samples, …) for each of the file's inputs, in its own number formats;
            without them they are generated.
        shapes: for inputs whose shape the file leaves open; `run` knows them already.

    Raises:
        VerificationError: it computes something else there.
        DeviceError: it does not run there; or it cannot be compared, and the runtime there is
            known to compute wrongly.
    """
    if isinstance(examined, Failure):
        raise DeviceError(examined.reason)
    if examined is None:
        return Checked(None, f"not checked: the {runtime} runtime computes no networks")
    try:
        about = run(())
        samples = inputs or generate_inputs(about)
        with _Reference(device, path, run, runtime, shapes, examined) as reference:
            compared = _compared(path, run, reference, examined, samples)
    except Incomparable as found:
        reason = f"{found}{ADVICE if isinstance(found, _Unsuited) and not inputs else ''}"
        if not examined.right:
            raise DeviceError(
                f"device {device.name!r} computes wrongly and {path.name} could not be checked "
                f"({reason}): {examined.sentence}; {golden.advice(device.name)}"
            ) from found
        return Checked(None, f"not compared: {reason}; {examined.sentence}")
    return _judged(device, path, compared, examined)


class _Unsuited(Incomparable):
    """The inputs may be to blame."""


@dataclass(frozen=True, slots=True)
class _Compared:
    sqnr_db: float
    limit_db: float
    close: bool
    host: str
    plain_db: float | None


def _judged(device: Device, path: Path, found: _Compared, examined: Golden) -> Checked:
    at = f"{found.sqnr_db:.1f} dB"
    saturates = ""
    if found.plain_db is not None:
        plain = "exact" if math.isinf(found.plain_db) else f"{found.plain_db:.1f} dB"
        saturates = (
            f"the int8 kernels of {examined.package} saturate on this file there ({plain} without "
            "them), since the processor has no VNNI, and is not broken: export the file "
            "anew, without --signed-weights, or use its .tflite"
        )
    if not found.close:
        why = saturates or f"{examined.sentence}; {golden.advice(device.name)}"
        raise VerificationError(
            f"{path.name} does not compute on device {device.name!r} what it computes on this "
            f"computer with {found.host}: the outputs agree to {at}, at least {found.limit_db:g} "
            f"dB are needed; {why}"
        )
    words = f"agree with this computer's ({found.host}) to {at}"
    if math.isinf(found.sqnr_db):
        words = f"equal this computer's ({found.host})"
    if saturates:
        words += f"; {saturates}"
    elif not examined.right:
        words += f"; {examined.sentence}, which this file does not suffer from"
    return Checked(found.sqnr_db, words)


def _compared(
    path: Path, run: Runs, reference: _Reference, examined: Golden, samples: Samples
) -> _Compared:
    sent = [TensorValue(a.dtype.name, a.shape, np.ascontiguousarray(a).tobytes()) for a in samples]
    numbers = numbers_of(path)
    limit_db = LEAST_DB[numbers]
    here = reference.run(sent)
    there = run(sent)
    db, close = compare_outputs(here, there, limit_db)
    plain_db = None
    if numbers == "integers" and examined.saturates and db < _GOOD_DB:
        better, _ = compare_outputs(here, run(sent, plain=True), limit_db)
        plain_db = better if better > db + _SATURATION_DB else None
    if not close and plain_db is None:
        nudged = [nudge(a, _NUDGES[numbers]) for a in samples]
        moved = [TensorValue(a.dtype.name, a.shape, a.tobytes()) for a in nudged]
        if not compare_outputs(here, reference.run(moved), limit_db)[1]:
            raise _Unsuited(
                "its outputs jump at changes of the inputs as small as kernels differ by"
            )
    return _Compared(db, limit_db, close, reference.package, plain_db)


class _Reference:
    """The same file on this computer, by plain kernels, for a `with` block."""

    def __init__(
        self,
        device: Device,
        path: Path,
        run: Runs,
        runtime: str,
        shapes: Shapes | None,
        examined: Golden,
    ) -> None:
        self._device, self._path, self._run, self._runtime = device, path, run, runtime
        self._shapes, self._examined = shapes, examined
        self.package = ""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._own: Device | None = None

    def __enter__(self) -> Self:
        if self._device.is_this_computer:
            # Not asked again: who deploys holds the device's lease already.
            _refuse_wrong(self._examined)
            self.package = f"{self._device.hello['runtimes'].get(self._runtime)}, plain kernels"
            return self
        self._folder = tempfile.TemporaryDirectory(prefix="edgewright-reference-")
        profile = DeviceProfile(
            name="this computer",
            transport="local",
            directory=self._folder.name,
            runtime=self._runtime,
            threads=_HOST_THREADS,
        )
        try:
            self._own = Device.open(profile)
            _refuse_wrong(self._own.golden(runtime=self._runtime))
        except BaseException as error:
            self.__exit__()
            if isinstance(error, RuntimeMissing):
                raise Incomparable(f"this computer has no {self._runtime} runtime") from error
            if isinstance(error, DeviceError):
                raise Incomparable(f"no agent starts on this computer: {error}") from error
            raise
        self.package = str(self._own.hello["runtimes"].get(self._runtime))
        self._run = self._own.runs(self._path, shapes=self._shapes)
        return self

    def run(self, inputs: Sequence[TensorValue]) -> Inference:
        """Run it by plain kernels. Raises Incomparable."""
        try:
            found = self._run(inputs, plain=True)
        except AgentError as error:
            why = last_words(error) or str(error)
            unfit = _Unsuited if error.kind == "invoke_failed" else Incomparable
            raise unfit(f"this computer cannot run it: {why}") from error
        if not all(np.isfinite(array).all() for array, _ in arrays_of(found)):
            raise _Unsuited("its outputs are not finite")
        return found

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()
        if self._folder is not None:
            self._folder.cleanup()


def _refuse_wrong(examined: Golden | Failure | None) -> None:
    """Refuse to be held against a runtime here that computes wrongly itself."""
    if isinstance(examined, Failure):
        raise Incomparable(f"the runtime here does not answer: {examined.reason}")
    if examined is not None and not examined.right:
        raise Incomparable(f"on this computer {examined.sentence}")
