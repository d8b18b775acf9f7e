"""Whether a measurement may be believed: valid, suspect or invalid, with reasons in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_agents.api import BenchProtocol, SensorReading, Verdict
    from device_agents.measure.cooling import Canary
    from device_agents.measure.modes import Modes

_THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_THERMAL_LIMIT = 2
# A clock is told in steps and measured by counting: this much below nominal is still nominal.
_CLOCK_TOLERANCE = 0.02

# vcgencmd get_throttled; the bits 16 higher say the same since boot, and stay until reboot.
_THROTTLE_BITS = {
    0: "under-voltage (change the power supply or cable)",
    1: "clock capped (cool the device)",
    2: "throttled (cool the device)",
    3: "soft temperature limit (cool the device)",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is made from.

    Attributes:
        spread: robust coefficient of variation within a process, the median over processes.
        half_width: half-width of the 95 % interval of the deciding figure (the ratio to the
            reference if there is one, else the median), as a share of it.
        fewest_samples: timed invokes of the model in the process that has fewest.
        unsettled: processes whose warm-up reached its limit before the times stood still.
        processes: how many processes there were.
        process_cv: coefficient of variation of the deciding figure over processes.
        canary: after the run; None where it was not asked for or cannot be run.
        nominal_clock_khz: the clock that the device has at load; None: unknown.
        core_max_khz: highest clock of the core that worked, where others have a higher one.
        step_ms: the steps in which the device's clock moves on; 0: finer than can be seen.
        step_share: what one step is of the figure, at the samples' length.
        invoke_modes: of the invokes within processes; None: of one kind.
        process_modes: of the processes' own medians, in ms also where a ratio decides.
    """

    before: SensorReading
    after: SensorReading
    spread: float
    half_width: float
    fewest_samples: int
    unsettled: int
    processes: int
    thermal_limit_celsius: float | None
    process_cv: float = 0.0
    canary: Canary | None = None
    nominal_clock_khz: int | None = None
    core_max_khz: int | None = None
    step_ms: float = 0.0
    step_share: float = 0.0
    invoke_modes: Modes | None = None
    process_modes: Modes | None = None

    @property
    def expected_clock_khz(self) -> int | None:
        """What the core that worked should run at: its own highest clock, or the nominal one."""
        known = [khz for khz in (self.nominal_clock_khz, self.core_max_khz) if khz is not None]
        return None if self.nominal_clock_khz is None else min(known)


def judge(evidence: Evidence, protocol: BenchProtocol) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and every reason for it; state of the device makes it invalid."""
    invalid = [*_broken(evidence), *_slowed(evidence, protocol.canary_limit)]
    suspect = _doubtful(evidence, protocol)
    verdict: Verdict = "invalid" if invalid else "suspect" if suspect else "valid"
    return verdict, (*invalid, *suspect)


def _broken(evidence: Evidence) -> list[str]:
    before, after = evidence.before, evidence.after
    reasons = []
    if None not in (before.boot_id, after.boot_id) and before.boot_id != after.boot_id:
        reasons.append("the device rebooted during the measurement")
    if before.throttled is not None and after.throttled is not None:
        new = after.throttled & ~before.throttled
        active = before.throttled | after.throttled
        for bit, meaning in _THROTTLE_BITS.items():
            if active >> bit & 1 or new >> (bit + 16) & 1:
                reasons.append(
                    f"throttle flags {before.throttled:#x} before and {after.throttled:#x} after: "
                    f"{meaning}"
                )
    told = [r.governing_celsius for r in (before, after) if r.governing_celsius is not None]
    limit = evidence.thermal_limit_celsius
    if limit is not None and told and max(told) > limit:
        reasons.append(f"{max(told):.1f} °C is over the limit of {limit:.1f} °C")
    return reasons


def _slowed(evidence: Evidence, canary_limit: float | None) -> list[str]:
    reasons = []
    status = max(evidence.before.thermal_status or 0, evidence.after.thermal_status or 0)
    if status >= _THERMAL_LIMIT:
        word = _THERMAL_STATUS[min(status, len(_THERMAL_STATUS) - 1)]
        reasons.append(f"thermal status {status} ({word}): the device slows itself down")
    clock, expected = evidence.after.clock_khz, evidence.expected_clock_khz
    if clock is not None and expected is not None and clock < expected * (1 - _CLOCK_TOLERANCE):
        whose = "nominal" if expected == evidence.nominal_clock_khz else "core's own"
        reasons.append(
            f"the clock at load fell to {clock / 1000:.0f} MHz, below the {whose} "
            f"{expected / 1000:.0f} MHz"
        )
    canary = evidence.canary
    if canary is not None and canary_limit is not None and canary.factor > canary_limit:
        reasons.append(
            f"the device slowed down: canary {canary.factor:.2f} x its idle value, over "
            f"{canary_limit:.2f} x"
        )
    return reasons


def _doubtful(evidence: Evidence, protocol: BenchProtocol) -> list[str]:
    reasons = []
    if evidence.spread > protocol.suspect_spread:
        reasons.append(
            f"spread within a process {evidence.spread:.1%} is over {protocol.suspect_spread:.1%}"
        )
    target = protocol.target_half_width
    if evidence.step_share > target:
        reasons.append(
            f"the device's clock moves in steps of {evidence.step_ms:g} ms: the figure is known to "
            f"± {evidence.step_share:.1%} at best, short of ± {target:.1%}"
        )
    elif evidence.half_width > target:
        reasons.append(f"precision ± {evidence.half_width:.1%} is short of ± {target:.1%}")
    if evidence.process_cv > protocol.suspect_process_cv:
        reasons.append(
            f"variation over {evidence.processes} processes {evidence.process_cv:.1%} is over "
            f"{protocol.suspect_process_cv:.1%}"
        )
    reasons += _mixed(evidence)
    if evidence.fewest_samples < protocol.min_samples:
        reasons.append(
            f"{evidence.fewest_samples} samples in a process are fewer than {protocol.min_samples}"
            if evidence.fewest_samples != 1
            else f"1 sample in a process is fewer than {protocol.min_samples}"
        )
    if evidence.unsettled:
        reasons.append(
            f"warm-up did not settle within {protocol.warmup_max_ms:g} ms in "
            + (
                f"{evidence.unsettled} of {evidence.processes} processes"
                if evidence.processes > 1
                else "the only process"
            )
        )
    return reasons


def _mixed(evidence: Evidence) -> list[str]:
    """Return the reasons for which one number cannot stand for all invokes."""
    reasons = []
    for what, modes in (
        ("invokes within a process", evidence.invoke_modes),
        (f"{evidence.processes} processes", evidence.process_modes),
    ):
        if modes is not None:
            reasons.append(
                f"two modes: {modes.slow_share:.0%} of the {what} take {modes.factor:.2f} x as "
                "long as the others (slow and fast cores, a changing clock, or other work); "
                "choose the cores with `cpus` in the profile"
            )
    known, nominal = evidence.core_max_khz, evidence.nominal_clock_khz
    if known is not None and nominal is not None and known < nominal * (1 - _CLOCK_TOLERANCE):
        reasons.append(
            f"it ran on a core of at most {known / 1000:.0f} MHz, not on one of the nominal "
            f"{nominal / 1000:.0f} MHz; choose the cores with `cpus` in the profile"
        )
    return reasons
