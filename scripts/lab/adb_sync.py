"""The `sync` service of the adb double: stat, list, send and receive files; breaks on demand.

It waits for the disk in the event loop: there is one user.
"""

# ruff: noqa: ASYNC240

from __future__ import annotations

import asyncio
import os
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.lab.adb_device import Stream
    from scripts.lab.adb_sandbox import Sandbox

_WORD = struct.Struct("<4sI")
_STAT2 = struct.Struct("<4sI2Q4IQ3q")
_CHUNK_BYTES = 1 << 16


@dataclass(slots=True)
class Faults:
    """What breaks in a file transfer, after that many bytes of it; None: nothing.

    Attributes:
        full_after: the disk is full.
        stall_send_after: the service takes nothing more; the rest of the phone goes on.
        stall_receive_after: the service gives nothing more.
        flip_after: a bit of each packet to the phone is stored wrong.
        lose_after: the last byte of each packet is not stored.
    """

    full_after: int | None = None
    stall_send_after: int | None = None
    stall_receive_after: int | None = None
    flip_after: int | None = None
    lose_after: int | None = None


async def serve(stream: Stream, sandbox: Sandbox, faults: Faults) -> None:
    """Answer requests until QUIT."""
    while True:
        word, size = _WORD.unpack(await stream.exactly(_WORD.size))
        text = (await stream.exactly(size)).decode("utf-8", "surrogateescape")
        if word == b"QUIT":
            return
        if word == b"SEND":
            name, _, mode = text.rpartition(",")
            await _take(stream, Path(sandbox.on_host(name)), int(mode), faults)
            continue
        path = Path(sandbox.on_host(text))
        if word in (b"STAT", b"STA2", b"LST2"):
            await stream.write(_stat(word, path))
        elif word == b"LIST":
            await _list(stream, path)
        elif word == b"RECV":
            await _give(stream, path, faults)
        else:
            await _fail(stream, f"unknown request {word!r}")


def _stat(word: bytes, path: Path) -> bytes:
    try:
        found = path.lstat() if word == b"LST2" else path.stat()
    except OSError as error:
        if word == b"STAT":
            return struct.pack("<4s3I", word, 0, 0, 0)
        return _STAT2.pack(word, error.errno or 1, *([0] * 10))
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    if word == b"STAT":
        return struct.pack("<4s3I", word, found.st_mode, found.st_size, times[1])
    owner = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid)
    return _STAT2.pack(word, 0, found.st_dev, found.st_ino, *owner, found.st_size, *times)


async def _list(stream: Stream, folder: Path) -> None:
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        found, name = entry.lstat(), os.fsencode(entry.name)
        numbers = (found.st_mode, found.st_size, int(found.st_mtime), len(name))
        await stream.write(struct.pack("<4s4I", b"DENT", *numbers) + name)
    await stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))


async def _give(stream: Stream, path: Path, faults: Faults) -> None:
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK_BYTES):
                if _past(faults.stall_receive_after, file.tell()):
                    await asyncio.Event().wait()
                await stream.write(_WORD.pack(b"DATA", len(data)) + data)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        await _fail(stream, str(error.strerror))
    else:
        await stream.write(_WORD.pack(b"DONE", 0))


async def _take(stream: Stream, path: Path, mode: int, faults: Faults) -> None:
    """Write the file under its own name, as adbd does; after a failure, take in the rest."""
    taken = 0
    failure = ""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("wb"))
            path.chmod(mode & 0o777)
        except OSError as error:
            failure = f"couldn't create file: {error.strerror}"
            await _fail(stream, failure)
        while True:
            word, size = _WORD.unpack(await stream.exactly(_WORD.size))
            if word != b"DATA":
                break
            data = bytearray(await stream.exactly(size))
            taken += size
            if _past(faults.stall_send_after, taken):
                await asyncio.Event().wait()
            if _past(faults.flip_after, taken):
                data[-1] ^= 1
            if _past(faults.lose_after, taken):
                del data[-1]
            if _past(faults.full_after, taken) and not failure:
                failure = "write failed: No space left on device"
                await _fail(stream, failure)
            if not failure:
                file.write(data)
    if not failure:
        await stream.write(_WORD.pack(b"OKAY", 0))


def _past(limit: int | None, count: int) -> bool:
    return limit is not None and count > limit


async def _fail(stream: Stream, message: str) -> None:
    text = message.encode()
    await stream.write(_WORD.pack(b"FAIL", len(text)) + text)
