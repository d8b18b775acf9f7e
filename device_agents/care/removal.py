"""Takes away from a device what was put there, and nothing else.

Only what edgewright makes is removed, by name: the profile's directory may be one that
holds other things. It goes, too, when it is empty then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from device_agents import transports
from device_agents.care import probe
from device_agents.care.alone import hold
from device_agents.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription, Leases

# Arguments: directory, what is ours there (one word), what becomes of releases.
_SCRIPT = r"""
[ -d "$1" ] || { echo done; exit 0; }
cd "$1" || exit 1
rm -f deployed/.mutex
rmdir deployed/* deployed 2>/dev/null
all=$2
[ "$3" = remove ] && all="$2 deployed"
if [ "$3" = ask ] && [ -e deployed ]; then
    for path in deployed/*; do echo "asked $path"; done
    echo done
    exit 0
fi
for name in $all; do
    [ -e "$name" ] || continue
    rm -rf "./$name" && echo "removed $name" || echo "left $name"
done
for path in deployed/*; do [ -e "$path" ] && echo "kept $path"; done
cd / && rmdir "$1" 2>/dev/null
echo done
"""
_OURS = ("agent", "models", "incoming", "jobs", "runtime", "tools", "canary.json")
_TIMEOUT_S = 120.0
_PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Removed:
    """What was done on the device.

    Attributes:
        directory: where it lay.
        removed: what is gone.
        kept: releases that are still deployed there.
    """

    directory: str
    removed: tuple[str, ...]
    kept: tuple[str, ...]


def clean(
    device: DeviceDescription,
    *,
    releases: Literal["keep", "remove", "ask"] = "ask",
    leases: Leases | None = None,
) -> Removed:
    """Remove agent, models, jobs and runtimes; `releases` says what becomes of what is deployed.

    With `ask` nothing at all is removed where something is deployed, since it may be in use:
    ConfigError that names it. Nothing is removed either while others hold the device's lease.
    Raises DeadlineExceeded for that, DeviceError when something cannot be removed, and what
    connecting raises.
    """
    transport = transports.connect(device)
    try:
        directory = probe.absolute(device.directory, transport.home)
        arguments = [directory, " ".join(_OURS), releases]
        argv = ["sh", "-c", _SCRIPT, "edgewright-remove", *arguments]
        seen = probe.read(transport, directory=directory, timeout_s=_PROBE_TIMEOUT_S)
        with hold(device, seen, leases):
            done = transport.run(argv, timeout_s=_TIMEOUT_S)
    finally:
        transport.close()
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    said: dict[str, list[str]] | None = None
    if "done" in lines:
        said = {word: [] for word in ("removed", "left", "kept", "asked")}
    if said is not None:
        for line in lines:
            word, _, path = line.partition(" ")
            if path and word in said:
                said[word].append(path)
    if said is None or said["left"]:
        what = ", ".join(said["left"]) if said else "anything"
        raise DeviceError(
            f"device {device.name!r}: cannot remove {what} in {directory}: "
            f"{done.stderr.decode('utf-8', 'replace').strip()[:300]}; mend that there, or remove "
            "the profile alone with --keep-files"
        )
    if said["asked"]:
        raise ConfigError(
            f"device {device.name!r} has deployed releases that may be in use: "
            f"{', '.join(said['asked'])} in {directory}; say `--releases remove` or "
            "`--releases keep`"
        )
    return Removed(directory, tuple(said["removed"]), tuple(said["kept"]))
