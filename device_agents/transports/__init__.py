"""Ways to reach a device: one file here is one transport, found by listing this folder.

A transport file holds `connect(device: DeviceDescription) -> Transport`, and is imported only when
a device asks for it, so that its dependencies stay optional.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription, Transport


def names() -> tuple[str, ...]:
    """Return the known transports."""
    found = (item.name for item in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def connect(device: DeviceDescription) -> Transport:
    """Connect to the device over its transport.

    Raises ConfigError for an unknown transport; Unreachable, HostKeyError, AuthenticationFailed.
    """
    if device.transport not in names():
        raise ConfigError(
            f"device {device.name!r}: no transport {device.transport!r} known; "
            f"have {', '.join(names())}; correct `transport` in its profile"
        )
    module = importlib.import_module(f"{__name__}.{device.transport}")
    return cast("Transport", module.connect(device))
