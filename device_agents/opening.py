"""Opens a device by what its profile says: with the agent, or with the user's benchmark_model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from device_agents.measure.steps import silent
from device_agents.runner import Device
from device_agents.tool_device import RUNTIME, ToolDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import DeviceDescription, Leases
    from device_agents.measure.steps import Sent, Step


def open_device(
    description: DeviceDescription,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    leases: Leases | None = None,
    on_step: Callable[[Step | Sent], object] = silent,
) -> Device | ToolDevice:
    """Connect and get ready to measure; `on_step` is told how far that is, and what comes later.

    Raises what `Device.open` and `ToolDevice.open` raise.
    """
    if description.runtime == RUNTIME:
        return ToolDevice.open(description, clock=clock, leases=leases, on_step=on_step)
    return Device.open(description, clock=clock, leases=leases, on_step=on_step)
