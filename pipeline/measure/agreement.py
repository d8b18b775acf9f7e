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
import numpy.typing as npt

from device_agents import golden
from device_agents.agent.runtimes import random_array
from device_agents.api import Failure, TensorValue
from device_agents.errors import AgentError, DeviceError, RuntimeMissing, VerificationError
from device_agents.refusals import last_words
from device_agents.runner import Device
from pipeline.formats.numbers import Numbers, numbers_of
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from device_agents.api import Inference, Runs, Shapes, TensorInfo
    from device_agents.golden import Golden

Samples = list[npt.NDArray[Any]]

LEAST_DB: dict[Numbers, float] = {"integers": 10.0, "halves": 25.0, "floats": 40.0}
"""The least agreement of the outputs, by the file's number format: kernels differ in rounding.

Sums in half precision, as some ARM kernels make them, agree to 36 dB after 50 layers.
"""

_CODES = 2.0  # of an integer output: so far apart are right kernels, however small the output
_SATURATION_DB = 6.0  # that plain kernels must be better by before saturation is named
_GOOD_DB = 40.0
_FEW = 32  # values of an output that are too few for a share
_SAMPLES = 4
_SEED = 7
_SENT_BYTES = 8 * 2**20
_LARGEST_BYTES = 64 * 2**20
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


class Incomparable(Exception):
    """The outputs cannot be held against this computer's; says why, in a clause."""


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
            without them they are generated, as for `bench`.
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
        samples = inputs or generated(about)
        with _Reference(device, path, run, runtime, shapes, examined) as reference:
            compared = _compared(path, run, reference, examined, samples)
    except Incomparable as reason:
        if not examined.right:
            raise DeviceError(
                f"device {device.name!r} computes wrongly and {path.name} could not be checked "
                f"({reason}): {examined.sentence}; {golden.advice(device.name)}"
            ) from reason
        return Checked(None, f"not compared: {reason}; {examined.sentence}")
    return _judged(device, path, compared, examined)


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
    db, close = agreement(here, there, limit_db)
    plain_db = None
    if numbers == "integers" and examined.saturates and db < _GOOD_DB:
        better, _ = agreement(here, run(sent, plain=True), limit_db)
        plain_db = better if better > db + _SATURATION_DB else None
    if not close and plain_db is None:
        nudged = [_nudged(a, _NUDGES[numbers]) for a in samples]
        moved = [TensorValue(a.dtype.name, a.shape, a.tobytes()) for a in nudged]
        if not agreement(here, reference.run(moved), limit_db)[1]:
            raise Incomparable(
                "its outputs jump at changes as small as kernels differ by on random inputs"
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
            raise Incomparable(f"this computer cannot run it: {why}") from error
        if not all(np.isfinite(array).all() for array, _ in _arrays_of(found)):
            raise Incomparable("its outputs on generated inputs are not finite")
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


def generated(about: Inference) -> Samples:
    """Return seeded inputs like those of `bench`, one array (samples, …) for each input.

    Raises:
        Incomparable: there are none, or they or the outputs would be too large to send.
    """
    if not about.inputs_info:
        raise Incomparable("it has no inputs")
    ends = (*about.inputs_info, *about.outputs_info)
    largest = sum(math.prod(info.shape) * np.dtype(info.dtype).itemsize for info in ends)
    if largest > _LARGEST_BYTES:
        raise Incomparable(f"its inputs and outputs are {largest / 1e6:.0f} MB")
    count = max(1, min(_SAMPLES, _SENT_BYTES // max(1, largest)))
    return [
        np.stack(
            [random_array(_SEED + place + 97 * n, info.dtype, info.shape) for n in range(count)]
        )
        for place, info in enumerate(about.inputs_info)
    ]


def agreement(here: Inference, there: Inference, limit_db: float) -> tuple[float, bool]:
    """Return the SQNR of the worst output in dB, and whether all outputs are close enough.

    Raises:
        Incomparable: nothing comes out that could be told apart.
    """
    shapes = [[(v.dtype, v.shape) for v in found.outputs] for found in (here, there)]
    if shapes[0] != shapes[1]:
        return -math.inf, False
    worst_db, close, judged = math.inf, True, False
    for (wanted, info), (got, _) in zip(_arrays_of(here), _arrays_of(there), strict=True):
        if info.scale is None and np.dtype(info.dtype).kind in "iub":
            # Classes and counts: one step apart is as wrong as many, and near ties turn over.
            judged = judged or wanted.size >= _FEW
            close = close and (wanted.size < _FEW or float(np.mean(wanted == got)) >= 0.5)
            continue
        judged = True
        signal, noise = (
            np.square(part).reshape(len(part), -1).sum(axis=1) for part in (wanted, got - wanted)
        )
        each = [_decibels(s, n) for s, n in zip(signal.tolist(), noise.tolist(), strict=True)]
        db = float(np.median(each))
        codes = math.sqrt(float(np.mean(np.square(got - wanted)))) / (info.scale or math.inf)
        # Written so that NaN, which compares false with everything, fails.
        close = close and (db >= limit_db or (info.scale is not None and codes <= _CODES))
        worst_db = min(worst_db, -math.inf if math.isnan(db) else db)
    if not judged:
        raise Incomparable("it gives class numbers only")
    return worst_db, close


def _arrays_of(found: Inference) -> list[tuple[npt.NDArray[np.float64], TensorInfo]]:
    """Return the outputs as real numbers; raises Incomparable for texts and complex numbers."""
    arrays = []
    for value, info in zip(found.outputs, found.outputs_info, strict=True):
        if np.dtype(value.dtype).kind not in "fiub":
            raise Incomparable(f"its output {info.name!r} is of the type {value.dtype}")
        array = np.frombuffer(value.data, value.dtype).reshape(value.shape).astype(np.float64)
        if info.scale is not None and info.zero_point is not None:
            array = (array - info.zero_point) * info.scale
        arrays.append((array, info))
    return arrays


def _nudged(array: npt.NDArray[Any], share: float) -> npt.NDArray[Any]:
    rng = np.random.default_rng(_SEED)
    if array.dtype.kind == "f":
        moved = array * (1 + share * rng.standard_normal(array.shape))
        return np.ascontiguousarray(moved, array.dtype)
    if array.dtype.itemsize > 1:
        return array
    limits = np.iinfo(array.dtype)
    steps = rng.integers(-1, 1, array.shape, endpoint=True)
    moved = np.clip(array.astype(np.int64) + steps, limits.min, limits.max)
    return np.ascontiguousarray(moved, array.dtype)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
