"""Frees a device's disk of what can be sent again: models, programs pushed for a run, agents.

Releases, runtimes and agents at work stay; of the folders only what lies in them goes. A shell does
it, so that it works on devices without Python, too; which agents are at work, /proc tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents import transports
from device_agents.care import probe
from device_agents.care.alone import hold
from device_agents.errors import DeviceError
from device_agents.plural import number_of

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription, Leases, Transport

# Arguments: directory, and `clean` or `look`. Links are neither counted nor followed.
_SCRIPT = r"""
kb() { n=$(du -sk "$1" 2>/dev/null); n=${n%%[!0-9]*}; echo "${n:-0}"; }
if [ -d "$1" ]; then
    cd "$1" || exit 1
    at_work() { [ ! -r /proc/self/cmdline ] || grep -qs "[e]${1#e}" /proc/[0-9]*/cmdline; }
    for folder in models tools agent; do
        [ -d "$folder" ] && [ ! -h "$folder" ] || continue
        before=$(kb "$folder")
        count=0
        for path in "$folder"/* "$folder"/.part*; do
            [ -e "$path" ] || [ -h "$path" ] || continue
            case $path in
                agent/edgewright-agent-*.pyz) at_work "${path#*/}" && continue ;;
                agent/*) continue ;;
            esac
            [ "$2" = look ] || rm -rf "./$path" || { echo "left $path"; continue; }
            count=$((count + 1))
        done
        after=0
        [ "$2" = look ] || after=$(kb "$folder")
        [ $count -gt 0 ] || before=$after
        echo "found $folder $count $((before - after))"
    done
fi
echo done
"""
_TIMEOUT_S = 120.0
_PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Held:
    """What lies in a device's folders for models, programs and agents, or lay there.

    Attributes:
        directory: the device's.
        models: how many files.
        programs: how many; benchmark_model and the like.
        agents: how many; those at work are not counted.
        size_bytes: of all these, as the disk counts.
    """

    directory: str
    models: int
    programs: int
    agents: int
    size_bytes: int

    @property
    def words(self) -> str:
        """Say how much it is."""
        numbers = {"model": self.models, "program": self.programs, "agent": self.agents}
        parts = [number_of(number, word) for word, number in numbers.items() if number]
        what = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]])) or "nothing"
        return f"{what}, {self.size_bytes / 1e6:,.1f} MB"


def look(transport: Transport, directory: str, name: str) -> Held:
    """Tell what lies on the device; raises DeviceError."""
    return _done(transport, directory, name, "look")


def clean(device: DeviceDescription, *, leases: Leases | None = None) -> Held:
    """Remove models, pushed programs and idle agents; return what is gone.

    Nothing is removed while others hold the device's lease: DeadlineExceeded. Raises DeviceError
    when something cannot be removed, and what connecting raises.
    """
    transport = transports.connect(device)
    try:
        directory = probe.absolute(device.directory, transport.home)
        seen = probe.read(transport, directory=directory, timeout_s=_PROBE_TIMEOUT_S)
        with hold(device, seen, leases):
            return _done(transport, directory, device.name, "clean")
    finally:
        transport.close()


def _done(transport: Transport, directory: str, name: str, act: str) -> Held:
    argv = ["sh", "-c", _SCRIPT, "edgewright-clean", directory, act]
    done = transport.run(argv, timeout_s=_TIMEOUT_S)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    left = [line.partition(" ")[2] for line in lines if line.startswith("left ")]
    if left or "done" not in lines:
        what = ", ".join(left[:3]) or "anything"
        raise DeviceError(
            f"device {name!r}: cannot {'remove' if act == 'clean' else 'look at'} {what} in "
            f"{directory}: {done.stderr.decode('utf-8', 'replace').strip()[:300]}; mend that there"
        )
    counts, size_bytes = {"models": 0, "tools": 0, "agent": 0}, 0
    for line in lines:
        if found := re.fullmatch(r"found (models|tools|agent) (\d{1,9}) (\d{1,12})", line):
            counts[found[1]] = int(found[2])
            size_bytes += 1024 * int(found[3])
    return Held(directory, counts["models"], counts["tools"], counts["agent"], size_bytes)
