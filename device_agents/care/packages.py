"""How packages are installed on a device, told by its own /etc/os-release and by nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.care.probe import Probe


@dataclass(frozen=True, slots=True)
class Manager:
    """A package manager: its commands, and what it calls the packages that we name by Debian's.

    Attributes:
        install: the command without the package.
        clean: what frees its cache; empty: it keeps none.
        names: of packages that it calls otherwise; empty text: it has none.
    """

    install: str
    clean: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


_FIRMWARE = "raspi-utils"
_NO_FIRMWARE = {_FIRMWARE: ""}
_APT = Manager("sudo apt install", "sudo apt clean")
_APK = Manager(
    "apk add",
    "apk cache clean",
    {"python3-numpy": "py3-numpy", _FIRMWARE: "raspberrypi-utils"},
)
_OPKG = Manager("opkg update; opkg install", names=_NO_FIRMWARE)
_DNF = Manager("sudo dnf install", "sudo dnf clean all", _NO_FIRMWARE)
_ZYPPER = Manager("sudo zypper install", "sudo zypper clean", _NO_FIRMWARE)
_PACMAN = Manager(
    "sudo pacman -S",
    "sudo pacman -Sc",
    {"python3": "python", "python3-numpy": "python-numpy", _FIRMWARE: ""},
)
# By the ID of the system, or an entry of its ID_LIKE.
_MANAGERS = {
    **dict.fromkeys(("debian", "ubuntu", "raspbian", "devuan", "kali", "linuxmint"), _APT),
    **dict.fromkeys(("alpine", "postmarketos"), _APK),
    **dict.fromkeys(("openwrt", "lede"), _OPKG),
    **dict.fromkeys(("fedora", "rhel", "centos", "rocky", "almalinux"), _DNF),
    **dict.fromkeys(("arch", "archarm", "manjaro", "manjaro-arm"), _PACMAN),
    **dict.fromkeys(("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed"), _ZYPPER),
}
# Systems that are built as a whole: their packages come with the image.
_IMAGES = ("poky", "openembedded", "yocto", "nodistro", "buildroot")


def how_to_install(probe: Probe, package: str) -> str:
    """Return the end of a sentence that says how to get a package; `package` is Debian's name."""
    system = _system(probe)
    manager = _manager(system)
    name = package if manager is None else manager.names.get(package, package)
    if manager is not None and name:
        return f"run `{manager.install} {name}` on the device"
    if any(name in _IMAGES for name in system):
        return (
            f"add {package} to the device's image, whose system ({system[0]}) is built as a whole"
        )
    return f"install {package} on the device by its own package manager, or build it"


def how_to_clean(probe: Probe) -> str:
    """Return the command that frees the package manager's cache; empty where none is known."""
    manager = _manager(_system(probe))
    return "" if manager is None else manager.clean


def _manager(system: list[str]) -> Manager | None:
    return next((_MANAGERS[name] for name in system if name in _MANAGERS), None)


def _system(probe: Probe) -> list[str]:
    """Return the ID and then what the system is like; empty where neither is told."""
    os_release = probe.text("os_release") or ""
    found: list[str] = []
    for key in ("ID", "ID_LIKE"):
        line = re.search(rf"^{key}=[\"']?([\w. -]*)", os_release, re.MULTILINE)
        found += line[1].lower().split() if line else []
    return found
