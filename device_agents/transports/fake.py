"""A device that is simulated in this process: for demonstrations and tests.

`address` is the path of a script (device_agents/fakes/script.py), or empty for a healthy board. The
agent is the real one, its runtime is `null`, its clock is virtual: an hour of measuring takes a
moment. Other programs run, and files lie, in a folder of this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.errors import LinkLost, TransferFailed, Unreachable
from device_agents.fakes.agent import FakeStream, end_link
from device_agents.fakes.board import board_of
from device_agents.transports.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import Completed, DeviceDescription, OnSent, Stream
    from device_agents.fakes.board import FakeBoard

_REFUSAL_S = 0.1


def connect(device: DeviceDescription) -> FakeTransport:
    """Connect to the board; raises ConfigError for a bad script, Unreachable while it is down."""
    board = board_of(device)
    with board.lock:
        if board.down:
            # Asking takes time, so that who asks again and again is heard in the end.
            board.sleep(_REFUSAL_S)
            raise Unreachable(f"device {device.name!r}: the simulated board is out of reach")
    return FakeTransport(device.name, board, python=device.python or sys.executable)


def time_of(device: DeviceDescription) -> tuple[Callable[[], float], Callable[[float], None]]:
    """Return the board's clock and its way to let time pass."""
    board = board_of(device)
    return board.seconds, board.pause


class FakeTransport:
    """A connection to one simulated board; see `Transport`."""

    def __init__(self, name: str, board: FakeBoard, *, python: str) -> None:
        self._name = name
        self._board = board
        self._epoch = board.epoch
        self._local = LocalTransport(name, python=python)
        self._streams: list[FakeStream] = []
        self._aborted = False
        self._lost = False

    @property
    def home(self) -> str:
        """The board's folder on this machine."""
        return str(self._board.folder)

    @property
    def python(self) -> str:
        """Interpreter for programs that are not the agent."""
        return self._local.python

    @property
    def loses_link(self) -> bool:
        """Whether processes there can outlive the link: simulated ones do."""
        return True

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a process on this machine; see `Transport.run`."""
        return self._local.run(argv, stdin=stdin, timeout_s=timeout_s)

    def open(self, argv: Sequence[str]) -> Stream:
        """Start the agent on the board, or another program on this machine."""
        if "--directory" not in argv:
            return self._local.open(argv)
        with self._board.lock:
            stream = FakeStream(self._name, self._board, argv)
        self._streams.append(stream)
        if self._aborted:
            stream.cut()
        return stream

    def put(self, local_path: str, remote_path: str, *, on_sent: OnSent | None = None) -> None:
        """Copy a file to the board; see `Transport.put`."""
        with self._board.lock:
            self._refuse_lost()
            fault = self._board.call()
            if fault.ends_link or fault.kind in ("hang", "garbage"):
                half = Path(f"{remote_path}.part")
                half.parent.mkdir(parents=True, exist_ok=True)
                whole = Path(local_path).read_bytes()
                half.write_bytes(whole[: len(whole) // 2])
                end_link(self._board, fault)
                self._lost = True
                raise LinkLost(f"device {self._name!r}: the connection ended in mid-transfer")
            if fault.kind == "disk_full":
                raise TransferFailed(
                    f"device {self._name!r}: cannot copy {local_path} to {remote_path}: "
                    "No space left on device"
                )
            if fault.kind == "clock_jump":
                self._board.jump(fault.jump_s)
            self._local.put(local_path, remote_path, on_sent=on_sent)

    def get(self, remote_path: str, local_path: str) -> None:
        """Copy a file from the board; see `Transport.get`."""
        self._refuse_lost()
        self._local.get(remote_path, local_path)

    def _refuse_lost(self) -> None:
        if self._lost or self._aborted or self._board.epoch != self._epoch:
            raise LinkLost(f"device {self._name!r}: the connection ended")

    def abort(self) -> None:
        """End the connection from any thread; see `Transport.abort`."""
        self._aborted = True
        for stream in self._streams:
            stream.cut()
        self._local.abort()

    def close(self) -> None:
        """End the connection."""
        for stream in self._streams:
            stream.close()
        self._local.close()
