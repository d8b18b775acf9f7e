"""What the doctor says of a device, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: unknown when the device does not tell.
        found: what was found, in words and numbers.
        advice: the command or act that mends it; empty when nothing is wrong.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was looked at, in order.

    Attributes:
        device: its name.
        board: what it was recognised as; empty when it could not be reached.
        checks: one finding each.
    """

    device: str
    board: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed; warnings do not count."""
        return all(check.status != "fail" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"healthy": self.healthy, **asdict(self)}
