"""The keys to log in with, from files and from the SSH agent, in the order they are offered."""

from __future__ import annotations

import base64
import binascii
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko
from paramiko.pkey import UnknownKeyType

from device_agents import bounded
from device_agents.transports._ssh_agent import Agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from device_agents.transports._ssh_config import Endpoint


class Keys:
    """The keys to offer, in order: named ones from file or agent, then the rest of the agent.

    Files that give no key are noted in `unusable`, a sentence each.
    """

    def __init__(self, end: Endpoint, unusable: list[str]) -> None:
        self._end = end
        self._unusable = unusable
        self._agent = Agent(end.agent, timeout_s=end.timeout_s)

        self.from_agent = self._agent.keys()

    def __iter__(self) -> Iterator[paramiko.PKey]:
        held = {key.asbytes(): key for key in self.from_agent}
        for path in self._end.identity_files:
            from_agent = held.pop(_public_blob(path), None)
            key = from_agent or self._read(path)
            if key is not None:
                yield key
        if not self._end.only_identities:
            yield from held.values()

    def _read(self, path: Path) -> paramiko.PKey | None:
        quoted = shlex.quote(str(path))
        try:
            _check_sizes(path)
            return paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            self._unusable.append(
                f"the key {path} needs a passphrase; run `ssh-add {quoted}`, so that the SSH "
                f"agent holds it, and keep {path.name}.pub beside it"
            )
        except bounded.Unreadable as error:
            self._unusable.append(
                f"the key {path} cannot be used: {error}; correct `identity_file` in the profile"
            )
        except (ValueError, OSError, paramiko.SSHException, UnknownKeyType) as error:
            reason = getattr(error, "strerror", None) or "no private key of a known form"
            self._unusable.append(
                f"the key {path} cannot be read ({reason}); correct `identity_file` in the profile"
            )
        return None

    def close(self) -> None:
        """End the connection to the agent."""
        self._agent.close()


def _public_blob(path: Path) -> bytes:
    """Return the public half of a key from its own file or the one beside it."""
    public = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
    with suppress(bounded.Unreadable, IndexError, binascii.Error):
        text = bounded.read_text(public, limit_bytes=bounded.TEXT_BYTES)
        return base64.b64decode(text.split()[1])
    return b""


def _check_sizes(path: Path) -> None:
    """Raise Unreadable for what paramiko would read without end: a key, or its certificate."""
    with bounded.open_file(path, limit_bytes=bounded.TEXT_BYTES):
        certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.exists():
        with bounded.open_file(certificate, limit_bytes=bounded.TEXT_BYTES):
            pass
