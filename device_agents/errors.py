"""Every exception of edgewright, in one tree.

    EdgewrightError                 exit code 1
    ├── ConfigError                 2  usage or configuration: the user's input is wrong
    ├── DeviceError                 3  the device or the link to it
    │   ├── Unreachable                no connection: refused, no such host, no route, no answer
    │   ├── HostKeyError               the device's host key is unknown or has changed
    │   ├── AuthenticationFailed       the device refused the user or the key
    │   ├── LinkLost                   the connection or the agent ended in mid-call
    │   ├── DeadlineExceeded           the device did not answer in time
    │   ├── LeaseLost                  the right to use the device alone ended too early
    │   ├── TransferFailed             a file could not be put on, or read from, the device
    │   ├── RuntimeMissing             the device's Python has no inference runtime
    │   ├── NotMeasured                the device answers, and gives no latency of this file
    │   └── AgentError                 the agent refused or failed a call; carries `kind`
    ├── TargetError                 4  the asked latency, size or accuracy cannot be met
    ├── VerificationError           5  an artifact does not compute what it should
    └── StoreError                  7  the store cannot be opened, read or written

This module lives in the lowest room, so every room can raise from the same tree. Inside the rooms
a failed candidate is a value (`device_agents.api.Failure`); exceptions are for the edges.
"""

from __future__ import annotations

from device_agents.plain_text import plain

_DETAIL_CHARS = 8192


class EdgewrightError(Exception):
    """Root of the tree. `str()` is one sentence for the user; `exit_code` is the command's.

    A sentence may quote a file, a device or another user: it is cleaned and cut here, for all.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(plain(message))


class ConfigError(EdgewrightError):
    """The user's input or configuration is wrong; names the value and the alternatives."""

    exit_code = 2


class DeviceError(EdgewrightError):
    """Something went wrong on a device or on the link to it.

    `retryable` says whether the same call may succeed later without anyone changing anything.
    """

    exit_code = 3
    retryable = False


class Unreachable(DeviceError):
    """No connection could be made: refused, no such host, no route, no answer in time."""

    retryable = True


class HostKeyError(DeviceError):
    """The device's host key is unknown or changed; the message holds the command that fixes it."""


class AuthenticationFailed(DeviceError):
    """The device refused the user name or the key."""


class LinkLost(DeviceError):
    """The connection or the agent process ended before the reply was complete."""

    retryable = True


class DeadlineExceeded(DeviceError):
    """The device did not answer within the deadline."""

    retryable = True


class LeaseLost(DeviceError):
    """The right to use the device alone ended before its use did; others may have used it too."""

    retryable = True


class TransferFailed(DeviceError):
    """A file could not be put on the device or read from it."""


class RuntimeMissing(DeviceError):
    """The device's Python cannot import the asked inference runtime."""


class NotMeasured(DeviceError):
    """The device answers and gives no latency of this file: its runtime fails, or it is too busy.

    Another file may be measured all the same.
    """


class AgentError(DeviceError):
    """The agent refused or failed a call.

    Attributes:
        kind: a machine-readable word, one of `device_agents.agent.wire.ERROR_KINDS`.
        detail: what the runtime or the system said, bounded; may be empty.
    """

    def __init__(
        self, message: str, *, kind: str = "internal", retryable: bool = False, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.detail = plain(detail, limit=_DETAIL_CHARS)


class TargetError(EdgewrightError):
    """The asked latency, size or accuracy cannot be met."""

    exit_code = 4


class VerificationError(EdgewrightError):
    """An artifact does not compute what the network it came from computes."""

    exit_code = 5


class StoreError(EdgewrightError):
    """The store cannot be used as asked. Nothing in it has been changed."""

    exit_code = 7
