"""Whether a measurement may be believed: valid, suspect or invalid, with reasons in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_agents.api import BenchProtocol, SensorReading, Verdict

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
    """

    before: SensorReading
    after: SensorReading
    spread: float
    half_width: float
    fewest_samples: int
    unsettled: int
    processes: int
    thermal_limit_celsius: float | None


def judge(evidence: Evidence, protocol: BenchProtocol) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and every reason for it; state of the device makes it invalid."""
    invalid, suspect = _broken(evidence), _doubtful(evidence, protocol)
    verdict: Verdict = "invalid" if invalid else "suspect" if suspect else "valid"
    return verdict, (*invalid, *suspect)


def _broken(evidence: Evidence) -> list[str]:
    before, after = evidence.before, evidence.after
    reasons = []
    if before.boot_id != after.boot_id:
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
    limit = evidence.thermal_limit_celsius
    hottest = max((r.soc_celsius for r in (before, after) if r.soc_celsius is not None), default=0)
    if limit is not None and hottest > limit:
        reasons.append(f"{hottest:.1f} °C is over the limit of {limit:.1f} °C")
    return reasons


def _doubtful(evidence: Evidence, protocol: BenchProtocol) -> list[str]:
    reasons = []
    if evidence.spread > protocol.suspect_spread:
        reasons.append(
            f"spread within a process {evidence.spread:.1%} is over {protocol.suspect_spread:.1%}"
        )
    if evidence.half_width > protocol.target_half_width:
        reasons.append(
            f"precision ± {evidence.half_width:.1%} is short of ± {protocol.target_half_width:.1%}"
        )
    if evidence.fewest_samples < protocol.min_samples:
        reasons.append(
            f"{evidence.fewest_samples} samples in a process are fewer than {protocol.min_samples}"
        )
    if evidence.unsettled:
        reasons.append(
            f"warm-up did not settle within {protocol.warmup_max_ms:g} ms in "
            f"{evidence.unsettled} of {evidence.processes} processes"
        )
    return reasons
