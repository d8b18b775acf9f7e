"""Logs in at an SSH server with the keys of files and of the SSH agent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import paramiko

from device_agents.errors import AuthenticationFailed
from device_agents.transports._ssh_keys import Keys
from device_agents.transports._words import quote

if TYPE_CHECKING:
    from device_agents.transports._ssh_config import Endpoint
    from device_agents.transports._ssh_peer import Peer


def log_in(transport: Peer, end: Endpoint, where: str) -> None:
    """Offer one key after the other; raises AuthenticationFailed, TimeoutError."""
    unusable: list[str] = []
    keys = Keys(end, unusable)
    tried = 0
    try:
        for key in keys:
            tried += 1
            try:
                more = transport.auth_publickey(end.user, key)
            except paramiko.BadAuthenticationType as error:
                raise AuthenticationFailed(
                    f"{where} takes no keys, only {', '.join(error.allowed_types)}; "
                    "allow PubkeyAuthentication in its sshd_config"
                ) from error
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error):
                    raise TimeoutError from error
                if transport.is_active():
                    continue
                break
            if not more:
                return
            raise AuthenticationFailed(
                f"{where} asks for {' and '.join(more)} besides the key, which cannot be answered "
                "here; allow the key alone for this user"
            )
    finally:
        keys.close()
    if unusable and not tried:
        raise AuthenticationFailed(
            f"{where}: {unusable[0]}" + (f" (and {len(unusable) - 1} more)" if unusable[1:] else "")
        )
    files = ", ".join(map(str, end.identity_files))
    offered = files if end.only_identities else f"any key of the SSH agent or {files or '~/.ssh'}"
    refused = sum(key.refused for key in keys.from_agent)
    if refused:
        offered += (
            f" (the SSH agent would not sign with {refused} of its {len(keys.from_agent)} keys: "
            "is a security key to be plugged in, or a question of its to be answered?)"
        )
    if tried and not transport.is_active():
        last = f", saying `{quote(transport.last_words)}`" if transport.last_words else ""
        offered += f" and ended the connection after {tried} keys{last}"
    raise AuthenticationFailed(
        f"{where} refuses user {end.user!r} with {offered}; run `{_copy_id(end)}` or correct "
        "`user` and `identity_file` in the profile"
    )


def _copy_id(end: Endpoint) -> str:
    if end.direct and end.alias == end.host:
        target, options = end.host, ["-p", str(end.port)]
    else:
        target, options = end.alias, [o for o in end.options if o not in ("-l", end.user)]
    return shlex.join(["ssh-copy-id", *options, f"{end.user}@{target}"])
