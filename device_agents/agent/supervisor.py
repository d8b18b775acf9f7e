"""Watches one job that may outlive the agent that started it.

A process of its own between agent and child: it keeps the child's deadline also when the agent has
gone, and a crash of the child is an answer that a later agent can give. While the agent is there
it only sleeps, so it takes nothing from what is timed.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from . import children
from .children import Answer, HostGone

_LOOK_S = 0.5


class Task(NamedTuple):
    """What is to be done: the work of the job `op` with `order`.

    `deadline` is of time.monotonic, `rejoin_s` 0 for a job that does not outlive the link.
    """

    op: str
    order: Dict[str, Any]
    id: str
    deadline: float
    rejoin_s: float


def start_supervisor(
    task: Task,
    folder: Path,
    write: Callable[[str, Answer], None],
    *,
    running: int,
    private: List[int],
    fork: bool,
) -> Tuple[int, int]:
    """Start it; return its process id, which is its group's too, and the pipe with its answer."""
    link, link_child = os.pipe()
    if not fork:
        return _started(task, folder, running, link_child), link
    pid = os.fork()
    if pid:
        os.close(link_child)
        return pid, link
    try:
        os.setsid()
        # An SSH server keeps a session open while anyone holds its streams.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for descriptor in [*private, link]:
            os.close(descriptor)
        _supervise(task, folder, write, out=link_child, running=running, fork=True)
    finally:
        os._exit(0)


def serve_supervisor(write: Callable[[Path, str, Answer], None]) -> int:
    """Be the process of `_started`: one task on stdin."""
    given = json.loads(sys.stdin.buffer.readline())
    folder = Path(given["folder"])
    _supervise(
        Task(**given["task"]),
        folder,
        lambda job_id, answer: write(folder, job_id, answer),
        out=given["out"],
        running=given["running"],
        fork=False,
    )
    return 0


def is_awaited(folder: Path) -> bool:
    """Tell whether an agent waits for the running job."""
    descriptor = os.open(folder / "attached", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _started(task: Task, folder: Path, running: int, out: int) -> int:
    process = subprocess.Popen(
        [sys.executable, "-u", sys.argv[0], "--supervise"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[out, running],
        start_new_session=True,
    )
    os.close(out)
    given = {
        "task": task._asdict(),
        "folder": str(folder),
        "out": out,
        "running": running,
    }
    assert process.stdin is not None  # noqa: S101  # stdin=PIPE above
    try:
        process.stdin.write(json.dumps(given).encode() + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: the pipe of its answer tells
    process.returncode = 0  # reaped by pid, with the answer
    return process.pid


def _supervise(
    task: Task,
    folder: Path,
    write: Callable[[str, Answer], None],
    *,
    out: int,
    running: int,
    fork: bool,
) -> None:
    child = children.start_child(task.op, task.order, private=[out], kept=[running], fork=fork)
    try:
        answer = child.answer(task.deadline, _Agents(out, folder, task.rejoin_s))
    except HostGone:
        return
    write(task.id, answer)
    # If its agent has gone, another one finds it in the file.
    with contextlib.suppress(OSError):
        children.send(out, answer)


class _Agents(children.Watch):
    """For whom the child works: the agent at the pipe, later any agent that is attached."""

    events = 0  # only the end of the pipe, which poll() always tells

    def __init__(self, link: int, folder: Path, rejoin_s: float) -> None:
        self.descriptor = link
        self._folder = folder
        self._rejoin_s = rejoin_s
        self._gone = False
        self._alone_since: Optional[float] = None

    def look(self) -> bool:
        self._gone = True
        return False

    def look_again_s(self) -> float:
        if not self._gone:
            return super().look_again_s()
        now = time.monotonic()
        if is_awaited(self._folder):
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > self._rejoin_s:
            raise HostGone
        return _LOOK_S
