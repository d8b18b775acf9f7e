"""Two model files on one device: which is faster, by how much, and is that known?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.api import Failure, Measurement
from device_agents.errors import DeviceError
from device_agents.model_files import RUNTIME_OF, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from device_agents.api import BenchProtocol, TensorValue
    from device_agents.runner import Device
    from profiles.schema import DeviceProfile

ALIKE = 0.02
"""A difference below this is nobody's reason to change files, however surely it is there."""


@dataclass(frozen=True, slots=True)
class TwoFiles:
    """What two files take on a device.

    Attributes:
        first_ms: median latency of the first.
        second_ms: of the second.
        ratio: of the second's latency to the first's.
        ratio_ci95: its 95 % interval.
        in_turns: whether they ran in turns in one process, which other work disturbs least; files
            of two runtimes cannot.
        verdict: of the measurements: valid, suspect or invalid, the worst of them.
        reasons: why it is not valid.
    """

    first_ms: float
    second_ms: float
    ratio: float
    ratio_ci95: tuple[float, float]
    in_turns: bool
    verdict: str
    reasons: tuple[str, ...] = ()

    def sentence(self, first: str, second: str, device: str) -> str:
        """Say what follows for a person who has to choose."""
        low, high = self.ratio_ci95
        figures = (
            f"{self.second_ms:.4f} against {self.first_ms:.4f} ms, ratio {self.ratio:.3f}, 95 % "
            f"interval {low:.3f} to {high:.3f}"
        )
        if high < 1 - ALIKE:
            return f"{second} is {1 / self.ratio:.2f} times as fast on {device} ({figures}): use it"
        if low > 1 + ALIKE:
            return (
                f"{first} is {self.ratio:.2f} times as fast on {device} ({figures}): stay with it"
            )
        if low > 1 - ALIKE and high < 1 + ALIKE:
            return f"both are as fast on {device} ({figures}): choose by accuracy and size"
        return (
            f"they are not told apart on {device} ({figures}): measure with --protocol thorough on "
            "a quiet device, or choose by accuracy and size"
        )


def measure_two(
    open_device: Callable[[DeviceProfile], AbstractContextManager[Device]],
    profile: DeviceProfile,
    files: tuple[Path, Path],
    protocol: BenchProtocol,
    *,
    threads: int = 0,
    shapes: tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]] = ({}, {}),
    inputs: tuple[Sequence[TensorValue], Sequence[TensorValue]] = ((), ()),
) -> TwoFiles:
    """Measure two files: in turns where one runtime takes both, else one after the other twice.

    Args:
        open_device: gives the device of a profile, for as long as it is held.
        profile: of the device; its runtime is that of the files.
        files: their paths.
        protocol: how long and how often.
        threads: of the runtime; 0 for the device's own.
        shapes: of what each file leaves open.
        inputs: what each is run on, as `Device.measure` takes it.

    Raises:
        ConfigError: a file is none that a runtime takes.
        DeviceError: the device cannot run one of them.
    """
    first, second = (RUNTIME_OF[read(path).format] for path in files)
    own, other = (dict(given) for given in shapes)
    if first == second:
        with open_device(replace(profile, runtime=first)) as device:
            found = _valid(
                device.measure(
                    files[1],
                    protocol,
                    reference=files[0],
                    threads=threads,
                    shapes=other,
                    reference_shapes=own,
                    inputs=(inputs[1], inputs[0]),
                ),
                files[1],
            )
        if found.ratio is None or found.ratio_ci95 is None or found.reference_median_ms is None:
            raise DeviceError("the comparison gave no ratio; measure again")
        return TwoFiles(
            found.reference_median_ms,
            found.median_ms,
            found.ratio,
            found.ratio_ci95,
            in_turns=True,
            verdict=found.verdict,
            reasons=found.reasons,
        )
    rounds: list[tuple[Measurement, Measurement]] = []
    for _ in range(2):
        each = []
        subjects = zip(files, (first, second), (own, other), inputs, strict=True)
        for path, runtime, given, fed in subjects:
            with open_device(replace(profile, runtime=runtime)) as device:
                timed = device.measure(
                    path, protocol, threads=threads, shapes=given, inputs=(fed, ())
                )
                each.append(_valid(timed, path))
        rounds.append((each[0], each[1]))
    return _apart(rounds)


def _valid(timed: Measurement | Failure, path: Path) -> Measurement:
    if isinstance(timed, Failure):
        raise DeviceError(f"{path.name} cannot be timed: {timed.reason}")
    return timed


def _apart(rounds: list[tuple[Measurement, Measurement]]) -> TwoFiles:
    """Return what two rounds come to: the interval holds what either round leaves possible."""
    lows, highs, ratios = [], [], []
    for first, second in rounds:
        ratios.append(second.median_ms / first.median_ms)
        lows.append(second.ci95_ms[0] / first.ci95_ms[1])
        highs.append(second.ci95_ms[1] / first.ci95_ms[0])
    measured = [timed for pair in rounds for timed in pair]
    order = ("valid", "suspect", "invalid")
    worst = max((timed.verdict for timed in measured), key=order.index)
    reasons = tuple(dict.fromkeys(reason for timed in measured for reason in timed.reasons))
    return TwoFiles(
        min(first.median_ms for first, _ in rounds),
        min(second.median_ms for _, second in rounds),
        sum(ratios) / len(ratios),
        (min(lows), max(highs)),
        in_turns=False,
        verdict=worst,
        reasons=reasons,
    )
