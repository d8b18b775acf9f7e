"""The `shell` and `exec` services of the adb double.

As adbd does, the end of a stream sends SIGHUP to the command's shell and to nothing it started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.lab.adb_device import Stream
    from scripts.lab.adb_sandbox import Sandbox

# Shell protocol v2: one byte of kind, the length, the data.
_FRAME = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_POLL_S = 0.002


async def serve(
    stream: Stream,
    command: str,
    sandbox: Sandbox,
    processes: list[subprocess.Popen[bytes]],
    *,
    split: bool,
) -> None:
    """Run the command to its end, or to the stream's; add it to the processes."""
    # Under nohup, say, SIGHUP is ignored by all that this process starts: a phone has it not so.
    shell = ["/usr/bin/env", "--default-signal=HUP", "/bin/sh", "-c"]
    # Not asyncio's own: to let go of its pipes, that kills the process.
    process = subprocess.Popen(  # noqa: ASYNC220
        [*shell, os.fsencode(sandbox.on_host(command))],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if split else subprocess.STDOUT,
        env=sandbox.environment(),
        cwd="/",
        start_new_session=True,
    )
    processes.append(process)
    with ExitStack() as stack:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                stack.callback(pipe.close)
        stack.callback(_hang_up, process)
        stdin = await _input(stack, process.stdin)
        outputs = [(_STDOUT, await _output(stack, process.stdout))]
        if process.stderr is not None:
            outputs.append((_STDERR, await _output(stack, process.stderr)))
        feeding = asyncio.ensure_future(_feed(stream, stdin, process, split=split))
        stack.callback(feeding.cancel)
        await asyncio.gather(
            *(_copy(output, stream, kind, split=split) for kind, output in outputs)
        )
        code = await _ended(process)
        if split:
            code = code if code >= 0 else 128 - code
            await stream.write(_FRAME.pack(_EXIT, 1) + bytes([code]))


async def _ended(process: subprocess.Popen[bytes]) -> int:
    while (code := process.poll()) is None:  # noqa: ASYNC110  # nothing tells a thread's loop
        await asyncio.sleep(_POLL_S)
    return code


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGHUP)


async def _output(stack: ExitStack, pipe: IO[bytes] | None) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    stack.callback(transport.close)
    return reader


async def _input(stack: ExitStack, pipe: IO[bytes] | None) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    stack.callback(_let_go, transport)
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _let_go(transport: asyncio.WriteTransport) -> None:
    # Not if it is closed: asyncio would then unregister its number, which may be another file's.
    if not transport.is_closing() or transport.get_write_buffer_size():
        transport.abort()


async def _feed(
    stream: Stream, stdin: asyncio.StreamWriter, process: subprocess.Popen[bytes], *, split: bool
) -> None:
    """Bring the host's input to the process, and SIGHUP at the stream's end."""
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            if split:
                kind, size = _FRAME.unpack(await stream.exactly(_FRAME.size))
                data = await stream.exactly(size)
                if kind == _CLOSE_STDIN:
                    stdin.close()
            else:
                kind, data = _STDIN, await stream.read()
                if not data:
                    break
            if kind == _STDIN and not stdin.is_closing():
                stdin.write(data)
                with suppress(ConnectionError):  # a process need not read its input
                    await stdin.drain()
    stdin.close()
    _hang_up(process)


async def _copy(source: asyncio.StreamReader, stream: Stream, kind: int, *, split: bool) -> None:
    while data := await source.read(1 << 15):
        await stream.write(_FRAME.pack(kind, len(data)) + data if split else data)
