"""The real agent on a simulated board: in the host's process, its jobs inline, in virtual time.

What the real one does in child processes happens here while the host waits for the answer. A job
that is cut in its middle is simulated to its end all the same, and then the board goes back to the
moment of the cut; at its end its answer lies in the file where the real supervisor puts it.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.agent import (
    children,
    clock,
    jobs,
    launcher,
    releases,
    runtimes,
    sensors,
    store,
    wire,
)
from device_agents.agent.answers import Answers
from device_agents.agent.facts import file_sha256
from device_agents.agent.main import Agent
from device_agents.agent.resources import Resources
from device_agents.errors import AgentError, DeadlineExceeded, LinkLost
from device_agents.fakes.board import Died, Execution, FakeBoard, Hung, Running
from device_agents.fakes.script import NO_FAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.fakes.script import Fault

_RUNTIME = "null"
# Skipped: what a login script says; and a line of ours that noise has hit: that link is lost.
_GARBAGE = b"Welcome to \xff\xfe\n" + wire.MARK + b'{"id": 1, "pa\x00\xff\n'


class InlineTurns:
    """Does the work of the agent's jobs at once, and counts how often each one ran."""

    def __init__(self, board: FakeBoard, directory: str) -> None:
        self._board = board
        self._answers = _Answers(board, launcher.own_folder(Path(directory, "jobs")))

    def run(self, op: str, order: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
        """Do the work of a job, or return the answer that an earlier call with this id has left."""
        board, job_id, seed = self._board, str(call["id"]), order.get("seed", 0)
        self._answers.begin(job_id)
        if board.running is not None and board.running.job_id == job_id:
            board.wait_for_running()
        else:
            board.end_running()
        answer = self._answers.read(job_id) if job_id else None
        if answer is not None:
            board.rejoined += 1
            return children.result_of(answer)
        begun_ns = board.now_ns()
        answer = self._do(op, order, call["deadline_s"])
        fault = board.befalling
        if fault.ends_link and fault.phase == "during":
            keep = functools.partial(Answers(self._answers.folder).write, job_id, answer)
            middle_ns, ends_ns = (begun_ns + board.now_ns()) // 2, board.now_ns()
            given_up_ns = middle_ns + int(call["rejoin_s"] * 1e9)
            running = Running(job_id, seed, keep, ends_ns, given_up_ns)
            board.go_back(middle_ns, running)
            return children.result_of(answer)
        lost = fault.kind == "reboot"
        board.executions.append(Execution(job_id, seed, lost))
        if job_id and not lost:
            self._answers.write(job_id, answer)
        return children.result_of(answer)

    def forget(self) -> None:
        """Remove the answer to the last call."""
        self._answers.begin("")

    def _do(self, op: str, order: dict[str, Any], deadline_s: float) -> children.Answer:
        stages = ["starting"]
        begin = self._board.seconds()
        try:
            with sensors.use(self._board):
                answer = children.answer_of(jobs.work_of(op), order, stages.append)
        except Died:
            sentence = f"the runtime died with SIGSEGV while {stages[-1]}"
            return {"error": ["crashed", sentence, ""]}
        except Hung:
            self._board.sleep(deadline_s)
            return _timeout(stages)
        return answer if self._board.seconds() - begin <= deadline_s else _timeout(stages)


def _prepare(runtime: str) -> tuple[str, str]:
    """Refuse all runtimes but the one that takes no real time."""
    runtimes.module(runtime)
    if runtime != _RUNTIME:
        raise wire.Refused(
            "runtime_missing", f"a fake device has no {runtime} runtime, only {_RUNTIME}"
        )
    return runtimes.prepare(runtime)


def _timeout(stages: list[str]) -> children.Answer:
    return {"error": ["timeout", f"killed at its deadline while {stages[-1]}", ""]}


class _Answers(Answers):
    def __init__(self, board: FakeBoard, folder: Path) -> None:
        super().__init__(folder)
        self._board = board

    def write(self, job_id: str, answer: children.Answer) -> None:
        """Write it, unless the disk is full."""
        if not self._board.full:
            super().write(job_id, answer)


class _ModelStore(store.ModelStore):
    """The agent's files, on a disk that may be full."""

    def __init__(self, board: FakeBoard, directory: str) -> None:
        super().__init__(directory)
        self._board = board

    def accept(self, sha256: Any, source: Any, keep_bytes: int) -> None:
        """Take a file in."""
        _refuse_full(self._board, self.directory)
        super().accept(sha256, source, keep_bytes)


class _Releases(releases.Releases):
    """The agent's releases, on a disk that may be full."""

    def __init__(self, board: FakeBoard, kept: store.ModelStore) -> None:
        super().__init__(kept)
        self._board = board
        self._directory = kept.directory

    def stage(self, sha256: Any, name: Any, version: Any, extension: Any) -> dict[str, Any]:
        """Copy a model to where it can be run."""
        _refuse_full(self._board, self._directory)
        return super().stage(sha256, name, version, extension)


def _refuse_full(board: FakeBoard, directory: str) -> None:
    if board.full:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise store.disk_error(full, directory)


class FakeStream:
    """A connection to the agent on a board, as a `Stream`; `argv` started it.

    The launcher (agent/launcher.py) is simulated: it has the agent sent when it is not there.
    """

    def __init__(self, name: str, board: FakeBoard, argv: Sequence[str]) -> None:
        self._name = name
        self._board = board
        self._epoch = board.epoch
        self._lost = ""
        self._archive, self._wanted = Path(argv[4]), argv[5]
        self._directory = argv[argv.index("--directory") + 1]
        self._out = bytearray()
        self._calls = wire.Decoder()
        self._pending: list[dict[str, Any]] = []
        self._locks: list[int] = []
        self._agent: Agent | None = None
        launcher.top_folder(Path(self._directory))
        launcher.sweep(launcher.own_folder(self._archive.parent))
        if launcher.sha256_of(self._archive) == self._wanted:
            self._start_agent()

    def _start_agent(self) -> None:
        board, archive = self._board, self._archive
        kept = _ModelStore(board, self._directory)
        self._locks.append(kept.lock)
        self._agent = Agent(
            Resources(
                store=kept,
                releases=_Releases(board, kept),
                turns=InlineTurns(board, kept.directory),
                prepare=_prepare,
                sensors=board,
                facts=lambda: _facts(board, archive),
            )
        )

    def _launch(self, call: dict[str, Any]) -> None:
        """Answer the first call with where the agent is to be sent; start it at the second."""
        sent = next(self._archive.parent.glob(f"{launcher.PART}*/agent"), None)
        if sent is None:
            nest, lock = launcher.claim(self._archive.parent)
            self._locks.append(lock)
            told = {"result": {"send_agent_to": f"{nest}/agent"}, "busy_ns": 0}
            self._out += wire.encode(call["id"], told)
            return
        sent.replace(self._archive)
        shutil.rmtree(sent.parent)
        self._start_agent()
        self._do(call)

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Take in calls; see `Stream.write`."""
        del timeout_s
        self._refuse_lost()
        for line in data.splitlines(keepends=True):
            call = self._calls.feed(line)
            if call is not None:
                self._pending.append(call)

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        """Do what is to be done and return a line; see `Stream.read_line`."""
        with self._board.lock:
            self._refuse_lost()
            if b"\n" not in self._out and self._pending:
                act = self._launch if self._agent is None else self._do
                act(self._pending.pop(0))
                self._refuse_lost()
            end = self._out.find(b"\n") + 1
            if not end:
                # Nothing will come by itself: the time until the deadline passes at once.
                self._board.sleep(timeout_s)
                raise DeadlineExceeded(
                    f"device {self._name!r} did not answer within {timeout_s:g} s"
                )
            line = bytes(self._out[:end])
            del self._out[:end]
        if len(line) > limit_bytes:
            raise AgentError(
                f"device {self._name!r} sent a line of more than {limit_bytes} bytes",
                kind="line_too_long",
            )
        return line

    def stderr_tail(self) -> str:
        """Return nothing: the agent says nothing there."""
        return ""

    def cut(self) -> None:
        """Lose the link, from any thread."""
        self._lost = "the connection ended"
        while self._locks:
            os.close(self._locks.pop())

    def close(self) -> None:
        """End the agent."""
        self.cut()

    def _do(self, call: dict[str, Any]) -> None:
        assert self._agent is not None  # noqa: S101  # it answers only when it has started
        fault = self._board.call()
        if fault.kind == "hang":
            return
        if fault.kind == "clock_jump":
            self._board.jump(fault.jump_s)
        answer = b""
        if not (fault.ends_link and fault.phase == "before"):
            self._board.befalling = fault
            try:
                with clock.use(self._board):
                    answer = wire.encode(call["id"], self._agent.answer(call["message"]))
            finally:
                self._board.befalling = NO_FAULT
        if fault.ends_link:
            end_link(self._board, fault)
            self._lost = "the connection ended before the answer was complete"
        elif fault.kind == "garbage":
            self._out += _GARBAGE
        else:
            self._out += answer

    def _refuse_lost(self) -> None:
        if self._board.epoch != self._epoch:
            self._lost = self._lost or "the connection ended"
        if self._lost:
            raise LinkLost(f"device {self._name!r}: {self._lost}")


def end_link(board: FakeBoard, fault: Fault) -> None:
    """Let a cut, a killed agent or a reboot befall the board."""
    if fault.kind == "reboot":
        board.reboot()
    if fault.kind != "agent_killed":
        board.go_down(fault.down_s)


def _facts(board: FakeBoard, archive: Path) -> dict[str, Any]:
    about = board.script.board
    return {
        "protocol": wire.PROTOCOL,
        "agent_sha256": file_sha256(archive),
        "device_id": board.identity,
        "python": "3.9.0",
        "python_path": "/usr/bin/python3",
        "machine": "fake",
        "kernel_machine": "fake",
        "bits": 64,
        "userland_bits": 64,
        "os": "simulated",
        "kernel": "simulated",
        "cpu_count": about.cores,
        "model": about.model,
        "memory_bytes": about.memory_bytes,
        "runtimes": {_RUNTIME: f"{_RUNTIME} 1"},
    }
