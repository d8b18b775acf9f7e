"""edgewright device add: recognises a device that nobody prepared, and writes its profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import echo

if TYPE_CHECKING:
    from device_agents.care.boards import Board
    from device_agents.care.probe import Probe
    from profiles.schema import DeviceProfile

_DESCRIPTION_LIMIT = 80
_PROBE_TIMEOUT_S = 60.0
_RECOGNISED = ("extends", "description", "nominal_clock_khz")


@click.command()
@click.argument("name")
@click.argument("address")
@click.option("--user", metavar="NAME", default="", help="Login name.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Port of the SSH server.")
@click.option("--transport", metavar="T", default="", help="ssh or adb, where ADDRESS tells not.")
@click.option("--identity-file", metavar="FILE", default="", help="Private key.")
@click.option("--python", metavar="PATH", default="", help="Interpreter on the device.")
@click.option("--extends", metavar="PROFILE", default="", help="In place of the recognised one.")
@click.option("--offline", is_flag=True, help="Do not connect; needs --extends.")
@click.option(
    "--replace", is_flag=True, help="Renew a profile of that name; what you added to it stays."
)
def add(  # one argument per option, all by name
    *,
    name: str,
    address: str,
    user: str,
    port: int | None,
    transport: str,
    identity_file: str,
    python: str,
    extends: str,
    offline: bool,
    replace: bool,
) -> None:
    """Recognise the device at ADDRESS and write a profile NAME for it.

    ADDRESS is user@host:port, a host, an alias of ~/.ssh/config, or adb:SERIAL. Nothing is written
    when the device cannot be reached, and nothing is put on the device.
    """
    from device_agents.care.address import parse
    from device_agents.errors import ConfigError
    from profiles import registry
    from profiles.schema import profile_from

    path = registry.new_file(name, replace=replace)
    where = parse(address, transport=transport)
    given = {
        "transport": where.transport,
        "address": where.host,
        "port": _one("port", where.port, port or 0),
        "user": _one("user", where.user, user),
        "identity_file": identity_file,
        "python": python,
    }
    values = {key: value for key, value in given.items() if value}
    old = registry.own_values(name) if replace else {}
    kept = _kept(old, values)
    if extends:
        base = registry.load_device(extends)
    if offline:
        if not extends:
            raise ConfigError(
                "--offline cannot recognise the device; say which with --extends, one of "
                + ", ".join(p.name for p in registry.list_devices().profiles if p.is_template)
            )
        # A template's own description ends with what is missing in it.
        description = base.description.partition(" (template")[0]
        values = {"extends": base.name, "description": description, **values}
        registry.add_device(name, values, replace=replace, kept=kept)
        echo(f"wrote {path}{_what_stayed(old, kept, values)}")
        echo(f"next: edgewright device doctor {name}")
        return
    probe, board = _seen(profile_from(name, {**kept, **values}, source=path))
    base = base if extends else registry.load_device(board.profile)
    kept = _true_of(kept, probe, board)
    found = {**_adapted(probe, board, base, python=python or kept.get("python", "")), **values}
    found = {key: value for key, value in found.items() if key not in kept}
    registry.add_device(name, {"extends": base.name, **found}, replace=replace, kept=kept)
    echo(_told(name, probe, board))
    echo(f"wrote {path}, which extends {base.name}{_what_stayed(old, kept, found)}")
    echo(f"next: edgewright device doctor {name}")


def _one(what: str, in_address: Any, in_option: Any) -> Any:
    """Return what was given in either place; raises ConfigError when both are and differ."""
    from device_agents.errors import ConfigError

    if in_address and in_option and in_address != in_option:
        raise ConfigError(
            f"the address says {what} {in_address} and --{what} says {in_option}; give one of them"
        )
    return in_option or in_address


def _kept(old: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return what stays of a profile that is replaced: not what is recognised or given anew.

    Its user and port belong to its address.
    """
    anew = {*_RECOGNISED, *values}
    if old.get("address") != values.get("address"):
        anew |= {"transport", "address", "user", "port"}
    return {key: value for key, value in old.items() if key not in anew}


def _true_of(kept: dict[str, Any], probe: Probe, board: Board) -> dict[str, Any]:
    """Leave out an interpreter that does not run there, and CPUs that the board has not."""
    runs = {item.command for item in probe.pythons()}
    wrong = {"python"} if kept.get("python") not in runs else set()
    if board.cores and max(kept.get("cpus") or [0]) >= board.cores:
        wrong.add("cpus")
    return {key: value for key, value in kept.items() if key not in wrong}


def _what_stayed(old: dict[str, Any], kept: dict[str, Any], written: dict[str, Any]) -> str:
    """Say what was kept of the profile that was there, and what was not."""
    stay = [key for key in old if key in kept]
    gone = [key for key in old if key not in kept and key not in written and key != "extends"]
    words = f"; kept from before: {', '.join(stay)}" if stay else ""
    return words + (f"; not kept: {', '.join(gone)}" if gone else "")


def _seen(profile: DeviceProfile) -> tuple[Probe, Board]:
    """Connect once, look, and leave nothing behind."""
    from device_agents import transports
    from device_agents.care import boards, probe
    from pipeline.cli.options import show_waiting

    with show_waiting(f"looking at {profile.address}"):
        transport = transports.connect(profile)
        try:
            seen = probe.read(transport, directory=profile.directory, timeout_s=_PROBE_TIMEOUT_S)
        finally:
            transport.close()
    return seen, boards.recognise(seen)


def _adapted(probe: Probe, board: Board, base: DeviceProfile, *, python: str) -> dict[str, Any]:
    """Return what this device has in another way than the profile it extends."""
    found: dict[str, Any] = {"description": _printable(board.name)}
    highest = [core.max_khz for core in probe.cores() if core.max_khz]
    if base.nominal_clock_khz and highest and max(highest) != base.nominal_clock_khz:
        found["nominal_clock_khz"] = max(highest)
    if board.cores and base.cpus and max(base.cpus) >= board.cores:
        found["cpus"] = [board.cores - 1]
    usable = [item for item in probe.pythons() if item.version >= (3, 9, 0)]
    if usable and not python and usable[0].command != "python3":
        found["python"] = usable[0].command
    return found


def _printable(text: str) -> str:
    """Return what a device says of itself, fit for one line."""
    return "".join(char for char in text if char.isprintable())[:_DESCRIPTION_LIMIT].strip()


def _told(name: str, probe: Probe, board: Board) -> str:
    """Return what was found, in words."""
    facts = probe.facts()
    memory = f"{board.memory_bytes / 2**30:.1f} GiB" if board.memory_bytes else "unknown memory"
    parts = " and ".join(board.parts) or probe.machine or "unknown cores"
    bits = f"{board.userland_bits}-bit" if board.userland_bits else ""
    if board.kernel_bits == 64 and board.userland_bits == 32:
        bits = "32-bit on a 64-bit kernel"
    system = ", ".join(str(item) for item in (facts["os"], bits) if item)
    products = ", int8 dot products" if board.dot_product else ""
    python = f"Python {facts['python']}" if facts["python"] else "no Python 3"
    lines = (
        _printable(board.name),
        f"{board.cores or '?'} x {parts}{products}, {memory}",
        _printable(system or "unknown system"),
        python,
    )
    return f"{name}: " + "\n  ".join(lines)
