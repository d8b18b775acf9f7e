"""A conversation with the agent on one device.

Ships the agent under its content hash when it is not there, starts it, and makes calls with
deadlines. After a lost link or a missed deadline the stream is out of step and is thrown away; the
next call starts anew.
"""

from __future__ import annotations

import hashlib
import posixpath
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.agent import wire
from device_agents.agent.store import KEEP_BYTES
from device_agents.conversation import Conversation, tell_stop
from device_agents.delivery import Delivery
from device_agents.errors import AgentError, DeadlineExceeded, DeviceError, LinkLost
from device_agents.packing import launch_code, pack_agent
from device_agents.refusals import blame_answer, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.api import OnSent, Stream, Transport
    from device_agents.packing import PackedAgent

DEFAULT_DIRECTORY = "~/.cache/edgewright"

_COMMAND_TIMEOUT_S = 20.0
# A Raspberry Pi with a cold card needs several seconds to start Python.
_HELLO_TIMEOUT_S = 60.0
# A Raspberry Pi Zero has to import numpy, and is far slower than where this was tried.
_UNPACK_S = 60.0
_UNPACKED_BYTES_S = 50_000
_ALWAYS = ("hello", "quit")  # which use nothing of the device


class Session:
    """Calls to the agent of one device. Safe to use from several threads: one call at a time.

    `connect` makes a new transport, also after the link was lost; nothing is opened before the
    first call. `clock` and `pause`, in seconds, are the host's, or those of a simulated device.
    `before_call` may refuse any call that uses the device, by raising, right before it is made;
    `on_sent` is told how much of a file is there.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Transport],
        *,
        directory: str = "",
        keep_bytes: int = KEEP_BYTES,
        agent_flags: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._name = name
        self._connect = connect
        self._directory = directory or DEFAULT_DIRECTORY
        self._keep_bytes = keep_bytes
        self._flags = agent_flags
        self._lock = threading.RLock()
        self._transport: Transport | None = None
        self._stream: Stream | None = None
        self._conversation: Conversation  # over the stream, made with it
        self._hello: dict[str, Any] = {}
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._busy_ns = 0
        self._connections = 0
        self._gave_up = threading.Event()
        self.before_call: Callable[[], None] = lambda: None
        self.on_sent: OnSent | None = None
        self.clock = clock
        # Waiting ends with an abort.
        self.pause = self._gave_up.wait if pause is None else pause

    @property
    def name(self) -> str:
        """The user's name for the device."""
        return self._name

    @property
    def connections(self) -> int:
        """How often an agent was reached; more than before means that a link was lost since."""
        return self._connections

    @property
    def loses_link(self) -> bool:
        """Whether the device can go on without its link; connects when needed."""
        with self._lock:
            self._opened()
            return self._live_transport().loses_link

    @property
    def aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._gave_up.is_set()

    @property
    def busy_ns(self) -> int:
        """Time that the agent says it worked on all calls so far, refused ones included."""
        return self._busy_ns

    @property
    def hello(self) -> dict[str, Any]:
        """The agent's answer to `hello`; connects when needed."""
        with self._lock:
            self._opened()
            return self._hello

    def call(self, op: str, *, timeout_s: float, **args: Any) -> dict[str, Any]:
        """Make one call and return its result; the device's own time is added to `busy_ns`.

        Raises AgentError (with `kind`), RuntimeMissing, LinkLost, DeadlineExceeded, and on the
        first call whatever connecting raises.
        """
        with self._lock:
            stream = self._opened()
            return self._exchange(stream, op, timeout_s, args)

    def push(self, path: str | Path) -> str:
        """Make sure the file is on the device; return its SHA-256. Raises TransferFailed, LinkLost.

        The file goes to a temporary name; the agent verifies its hash and moves it into place.
        """
        return self.deliver(path).sha256

    def deliver(self, path: str | Path, *, packed: Path | None = None) -> Delivery:
        """Do the same, and tell how; `packed` holds the file and is sent where it is unpacked."""
        sha256, size = self._hash(Path(path)), Path(path).stat().st_size
        with self._lock:
            if self.call("has", timeout_s=_COMMAND_TIMEOUT_S, sha256=sha256).get("has") is True:
                return Delivery(sha256, size)
            if self._hello.get("unpacks") is not True:
                packed = None
            sent, begun_s = packed or Path(path), self.clock()
            incoming = posixpath.join(self._hello["incoming"], uuid.uuid4().hex)
            with self._transfer():
                self._live_transport().put(str(sent), incoming, on_sent=self.on_sent)
            sent_s = self.clock() - begun_s
            # Hashing and flushing on a slow card: at least 1 MB/s.
            timeout_s = _COMMAND_TIMEOUT_S + size / 1e6
            where = {"sha256": sha256, "path": incoming, "keep_bytes": self._keep_bytes}
            told: dict[str, Any] = {}
            if packed is None:
                self.call("put", timeout_s=timeout_s, **where)
            else:
                deadline_s = _UNPACK_S + size / _UNPACKED_BYTES_S
                timeout_s += deadline_s
                told = self.call("unpack", timeout_s=timeout_s, deadline_s=deadline_s, **where)
        with blame_answer(self._name, "unpack"):
            unpack_s = None if packed is None else int(told["unpack_ns"]) / 1e9
        return Delivery(sha256, size, sent.stat().st_size, sent_s, unpack_s)

    def abort(self) -> None:
        """End the agent, the connection and the running call, from any thread; takes no lock.

        The running call and every later one raise LinkLost. A connection that is just being made
        ends when it is made, or at its own deadline.
        """
        # The flag comes first: whoever makes a transport or a stream after it reads it.
        self._gave_up.set()
        stream, transport = self._stream, self._transport
        if stream is not None:
            tell_stop(stream)
        if transport is not None:
            transport.abort()

    def close(self) -> None:
        """End agent and connection; unless aborted, the next call connects again."""
        with self._lock:
            if self._stream is not None:
                with suppress(DeviceError):
                    self._exchange(self._stream, "quit", 2.0, {})
            self._drop()

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        """Give up the whole connection when a transfer finds it broken, if calls still pass too."""
        try:
            yield
        except (LinkLost, DeadlineExceeded):
            self._drop()
            self._refuse_aborted()
            raise

    def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _drop(self) -> None:
        self._end_stream()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _live_transport(self) -> Transport:
        if self._transport is None:
            raise LinkLost(f"device {self._name!r}: not connected")
        return self._transport

    def _refuse_aborted(self) -> None:
        if self.aborted:
            raise LinkLost(f"device {self._name!r}: aborted")

    def _opened(self) -> Stream:
        self._refuse_aborted()
        if self._stream is not None:
            return self._stream
        self._drop()
        try:
            transport = self._transport = self._connect()
            self._refuse_aborted()
            agent = pack_agent()
            self._start(transport, self._agent_path(transport, agent), agent)
            self._check_hello(agent)
        except BaseException:
            self._drop()
            raise
        if self._stream is None:
            raise LinkLost(f"device {self._name!r}: the agent did not start")
        self._connections += 1
        return self._stream

    def _agent_path(self, transport: Transport, agent: PackedAgent) -> str:
        directory = self._directory
        if not directory.startswith("/"):
            # Relative means below the home directory, with or without `~/`.
            directory = posixpath.join(transport.home, directory.removeprefix("~").lstrip("/"))
        return posixpath.join(directory, "agent", agent.file_name)

    def _start(self, transport: Transport, path: str, agent: PackedAgent) -> None:
        """Start the launcher, which runs the agent's file only when its hash is right."""
        directory = posixpath.dirname(posixpath.dirname(path))
        argv = [transport.python, "-u", "-c", launch_code(), path, agent.sha256]
        self._stream = transport.open([*argv, "--directory", directory, *self._flags])
        self._conversation = Conversation(self._name, self._stream, self.clock)
        try:
            told = self._exchange(self._stream, "hello", _HELLO_TIMEOUT_S, {})
            # The folder may have another name there (a link, a phone's view of it): ours counts.
            nest, name = posixpath.split(str(told.get("send_agent_to", "")))
            nest = posixpath.basename(nest)
            if name and nest not in ("", ".", ".."):
                # Not there yet, or not the right one. To ask by starting it saves a command every
                # other time, which on a device may cost half a second in login scripts.
                target = posixpath.join(posixpath.dirname(path), nest, name)
                transport.put(str(agent.path), target)
                told = self._exchange(self._stream, "hello", _HELLO_TIMEOUT_S, {})
            self._hello = told
        except LinkLost as error:
            raise LinkLost(
                f"{error} (the agent is started as `{transport.python} -u {path}`; it needs "
                "Python 3.9 or newer: correct `python` in the profile if that is another one)"
            ) from error

    def _check_hello(self, agent: PackedAgent) -> None:
        found = self._hello.get("protocol"), self._hello.get("agent_sha256")
        if found != (wire.PROTOCOL, agent.sha256):
            raise AgentError(
                f"device {self._name!r} runs agent {str(found[1])[:64]!r} with protocol "
                f"{str(found[0])[:8]} instead of {agent.sha256} with {wire.PROTOCOL}; remove the "
                f"agent folder in {self._directory} on the device",
                kind="hash_mismatch",
            )
        if not all(isinstance(self._hello.get(name), str) for name in ("directory", "incoming")):
            raise AgentError(f"device {self._name!r}: hello does not say where its files lie")

    def _exchange(
        self, stream: Stream, op: str, timeout_s: float, args: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            self._refuse_aborted()
            if op not in _ALWAYS:
                self.before_call()
            answer = self._conversation.ask(op, args, timeout_s=timeout_s)
        except wire.Excessive as error:
            self._end_stream()
            raise AgentError(
                f"device {self._name!r} answered {op} with something unusable: {error}; something "
                "else than this agent runs there: `edgewright device doctor` shows what"
            ) from error
        except wire.WireError as error:
            self._end_stream()
            raise LinkLost(f"device {self._name!r}: {op}: {error}") from error
        except BaseException as error:
            # Also for Ctrl-C in mid-call: the answer would arrive during the next one.
            if not isinstance(error, LinkLost):
                tell_stop(stream)
            self._end_stream()
            self._refuse_aborted()
            raise
        self._busy_ns += answer["busy_ns"]
        if "error" in answer:
            raise refusal(self._name, op, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _hash(self, path: Path) -> str:
        found = path.stat()
        key = (str(path.resolve()), found.st_mtime_ns, found.st_size)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]
