"""One job at a time on this device: jobs take turns, and may outlive the link to their host.

    jobs/mutex      held by an agent while it looks at, starts or ends a job
    jobs/running    held by the processes of the running job while one of them lives; says its id
    jobs/attached   held, shared, by every agent that waits for the running job
    jobs/<id>.json  an answer, whole

The locks are flock's, which the kernel lets go whatever kills their holder. The same call with the
same id may be made again, by another agent too: it gets the answer that is there, waits for the
job that runs, or starts the job when neither is left. Such a job is detached: a supervisor forked
from the agent starts the child, writes the answer down and only then sends it. It ends the child at
its deadline, or when no agent was attached for `rejoin_s`. Another job ends it when nobody is
attached, and waits while somebody is.
"""

import contextlib
import fcntl
import json
import os
import select
import time
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from . import children, launcher, supervisor
from .answers import Answers
from .children import Answer, HostGone, Watch, kill
from .supervisor import Task
from .wire import LineReader, Refused

_LOOK_S = 0.02
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class Turns:
    """Runs the jobs of one agent in child processes.

    `private` are descriptors that no child may keep.
    """

    def __init__(self, directory: str, host: LineReader, private: List[int], *, fork: bool) -> None:
        self._host = host
        self._private = private
        self._fork = fork
        self._answers = Answers(launcher.own_folder(Path(directory, "jobs")))
        self._sweep()

    def run(self, op: str, order: Dict[str, Any], call: Dict[str, Any]) -> Any:
        """Do the work of the job `op` in a child and return its result.

        `call` holds deadline_s, and id and rejoin_s: with an id and more than 0 s the job outlives
        the link. Raises Refused with the job's own kind, `crashed`, `timeout` or `busy`; HostGone.
        """
        deadline = time.monotonic() + call["deadline_s"]
        detached = bool(call["id"]) and call["rejoin_s"] > 0
        job_id = call["id"] if detached else uuid.uuid4().hex
        self._answers.begin(job_id)
        rejoin_s = call["rejoin_s"] if detached else 0.0
        task = Task(op, order, job_id, deadline=deadline, rejoin_s=rejoin_s)
        try:
            with self._opened("attached") as attached:
                while True:
                    answer = self._answers.read(job_id) or self._turn(task, attached)
                    if answer is not None:
                        return children.result_of(answer)
                    if time.monotonic() >= deadline:
                        sentence = "another measurement kept the device for %g s"
                        raise Refused("busy", sentence % call["deadline_s"])
                    self._listen()
        except HostGone:
            if self._host.asked_to_stop():
                self._end(job_id)
            raise

    def _sweep(self) -> None:
        """Remove half an answer, unless its job still runs and may be writing it."""
        with self._locked("mutex"):
            running = self._running()
            if running is not None:
                for path in self._answers.folder.glob("*.part"):
                    path.unlink()
                os.close(running)

    def forget(self) -> None:
        """Remove the answer to the last call: it has arrived."""
        self._answers.begin("")

    def _turn(self, task: Task, attached: int) -> Optional[Answer]:
        """Do the job when it is its turn; None when it was not, or when it runs already."""
        with self._locked("mutex") as mutex:
            running = self._running()
            if running is None:
                fcntl.flock(attached, fcntl.LOCK_UN)
                holder, target = self._holder()
                if holder == task.id:
                    fcntl.flock(attached, fcntl.LOCK_SH)
                elif target and not supervisor.is_awaited(self._answers.folder):
                    kill(target)
                return None
            # Again, now that nothing runs: it may have ended between the two looks.
            answer = self._answers.read(task.id)
            if answer is not None:
                os.close(running)
                return answer
            fcntl.flock(attached, fcntl.LOCK_SH)
            try:
                _write(running, task.id, 0)
                private = [*self._private, mutex, attached]
                if task.rejoin_s:
                    pid, link = supervisor.start_supervisor(
                        task,
                        self._answers.folder,
                        self._answers.write,
                        running=running,
                        private=private,
                        fork=self._fork,
                    )
                    _write(running, task.id, -pid)
                else:
                    child = children.start_child(
                        task.op,
                        task.order,
                        private=private,
                        kept=[running],
                        fork=self._fork,
                    )
                    _write(running, task.id, child.pid)
            except BaseException:
                os.close(running)
                raise
        if task.rejoin_s:
            os.close(running)
            return self._supervised(pid, link)
        try:
            return child.answer(task.deadline, Watch(self._host))
        finally:
            os.close(running)

    def _supervised(self, pid: int, link: int) -> Answer:
        poll, watch, received = select.poll(), Watch(self._host), bytearray()
        poll.register(link, select.POLLIN | select.POLLHUP)
        poll.register(watch.descriptor, watch.events)
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == watch.descriptor:
                        watch.look()
                        continue
                    chunk = os.read(link, 1 << 16)
                    received += chunk
                    if not chunk:
                        os.waitpid(pid, 0)
                        if received.endswith(b"\n"):
                            return json.loads(received)  # type: ignore[no-any-return]
                        return {"error": ["crashed", "the job's supervisor was killed", ""]}
        finally:
            os.close(link)

    def _listen(self) -> None:
        watch, poll = Watch(self._host), select.poll()
        poll.register(watch.descriptor, watch.events)
        if poll.poll(_LOOK_S * 1000.0):
            watch.look()

    def _end(self, job_id: str) -> None:
        with self._locked("mutex"):
            running = self._running()
            if running is not None:
                os.close(running)
                return
            holder, target = self._holder()
            if holder == job_id and target:
                kill(target)

    def _running(self) -> Optional[int]:
        """Return the descriptor of the running job's lock, taken; None when a job has it."""
        running = os.open(self._answers.folder / "running", _OPEN, 0o600)
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(running)
            return None
        return running

    def _holder(self) -> Tuple[str, int]:
        """Return the running job's id and the process to kill; call it with the mutex held."""
        text = (self._answers.folder / "running").read_text(encoding="ascii", errors="replace")
        try:
            job_id, target = text.split()
            return job_id, int(target)
        except ValueError:
            return "", 0

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        descriptor = os.open(self._answers.folder / name, _OPEN, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        with self._opened(name) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor


def _write(running: int, job_id: str, target: int) -> None:
    # Always as long, and over what is there: on a disk that is full by now it still succeeds.
    os.pwrite(running, b"%-80s" % b"%s %d" % (job_id.encode(), target), 0)
