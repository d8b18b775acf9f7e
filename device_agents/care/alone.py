"""Who looks after a device holds it like who measures on it: either spoils the other's work."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from device_agents.api import DeviceDescription, Leases
    from device_agents.care.probe import Probe

_WAIT_S = 10.0


def hold(
    device: DeviceDescription, seen: Probe, leases: Leases | None
) -> AbstractContextManager[object]:
    """Hold the probed device for a `with` block, under the key that measurements have for it.

    Raises DeadlineExceeded, which says who has it, when that is not given back soon.
    """
    if leases is None:
        return nullcontext()
    return leases.hold(seen.device_id or device.name, timeout_s=_WAIT_S, name=device.name)
