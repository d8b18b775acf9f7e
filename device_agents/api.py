"""The interfaces and values of this room; everything here is plain data or a protocol.

A `Transport` moves bytes and runs processes; a `Session` speaks with the agent over one
`Transport`; a `Device` (runner.py) measures over one `Session`. Times are integer nanoseconds on
the wire and float milliseconds in what people read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from device_agents.values import (
    BenchProtocol,
    Inference,
    Measurement,
    SensorReading,
    Shapes,
    TensorInfo,
    TensorValue,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    OnSent = Callable[[int, int], object]  # the bytes sent so far, of how many

__all__ = [
    "BenchProtocol",
    "Completed",
    "DeviceDescription",
    "Failure",
    "Inference",
    "Leases",
    "Measurement",
    "Runs",
    "SensorReading",
    "Shapes",
    "Stream",
    "TensorInfo",
    "TensorValue",
    "Transport",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished process: exit code (negative: killed by that signal) and its two streams."""

    rc: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate that could not be measured or run; a value, so that it never ends a search.

    Attributes:
        reason: one sentence.
        detail: what the device said, bounded; may be empty.
        retryable: True when the same call may succeed later without anyone changing anything.
        kind: the machine-readable word of `wire.ERROR_KINDS`, or `link`.
    """

    reason: str
    detail: str = ""
    retryable: bool = False
    kind: str = "internal"


class DeviceDescription(Protocol):
    """What this room needs to know of a device; `profiles.schema.DeviceProfile` satisfies it."""

    @property
    def name(self) -> str:
        """The user's name for the device."""

    @property
    def transport(self) -> str:
        """A file name of `transports/`, such as `local` or `ssh`."""

    @property
    def address(self) -> str:
        """Host, alias of the SSH configuration, or adb serial; empty for the local device."""

    @property
    def port(self) -> int:
        """TCP port of the device's SSH server; 0: the SSH configuration's, else 22."""

    @property
    def user(self) -> str:
        """Login name; empty means the current user's name."""

    @property
    def identity_file(self) -> str:
        """Path of a private key; empty means the SSH agent and the usual keys."""

    @property
    def known_hosts(self) -> str:
        """Path of the known_hosts file; empty means ~/.ssh/known_hosts."""

    @property
    def ssh_config(self) -> str:
        """Path of the SSH configuration; empty means ~/.ssh/config."""

    @property
    def adb_server(self) -> str:
        """host:port of the adb server; empty means adb's own default."""

    @property
    def python(self) -> str:
        """Python interpreter on the device; empty means the transport's default."""

    @property
    def directory(self) -> str:
        """Where agent and models live on the device; `~/` is the home directory there."""

    @property
    def runtime(self) -> str:
        """Default runtime: a file name of `agent/runtimes/`, or `benchmark_model`."""

    @property
    def benchmark_binary(self) -> str:
        """On this computer, the user's benchmark_model for the device; empty: none."""

    @property
    def xnnpack(self) -> bool:
        """Whether the tflite runtimes may use the XNNPACK delegate."""

    @property
    def min_delegated_share(self) -> float:
        """A figure with a smaller share of delegated ops is refused, 0 to 1."""

    @property
    def threads(self) -> int:
        """Default number of runtime threads."""

    @property
    def cpus(self) -> Sequence[int]:
        """CPU numbers that inference is pinned to; empty means no pinning."""

    @property
    def thermal_limit_celsius(self) -> float | None:
        """A measurement that ends hotter than this is invalid; None means no limit."""

    @property
    def cool_celsius(self) -> float | None:
        """A measurement begins no hotter than this; None means at any temperature."""

    @property
    def canary(self) -> bool:
        """Whether a protocol that asks for the canary runs it here."""

    @property
    def nominal_clock_khz(self) -> int | None:
        """A measurement that ends with a lower clock is invalid; None means unknown."""

    @property
    def connect_timeout_s(self) -> float:
        """Deadline of each step of connecting."""


class Stream(Protocol):
    """A running process on the device with line-wise stdin and stdout; its stderr is kept."""

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Write all of `data`; raises LinkLost when the process has gone, DeadlineExceeded."""

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        r"""Return the next line with its b"\n".

        Raises LinkLost at the end of the stream (a line without its newline counts as the end),
        DeadlineExceeded, and AgentError(kind="line_too_long") past `limit_bytes`.
        """

    def stderr_tail(self) -> str:
        """Return the last few kilobytes that the process wrote on stderr."""

    def close(self) -> None:
        """End the process and everything it started; may be called twice; never raises."""


class Transport(Protocol):
    """One way to move bytes to a device and to run processes there.

    Made by `transports.connect(description)`; connected when made. All paths on the device are
    absolute strings. Safe to use from one thread at a time, but for `abort`. After `close()`
    nothing else may be called but `close()` and `abort()`.
    """

    @property
    def home(self) -> str:
        """Absolute path of the user's home directory on the device."""

    @property
    def python(self) -> str:
        """Interpreter that runs the agent."""

    @property
    def loses_link(self) -> bool:
        """Whether processes on the device can outlive the link; False ends jobs with the host."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run `argv` (no shell expansion) to its end; raises DeadlineExceeded, LinkLost."""

    def open(self, argv: Sequence[str]) -> Stream:
        """Start `argv` (no shell expansion) and return its streams."""

    def put(self, local_path: str, remote_path: str, *, on_sent: OnSent | None = None) -> None:
        """Copy a file to the device, making parent folders.

        The file appears under `remote_path` whole or not at all. `on_sent` is told as it goes on,
        as often as the way there knows. Raises TransferFailed, LinkLost.
        """

    def get(self, remote_path: str, local_path: str) -> None:
        """Copy a file from the device; raises TransferFailed, LinkLost."""

    def abort(self) -> None:
        """End the connection and what it runs, from any thread; returns soon and never raises.

        Calls in progress, of streams too, raise LinkLost at once; of this transport only `close`
        may follow.
        """

    def close(self) -> None:
        """End the connection; may be called twice; never raises."""


class Runs(Protocol):
    """Runs one model on a device."""

    def __call__(self, inputs: Sequence[TensorValue], *, plain: bool = False) -> Inference:
        """Run it on inputs of the shape (samples, …); without any only its metadata come back.

        `plain`: by the runtime's plainest kernels, without delegate and without fused integer
        kernels: slow, and right where those are not. Raises DeviceError.
        """


class Lease(Protocol):
    """The right to use a device alone while a `with` block lasts."""

    def check(self) -> None:
        """Make sure that it is still this holder's, right before the device is used.

        Raises LeaseLost when it is not: this process was suspended or cut off meanwhile.
        """


@runtime_checkable
class Leases(Protocol):
    """Who may measure on a device: several processes and hosts may share it; the store does this.

    Not reentrant: who holds a device and asks again waits for itself.
    """

    def hold(
        self, device: str, *, timeout_s: float, name: str = ""
    ) -> AbstractContextManager[Lease]:
        """Hold the device alone; `device` tells it from all others, `name` is the user's word.

        Raises DeadlineExceeded when others keep it, and at the end of the block LeaseLost when it
        was not held to the end.
        """
