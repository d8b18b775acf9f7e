"""Opens a device by what its profile says: with the agent, or with the user's benchmark_model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from device_agents.runner import Device
from device_agents.tool_device import RUNTIME, ToolDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import DeviceDescription, Leases


def open_device(
    description: DeviceDescription,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    leases: Leases | None = None,
) -> Device | ToolDevice:
    """Connect and get ready to measure; raises what `Device.open` and `ToolDevice.open` raise."""
    if description.runtime == RUNTIME:
        return ToolDevice.open(description, clock=clock, leases=leases)
    return Device.open(description, clock=clock, leases=leases)
