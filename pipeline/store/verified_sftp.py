"""fsspec's SFTP with the host's key verified: its own takes any key of a host that it meets."""

from __future__ import annotations

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from device_agents.errors import StoreError

_CONNECT_S = 20.0
_ANSWER_S = 60.0  # after which a server that says nothing is gone


class VerifiedSFTP(SFTPFileSystem):  # type: ignore[misc]  # ships no type information
    """Files over SFTP, from a server whose key `~/.ssh/known_hosts` holds.

    The user's keys are those of the agent and `~/.ssh/id_*`.
    """

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(_Refuse())
        try:
            self.client.connect(self.host, timeout=_CONNECT_S, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
            if (channel := self.ftp.get_channel()) is not None:
                channel.settimeout(_ANSWER_S)
        except BaseException as error:
            self.client.close()
            if isinstance(error, (paramiko.AuthenticationException, paramiko.BadHostKeyException)):
                raise StoreError(
                    f"the artifacts at sftp://{self.host} cannot be reached: "
                    f"{str(error).rstrip('.')}; try sftp {self.host}, which says more"
                ) from error
            raise

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()


class _Refuse(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        del client
        raise StoreError(
            f"the server {hostname} is not in ~/.ssh/known_hosts, and shows the key "
            f"{key.get_name()} {key.fingerprint}; make sure that this is its key, and connect once "
            "with sftp or ssh to keep it there"
        )
