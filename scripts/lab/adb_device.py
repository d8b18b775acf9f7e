"""A phone without a phone: the device's side of the adb protocol on a TCP port of this computer.

The real adb client and server speak with it after `adb connect 127.0.0.1:PORT`. It has the shell
with separate stderr and exit codes, `exec` and `sync`, in a sandbox folder (`adb_sandbox`); and it
fails on demand. It shows that adb is handled rightly, and nothing about Android itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import struct
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.lab import adb_shell, adb_sync
from scripts.lab.adb_sandbox import Sandbox
from scripts.lab.images import LabError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Coroutine, Iterator

STATES = ("device", "unauthorized", "offline", "recovery")

_HEADER = struct.Struct("<6I")
_VERSION = 0x01000001
_MAX_BYTES = 1 << 18
_CNXN, _AUTH, _OPEN, _OKAY, _WRTE, _CLSE = (
    int.from_bytes(word, "little")
    for word in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)


@dataclass(frozen=True, slots=True)
class Looks:
    """What the phone says of itself when adb connects."""

    product: str = "lab_phone"
    model: str = "Lab_Phone"
    device: str = "lab_phone"
    state: str = "device"
    features: str = "shell_v2,cmd,stat_v2"

    def banner(self) -> bytes:
        """Return the text of the connection packet."""
        names = (("name", self.product), ("model", self.model), ("device", self.device))
        told = "".join(f"ro.product.{key}={value};" for key, value in names)
        return f"{self.state}::{told}features={self.features}".encode()


class AdbDevice:
    """The running double; `start` listens, `stop` ends it and all that it started.

    Faults: `vanish` closes every connection and refuses new ones until `come_back`; `stall` keeps
    the connections and stays silent; `faults` break file transfers.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        looks: Looks | None = None,
        answers: dict[str, str] | None = None,
    ) -> None:
        self.sandbox = Sandbox(root, answers or {})
        self.looks = looks or Looks()
        self.faults = adb_sync.Faults()
        self.port = port
        self.running = asyncio.Event()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="adb-device")
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def serial(self) -> str:
        """What `adb -s` takes after `adb connect`."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, in a thread of its own; raises LabError when the port is taken."""
        self._thread.start()
        try:
            self._do(self._listen())
        except OSError as error:
            self.stop()
            raise LabError(
                f"cannot listen on port {self.port}: {error.strerror}; name another with --port, "
                "or 0 for a free one"
            ) from error

    def stop(self) -> None:
        """End everything."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def vanish(self) -> None:
        """Be gone, as with the cable pulled: commands that run get SIGHUP."""
        self._do(self._vanish())

    def come_back(self) -> None:
        """Listen again after `vanish`, under the same serial."""
        self._do(self._listen())

    def stall(self) -> None:
        """Keep the connections and say nothing more."""
        self._loop.call_soon_threadsafe(self.running.clear)

    def resume(self) -> None:
        """Go on after `stall`."""
        self._loop.call_soon_threadsafe(self.running.set)

    def _do(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        self.running.set()
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = int(listening.getsockname()[1])
        self._server = await asyncio.start_server(self._accept, sock=listening)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.serve()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the adb server has gone
        finally:
            self._links.discard(link)
            link.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _vanish(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in tuple(self._links):
            link.close()
        self.running.set()

    async def _end(self) -> None:
        await self._vanish()
        for process in self.processes:
            with suppress(ProcessLookupError):  # what it left in the background, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        this = asyncio.current_task()
        await asyncio.gather(*(asyncio.all_tasks() - {this}), return_exceptions=True)


@dataclass(eq=False, slots=True)
class Stream:
    """One service on a link; ids as the device sees them. One packet in flight each way."""

    link: _Link
    local: int
    remote: int
    incoming: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    _rest: bytes = b""

    async def read(self) -> bytes:
        """Return the next packet; nothing at the end."""
        data = b"" if self.closed and self.incoming.empty() else await self.incoming.get()
        if data:
            await self.link.send(_OKAY, self.local, self.remote)
        return data

    async def exactly(self, size: int) -> bytes:
        """Return that many bytes."""
        while len(self._rest) < size:
            data = await self.read()
            if not data:
                raise asyncio.IncompleteReadError(self._rest, size)
            self._rest += data
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    async def write(self, data: bytes) -> None:
        """Send all of it."""
        for start in range(0, len(data), self.link.max_bytes):
            await self.ready.wait()
            if self.closed:
                raise ConnectionResetError
            self.ready.clear()
            await self.link.send(
                _WRTE, self.local, self.remote, data[start : start + self.link.max_bytes]
            )

    def end(self) -> None:
        """The other side has closed."""
        self.closed = True
        self.ready.set()
        self.incoming.put_nowait(b"")


class _Link:
    """One connection of an adb server."""

    def __init__(
        self, device: AdbDevice, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._device, self._reader, self._writer = device, reader, writer
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self.max_bytes = _MAX_BYTES

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._writer.transport.abort()

    async def send(self, command: int, arg0: int, arg1: int, data: bytes = b"") -> None:
        await self._device.running.wait()
        check = sum(data) & 0xFFFFFFFF
        header = _HEADER.pack(command, arg0, arg1, len(data), check, command ^ 0xFFFFFFFF)
        self._writer.write(header + data)
        await self._writer.drain()

    async def serve(self) -> None:
        while True:
            command, arg0, arg1, size, _, _ = _HEADER.unpack(
                await self._reader.readexactly(_HEADER.size)
            )
            data = await self._reader.readexactly(size)
            await self._device.running.wait()
            if command == _CNXN:
                await self._greet(arg1)
            elif command == _AUTH and arg0 == 2:  # a signature; nobody is known here
                await self.send(_AUTH, 1, 0, os.urandom(20))
            elif command == _OPEN:
                self._open(arg0, data.rstrip(b"\0").decode("utf-8", "surrogateescape"))
            elif arg1 in self._streams:
                stream = self._streams[arg1]
                if command == _WRTE:
                    stream.incoming.put_nowait(data)
                elif command == _OKAY:
                    stream.ready.set()
                elif command == _CLSE:
                    stream.end()

    async def _greet(self, max_bytes: int) -> None:
        state = self._device.looks.state
        if state == "unauthorized":
            await self.send(_AUTH, 1, 0, os.urandom(20))
        elif state != "offline":  # an offline device has a link and never says a word
            self.max_bytes = min(max_bytes, _MAX_BYTES)
            await self.send(_CNXN, _VERSION, _MAX_BYTES, self._device.looks.banner())

    def _open(self, remote: int, service: str) -> None:
        self._number += 1
        stream = self._streams[self._number] = Stream(self, self._number, remote)
        stream.ready.set()
        task = asyncio.get_running_loop().create_task(self._service(stream, service))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _service(self, stream: Stream, service: str) -> None:
        head, _, command = service.partition(":")
        kind, *options = head.split(",")
        try:
            if kind in ("shell", "exec", "sync"):
                await self.send(_OKAY, stream.local, stream.remote)
            if kind == "sync":
                await adb_sync.serve(stream, self._device.sandbox, self._device.faults)
            elif kind in ("shell", "exec"):
                await adb_shell.serve(
                    stream,
                    command,
                    self._device.sandbox,
                    self._device.processes,
                    split="v2" in options,
                )
            await self.send(_CLSE, stream.local, stream.remote)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side, or the connection, has gone
        finally:
            self._streams.pop(stream.local, None)


@contextmanager
def adb_device(
    root: Path, *, looks: Looks | None = None, answers: dict[str, str] | None = None
) -> Iterator[AdbDevice]:
    """Run a double for a `with` block."""
    device = AdbDevice(root, looks=looks, answers=answers)
    device.start()
    try:
        yield device
    finally:
        device.stop()


def main() -> None:
    """Run until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the phone's files")
    parser.add_argument("--port", type=int, default=5555, help="0: a free one (default: 5555)")
    parser.add_argument("--state", choices=STATES, default="device")
    for name in ("product", "model", "device"):
        parser.add_argument(f"--{name}", default=getattr(Looks(), name))
    for name in ("getprop", "battery", "thermalservice"):
        parser.add_argument(f"--{name}", type=Path, help="file with that tool's output")
    options = parser.parse_args()
    answers = {
        key: path.read_text(encoding="utf-8")
        for key, path in (
            ("getprop", options.getprop),
            ("dumpsys_battery", options.battery),
            ("dumpsys_thermalservice", options.thermalservice),
        )
        if path is not None
    }
    looks = Looks(options.product, options.model, options.device, options.state)
    device = AdbDevice(options.root, port=options.port, looks=looks, answers=answers)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        device.start()
    except LabError as error:
        sys.exit(f"adb-device: {error}")
    print(f"adb connect {device.serial}", flush=True)
    ended.wait()
    device.stop()
