"""Ways to reach a device: one file here is one transport, found by listing this folder.

A transport file holds `connect(device: DeviceDescription) -> Transport`, and is imported only when
a device asks for it, so that its dependencies stay optional.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from typing import TYPE_CHECKING, Any, cast

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from device_agents.api import DeviceDescription, Transport


def names() -> tuple[str, ...]:
    """Return the known transports."""
    found = (item.name for item in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def connect(device: DeviceDescription) -> Transport:
    """Connect to the device over its transport.

    Raises ConfigError for an unknown transport; Unreachable, HostKeyError, AuthenticationFailed.
    """
    return cast("Transport", _module(device).connect(device))


def time_of(
    device: DeviceDescription,
) -> tuple[Callable[[], float], Callable[[float], object] | None]:
    """Return the clock and the pause, in seconds, by which a host deals with the device.

    They are the host's own, but for a transport whose devices live in virtual time: its file holds
    `time_of(device)` too. No pause means the session's own, which ends with an abort.
    """
    own = getattr(_module(device), "time_of", None)
    return cast("Any", own)(device) if own else (time.monotonic, None)


def _module(device: DeviceDescription) -> ModuleType:
    if device.transport not in names():
        raise ConfigError(
            f"device {device.name!r}: no transport {device.transport!r} known; "
            f"have {', '.join(names())}; correct `transport` in its profile"
        )
    return importlib.import_module(f"{__name__}.{device.transport}")
