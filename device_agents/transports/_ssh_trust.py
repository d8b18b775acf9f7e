"""Verifies the host key of an SSH server; what is not trusted is refused with what fixes it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import HostKeyError
from device_agents.transports import _ssh_hosts

if TYPE_CHECKING:
    from device_agents.transports._ssh_config import Endpoint
    from device_agents.transports._ssh_peer import Peer

_USUAL_KNOWN_HOSTS = "~/.ssh/known_hosts"


def check_host(transport: Peer, end: Endpoint, where: str) -> None:
    """Greet the server and verify its key; raises HostKeyError, TimeoutError, SSHException."""
    keys = _ssh_hosts.read(end.known_hosts)
    options = transport.get_security_options()
    # Of several keys the server shows the one that is asked for first.
    wanted = _ssh_hosts.algorithms(keys, (end.key_name, end.plain_name))
    first = [name for name in wanted if name in options.key_types]
    options.key_types = [*first, *(name for name in options.key_types if name not in first)]
    if end.old_rsa:
        options.key_types = [*options.key_types, "ssh-rsa"]
    transport.banner_timeout = transport.handshake_timeout = end.timeout_s
    transport.channel_timeout = end.timeout_s
    # The agent has the same limit, and comes first.
    transport.auth_timeout = 2 * end.timeout_s + 1
    transport.start_client(timeout=end.timeout_s)
    if not transport.initial_kex_done:  # it returns at its timeout as well
        raise TimeoutError
    shown = transport.get_remote_server_key()
    kind, blob = shown.get_name(), shown.asbytes()
    verdict, line = _ssh_hosts.judge(keys, end.key_name, end.plain_name, kind=kind, blob=blob)
    found = _ssh_hosts.fingerprint(blob)
    file = end.known_hosts[0]
    if verdict == "unknown":
        raise HostKeyError(
            f"{where}: its host key is not in {file}; check on the device that its {kind} "
            f"fingerprint is {found}, then {_advice(end)}"
        )
    if verdict == "changed" and line is not None:
        remove = shlex.join(["ssh-keygen", "-R", end.key_name, "-f", str(line.file)])
        raise HostKeyError(
            f"{where}: the host key has changed: it is now {found}, {line.file} line {line.line} "
            f"has {_ssh_hosts.fingerprint(line.blob)}; if the device was reinstalled, "
            f"run `{remove}` and {_advice(end)}, otherwise do not connect"
        )
    if verdict == "revoked" and line is not None:
        raise HostKeyError(
            f"{where}: the host key {found} is marked as revoked in {line.file} line {line.line}; "
            "do not connect"
        )


def _advice(end: Endpoint) -> str:
    """Say how the key gets into the file; ssh-keyscan neither jumps nor knows aliases of keys."""
    file = end.known_hosts[0]
    keeps = file.is_file() or not file.exists()
    first = "" if keeps else _other_file(end, file)
    if end.direct and end.plain_name == end.host.lower() and (keeps or end.own):
        if not keeps:
            file = Path(_USUAL_KNOWN_HOSTS).expanduser()
        scan = f"ssh-keyscan -p {end.port} {shlex.quote(end.host)} >> {shlex.quote(str(file))}"
        if not file.parent.exists():
            scan = f"mkdir -p -m 700 {shlex.quote(str(file.parent))} && {scan}"
        return f"{first}run `{scan}`"
    command = shlex.join(["ssh", *end.options, end.alias])
    return f"{first}connect once with `{command}`, which shows it too and asks"


def _other_file(end: Endpoint, file: Path) -> str:
    """Say where to name a file in place of one that keeps nothing, such as /dev/null."""
    wanted = f'`known_hosts = "{_USUAL_KNOWN_HOSTS}"` in the profile'
    if not end.own:
        wanted = f"`UserKnownHostsFile {_USUAL_KNOWN_HOSTS}` for it in the SSH configuration"
    return f"set {wanted}, since {file} keeps no key and keys are always verified, and "
