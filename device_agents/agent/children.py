"""Runs one job in a child process, so that a crash or a hang of a runtime costs only that child.

The child is forked from the agent, which has already imported the runtime: it costs milliseconds
instead of seconds. Where forking is missing or unsafe (macOS), a fresh interpreter is started. The
child speaks JSON lines on a pipe: {"stage": …} while it works, then {"result": …} or {"error": …}.
The parent also watches the agent's stdin: when the host goes away, the child is killed at once.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from .wire import LineReader, Refused

Stage = Callable[[str], None]
Job = Callable[[Dict[str, Any], Stage], Dict[str, Any]]

_TAIL_BYTES = 4096
_RESULT_LIMIT_BYTES = 256 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


class HostGone(Exception):
    """The agent's stdin ended while a child worked."""


def can_fork() -> bool:
    """Tell whether a child may be forked from a process that has imported a runtime."""
    return hasattr(os, "fork") and sys.platform != "darwin"


def run_child(  # one call site, all by name
    name: str,
    job: Job,
    args: Dict[str, Any],
    *,
    deadline_s: float,
    host: LineReader,
    private: List[int],
    fork: bool,
) -> Dict[str, Any]:
    """Run `job(args, stage)` in a child and return its result.

    `private` are the descriptors that a child must not keep. Raises Refused with the job's own
    kind, or with `crashed` or `timeout`; HostGone when `host` ended.
    """
    if fork:
        pid, results, errors = _fork(job, args, private)
    else:
        pid, results, errors = _start(name, args)
    try:
        return _collect(pid, results, errors, time.monotonic() + deadline_s, host)
    finally:
        os.close(results)
        os.close(errors)


def serve_child(jobs: Dict[str, Job]) -> int:
    """Be the child of `_start`: one request on stdin, answers on the real stdout."""
    out = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline())
    _work(jobs[request["job"]], request["args"], out)
    return 0


def _fork(job: Job, args: Dict[str, Any], private: List[int]) -> Tuple[int, int, int]:
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
        _work(job, args, results_child)
    finally:
        # Not sys.exit: nothing of the parent (buffers, handlers) may run a second time.
        os._exit(0)


def _start(name: str, args: Dict[str, Any]) -> Tuple[int, int, int]:
    results, results_child = os.pipe()
    errors, errors_child = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-u", sys.argv[0], "--child"],
        stdin=subprocess.PIPE,
        stdout=results_child,
        stderr=errors_child,
    )
    os.close(results_child)
    os.close(errors_child)
    assert process.stdin is not None  # noqa: S101  # stdin=PIPE above
    try:
        process.stdin.write(json.dumps({"job": name, "args": args}).encode() + b"\n")
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


def _work(job: Job, args: Dict[str, Any], out: int) -> None:
    def send(message: Dict[str, Any]) -> None:
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(out, data) :]

    try:
        send({"result": job(args, lambda stage: send({"stage": stage}))})
    except Refused as error:
        send({"error": [error.kind, str(error), error.detail]})
    except MemoryError:
        send({"error": ["invoke_failed", "the device has too little memory for this model", ""]})
    except Exception as error:  # noqa: BLE001  # goes to the parent in words
        import traceback

        sentence = "%s: %s" % (type(error).__name__, error)
        send({"error": ["internal", sentence, traceback.format_exc()[-_TAIL_BYTES:]]})


def _collect(
    pid: int, results: int, errors: int, deadline: float, host: LineReader
) -> Dict[str, Any]:
    poll = select.poll()
    for descriptor in (results, errors, host.descriptor):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    said, tail, killed, open_ends = _Answers(), b"", False, {results, errors}
    try:
        while open_ends and said.answer is None:
            left = deadline - time.monotonic()
            if left <= 0:
                killed = True
                break
            for descriptor, _ in poll.poll(left * 1000.0):
                if descriptor == host.descriptor:
                    # A call that comes early waits in the reader's buffer.
                    host.poll()
                    if host.ended:
                        raise HostGone
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
        _kill(pid)
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
            raise Refused("internal", "the result is larger than %d bytes" % _RESULT_LIMIT_BYTES)
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


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _verdict(
    answer: Optional[Dict[str, Any]], *, killed: bool, status: int, stage: str, tail: bytes
) -> Dict[str, Any]:
    detail = tail.decode("utf-8", "replace").strip()
    if answer is not None:
        if "error" in answer:
            kind, sentence, more = answer["error"]
            raise Refused(kind, sentence, "\n".join(text for text in (more, detail) if text))
        return answer["result"]  # type: ignore[no-any-return]
    if killed:
        raise Refused("timeout", "killed at its deadline while %s" % stage, detail)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "signal %d" % number
        raise Refused("crashed", "the runtime died with %s while %s" % (name, stage), detail)
    raise Refused("crashed", "the runtime ended the process while %s" % stage, detail)
