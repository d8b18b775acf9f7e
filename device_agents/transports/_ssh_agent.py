"""The keys of an SSH agent, with deadlines; one that does not sign leaves the others their turn."""

from __future__ import annotations

import os
import socket
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH


class Agent(AgentSSH):
    """The SSH agent at a socket, with a deadline, which paramiko's own class lacks."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_s = timeout_s
        self.connect()

    def connect(self) -> None:
        """Connect anew; what was asked before is not waited for."""
        self.close()
        if not self._path:
            return
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(self._timeout_s)
        try:
            sock.connect(os.fspath(self._path))
            self._connect(sock)  # type: ignore[attr-defined]
        except (OSError, paramiko.SSHException):
            # As for `ssh`, an agent that is not there or does not answer has no keys.
            sock.close()

    def keys(self) -> list[HeldKey]:
        """Return the keys that the agent holds."""
        return [HeldKey(self, key.blob, key.comment) for key in self.get_keys()]

    def close(self) -> None:
        """End the connection."""
        self._close()  # type: ignore[attr-defined]


class HeldKey(AgentKey):
    """A key in an agent; `refused` once the agent would not sign with it, or did not answer."""

    def __init__(self, agent: Agent, blob: bytes, comment: str) -> None:
        super().__init__(agent, blob, comment)
        self._connect = agent.connect
        self.refused = False

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        """Return the signature; where the agent will not sign, one that the server refuses.

        Raising an error instead would end the connection, since paramiko calls this in a thread of
        its own; so the next key is tried.
        """
        try:
            return super().sign_ssh_data(data, algorithm)
        except (OSError, paramiko.SSHException) as error:
            self.refused = True
            if isinstance(error, OSError):
                # A late answer would be taken for that to the next request.
                self._connect()
            nothing = paramiko.Message()
            nothing.add_string(algorithm or self.get_name())
            nothing.add_string(bytes(64))
            return nothing
