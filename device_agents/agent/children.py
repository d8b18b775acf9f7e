"""Runs one job in a child process, so that a crash or a hang of a runtime costs only that child.

The child is forked from the agent, which has already imported the runtime: it costs milliseconds
instead of seconds. Where forking is missing or unsafe (macOS), a fresh interpreter is started. The
child speaks JSON lines on a pipe: {"stage": …} while it works, then {"result": …} or {"error": …}.
Whoever started it also watches for whom it works (`Watch`), and kills it when nobody is left.
"""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from . import jobs, words
from .jobs import Stage, Work
from .wire import LineReader, Refused

Answer = Dict[str, Any]  # {"result": …} or {"error": [kind, sentence, detail]}

_TAIL_BYTES = 4096
_RESULT_LIMIT_BYTES = 256 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


class HostGone(Exception):
    """Nobody is left for whom a child works."""


class Watch:
    """For whom a child works: here the agent's host, seen at the agent's stdin."""

    events = select.POLLIN | select.POLLHUP

    def __init__(self, host: LineReader) -> None:
        self.descriptor = host.descriptor
        self._host = host

    def look(self) -> bool:
        """Look at the descriptor that poll() named; tell whether to go on polling it."""
        # A call that comes early waits in the reader's buffer.
        self._host.poll()
        if self._host.ended or self._host.asked_to_stop():
            raise HostGone
        return True

    def look_again_s(self) -> float:
        """Return after how many seconds to call this again; raises HostGone if nobody is left."""
        return math.inf


def can_fork() -> bool:
    """Tell whether a child may be forked from a process that has imported a runtime."""
    return hasattr(os, "fork") and sys.platform != "darwin"


class Child:
    """A running child; `answer` must be called, once."""

    def __init__(self, pid: int, results: int, errors: int) -> None:
        self.pid = pid
        self._results = results
        self._errors = errors

    def answer(self, deadline: float, watch: Watch) -> Answer:
        """Wait for the answer, or for the end of the child, which is an answer too.

        Raises HostGone. `deadline` is of time.monotonic; the child is killed at it.
        """
        try:
            return _collect(self.pid, self._results, self._errors, deadline, watch)
        finally:
            os.close(self._results)
            os.close(self._errors)


def start_child(
    op: str,
    order: Dict[str, Any],
    *,
    private: List[int],
    kept: List[int],
    fork: bool,
) -> Child:
    """Start the work of the job `op` in a child.

    Of this process's descriptors it must not have `private`, and keeps `kept` open.
    """
    if fork:
        return Child(*_fork(jobs.work_of(op), order, private))
    return Child(*_start(op, order, kept))


def result_of(answer: Answer) -> Dict[str, Any]:
    """Return the result in an answer; raises Refused for an error."""
    if "error" in answer:
        kind, sentence, detail = answer["error"]
        raise Refused(str(kind), str(sentence), str(detail))
    return answer["result"]  # type: ignore[no-any-return]


def serve_child() -> int:
    """Be the child of `_start`: one request on stdin, answers on the real stdout."""
    out = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline())
    _work(jobs.work_of(request["op"]), request["order"], out)
    return 0


def _fork(work: Work, order: Dict[str, Any], private: List[int]) -> Tuple[int, int, int]:
    results, results_child = os.pipe()
    errors, errors_child = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(results_child)
        os.close(errors_child)
        return pid, results, errors
    try:
        _die_with(parent)
        os.dup2(errors_child, 2)
        os.dup2(2, 1)
        for descriptor in [*private, results, errors, errors_child]:
            os.close(descriptor)
        _work(work, order, results_child)
    finally:
        # Not sys.exit: nothing of the parent (buffers, handlers) may run a second time.
        os._exit(0)


