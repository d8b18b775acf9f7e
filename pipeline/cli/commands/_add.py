"""edgewright device add: recognises a device that nobody prepared, and writes its profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from device_agents.care.boards import Board
    from device_agents.care.probe import Probe
    from profiles.schema import DeviceProfile

_DESCRIPTION_LIMIT = 80
_PROBE_TIMEOUT_S = 60.0


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
@click.option("--replace", is_flag=True, help="Write over a profile of that name.")
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
    from profiles.schema import DeviceProfile

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
        registry.add_device(name, values, replace=replace)
        click.echo(f"wrote {path}; next: edgewright device doctor {name}")
        return
    probe, board = _seen(DeviceProfile(name=name, **values))
    base = base if extends else registry.load_device(board.profile)
    found = {**_adapted(probe, board, base, python=python), **values}
    registry.add_device(name, {"extends": base.name, **found}, replace=replace)
    click.echo(_told(name, probe, board))
    click.echo(f"wrote {path}, which extends {base.name}")
    click.echo(f"next: edgewright device doctor {name}")


def _one(what: str, in_address: Any, in_option: Any) -> Any:
    """Return what was given in either place; raises ConfigError when both are and differ."""
    from device_agents.errors import ConfigError

    if in_address and in_option and in_address != in_option:
        raise ConfigError(
            f"the address says {what} {in_address} and --{what} says {in_option}; give one of them"
        )
    return in_option or in_address


def _seen(profile: DeviceProfile) -> tuple[Probe, Board]:
    """Connect once, look, and leave nothing behind."""
    from device_agents import transports
    from device_agents.care import boards, probe
    from pipeline.cli.options import waiting

    with waiting(f"looking at {profile.address}"):
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
