"""How the virtual devices that are made from a Debian image are reached."""

from __future__ import annotations

import dataclasses
import socket
from typing import TYPE_CHECKING, Any

from profiles.registry import load_device

if TYPE_CHECKING:
    from pathlib import Path

    from profiles.schema import DeviceProfile
    from scripts.lab.debian import Image


def profile_values(name: str, port: int, image: Image, known_hosts: Path) -> dict[str, Any]:
    """Return the values of a device profile which reaches a device made from `image`."""
    known_hosts.write_text(f"[127.0.0.1]:{port} {image.host_key}\n", encoding="utf-8")
    return {
        "extends": f"virtual_{name}",
        "address": "127.0.0.1",
        "port": port,
        "identity_file": str(image.identity),
        "known_hosts": str(known_hosts),
    }


def greets(port: int, *, timeout_s: float) -> bool:
    """Tell whether an SSH server greets there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def profile(values: dict[str, Any], **changes: Any) -> DeviceProfile:
    """Return the profile that a file with those values stands for, with `changes` on top."""
    template = values["extends"]
    own = {key: value for key, value in values.items() if key != "extends"}
    name = template.removeprefix("virtual_")
    return dataclasses.replace(load_device(template), **{"name": name, **own, **changes})