def _start(op: str, order: Dict[str, Any], kept: List[int]) -> Tuple[int, int, int]:
    results, results_child = os.pipe()
    errors, errors_child = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-u", sys.argv[0], "--child"],
        stdin=subprocess.PIPE,
        stdout=results_child,
        stderr=errors_child,
        pass_fds=kept,
    )
    os.close(results_child)
    os.close(errors_child)
    assert process.stdin is not None  # noqa: S101  # stdin=PIPE above
    try:
        process.stdin.write(json.dumps({"op": op, "order": order}).encode() + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: _collect reports how
    process.returncode = 0  # reaped by pid in _collect
    return process.pid, results, errors


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the deadline must do."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _work(work: Work, order: Dict[str, Any], out: int) -> None:
    send(out, answer_of(work, order, lambda stage: send(out, {"stage": stage})))


def send(out: int, message: Dict[str, Any]) -> None:
    """Write one line to a pipe."""
    data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    while data:
        data = data[os.write(out, data) :]


def answer_of(work: Work, order: Dict[str, Any], stage: Stage) -> Answer:
    """Do the work of a job in this process."""
    try:
        return {"result": work(order, stage)}
    except Refused as error:
        return {"error": [error.kind, str(error), error.detail]}
    except MemoryError:
        return {"error": ["invoke_failed", "the device has too little memory for this model", ""]}
    except Exception as error:  # noqa: BLE001  # goes to the host in words
        import traceback

        sentence = "%s: %s" % (type(error).__name__, error)
        return {"error": ["internal", sentence, traceback.format_exc()[-_TAIL_BYTES:]]}


def _collect(pid: int, results: int, errors: int, deadline: float, watch: Watch) -> Answer:
    poll = select.poll()
    for descriptor in (results, errors):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    poll.register(watch.descriptor, watch.events)
    said, tail, killed, open_ends = _Answers(), b"", False, {results, errors}
    try:
        while open_ends and said.answer is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                killed = True
                break
            for descriptor, _ in poll.poll(min(left_s, watch.look_again_s()) * 1000.0):
                if descriptor == watch.descriptor:
                    if not watch.look():
                        poll.unregister(descriptor)
                    continue
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    poll.unregister(descriptor)
                    open_ends.discard(descriptor)
                elif descriptor == errors:
                    tail = (tail + chunk)[-_TAIL_BYTES:]
                else:
                    said.feed(chunk)
    finally:
        # Also after an answer: a runtime's threads must not delay the exit.
        kill(pid)
        status = os.waitpid(pid, 0)[1]
    return _verdict(said.answer, killed=killed, status=status, stage=said.stage, tail=tail)


class _Answers:
    """Reads the lines of a child: its latest stage, and its answer once there is one."""

    def __init__(self) -> None:
        self.stage = "starting"
        self.answer: Optional[Dict[str, Any]] = None
        self._received = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> None:
        self._received += chunk
        if len(self._received) > _RESULT_LIMIT_BYTES:
            sentence = "the result is larger than %d bytes" % _RESULT_LIMIT_BYTES
            self.answer = {"error": ["internal", sentence, ""]}
            return
        while True:
            end = self._received.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._received)
                return
            message = json.loads(bytes(self._received[:end]))
            del self._received[: end + 1]
            self._searched = 0
            if "stage" in message:
                self.stage = message["stage"]
            else:
                self.answer = message


def kill(pid: int) -> None:
    """Kill a process, or with a negative number a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _verdict(
    answer: Optional[Answer], *, killed: bool, status: int, stage: str, tail: bytes
) -> Answer:
    detail = words.worth_telling(tail.decode("utf-8", "replace"))
    if answer is not None:
        if "error" in answer:
            kind, sentence, more = answer["error"]
            told = "\n".join(text for text in (more, detail) if text)
            return {"error": [kind, sentence, told]}
        return answer
    if killed:
        return {"error": ["timeout", "killed at its deadline while %s" % stage, detail]}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "signal %d" % number
        return {"error": ["crashed", "the runtime died with %s while %s" % (name, stage), detail]}
    return {"error": ["crashed", "the runtime ended the process while %s" % stage, detail]}
