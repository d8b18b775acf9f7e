"""Several trainings at once, each in a process of its own with one thread.

Small networks gain little from a second thread and lose much when the machine is busy; two
processes use two cores whatever they train. A child opens the store itself and records its epochs
and its result there, so whoever is killed, parent or child, nothing is lost but the epoch in
flight. A child ends when its parent does, and what goes wrong in it is raised again in the parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, cast

from device_agents.errors import EdgewrightError
from pipeline.store.memo import LOG, Memo
from pipeline.train.loop import Trained, use_threads
from pipeline.train.remembered import Training, is_trained, train_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.context import SpawnProcess

    from device_agents.api import Failure
    from models.spec import ArchSpec
    from pipeline.data.api import Data

EPOCH_TIMEOUT_S = 3600.0
"""Children that report no epoch for so long are taken to hang."""
_JOIN_S = 10.0


def train_all(
    specs: Sequence[ArchSpec],
    training: Training,
    *,
    data: Data,
    memo: Memo,
    on_epoch: Callable[[int, int], None] = lambda _index, _epoch: None,
) -> list[Trained | Failure]:
    """Train networks, as many at once as there are cores.

    Call it from the main thread, which is where Ctrl-C arrives.

    Args:
        specs: what to train; what the store already has is not trained again.
        training: how.
        data: on what.
        memo: remembers; each process opens its store anew.
        on_epoch: told the index of a network and the number of its epochs done.

    Returns:
        One trained network for each spec, in order, or the failure of a training that diverged.

    Raises:
        EdgewrightError: what a training process raised (StoreError, say), or that it was killed
            or hangs. The other trainings are ended; what they did is in the store.
        OSError: likewise, of a file that could not be read or written.
    """
    indices: dict[ArchSpec, list[int]] = {}
    for index, spec in enumerate(specs):
        indices.setdefault(spec, []).append(index)

    def report(spec: ArchSpec, epoch: int) -> None:
        for index in indices[spec]:
            on_epoch(index, epoch)

    missing: list[ArchSpec] = []
    for spec in indices:
        if is_trained(spec, training, data=data, memo=memo):
            report(spec, training.config.epochs)
        else:
            missing.append(spec)
    _train([_Job(spec, training, data, memo.store.location) for spec in missing], report)
    for spec in missing:
        LOG.info("did train %s", spec.digest())
    return [train_network(spec, training, data=data, memo=memo) for spec in specs]


@dataclass(frozen=True, slots=True)
class _Job:
    spec: ArchSpec
    training: Training
    data: Data
    location: str


@dataclass(frozen=True, slots=True)
class _Child:
    """A training process and the parent's end of the pipe to it."""

    spec: ArchSpec
    process: SpawnProcess
    pipe: Connection

    @classmethod
    def start(cls, spec: ArchSpec) -> _Child:
        # Not fork: torch's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return cls(spec, process, ours)

    def send(self, job: _Job) -> None:
        """Tell it what to do. Waits until it has been read, if there is much data."""
        try:
            self.pipe.send(job)
        except ConnectionError:
            raise self._gone() from None

    def receive(self) -> int | None:
        """Return an epoch, or None when the training has ended; raise what was raised there."""
        try:
            message: int | Exception | None = self.pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(message, Exception):
            raise message
        return message

    def end(self, *, kill: bool) -> None:
        """Let it end, or make it."""
        if not kill:
            self.process.join(_JOIN_S)
        self.process.kill()
        self.process.join(_JOIN_S)
        self.pipe.close()

    def _gone(self) -> EdgewrightError:
        self.process.join(_JOIN_S)
        code = self.process.exitcode
        if code is None or code >= 0:
            how = f"ended by itself (exit code {code})"
        else:
            memory = "; out of memory?" if code == -signal.SIGKILL else ""
            how = f"was killed (signal {-code}{memory})"
        return EdgewrightError(f"a training process {how}; the same command goes on from there")


def _train(jobs: Sequence[_Job], report: Callable[[ArchSpec, int], None]) -> None:
    """Do each job in a child and wait for all of them."""
    waiting = list(jobs)
    running: dict[Connection, _Child] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                job = waiting.pop(0)
                with _interrupts_wait():
                    child = _Child.start(job.spec)
                    running[child.pipe] = child
                child.send(job)
            ready = cast("list[Connection]", wait(list(running), EPOCH_TIMEOUT_S))
            if not ready:
                raise EdgewrightError(
                    f"no training process reported an epoch for {EPOCH_TIMEOUT_S:g} s; they were "
                    "ended, the same command goes on from the last epoch"
                )
            for pipe in ready:
                child = running[pipe]
                epoch = child.receive()
                if epoch is None:
                    running.pop(pipe).end(kill=False)
                else:
                    report(child.spec, epoch)
    finally:
        for child in running.values():
            child.end(kill=True)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended; a process started in it never gets one.

    A terminal sends it to all processes. Only the parent is to act on it: a child would print a
    traceback, also while it is still importing, long before it could ask to be left alone.
    """
    arrived: list[int] = []
    resource_tracker.ensure_running()  # started by the first child, it would unblock SIGINT
    # Another thread may take the signal, and Python then calls the handler here nevertheless.
    handler = signal.signal(signal.SIGINT, lambda number, _frame: arrived.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if arrived:
        signal.raise_signal(signal.SIGINT)


def _child(pipe: Connection) -> None:
    """Do one job; send each epoch, then None or the exception that ended it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(1)
    last: Exception | None = None
    try:
        _work(pipe.recv(), pipe.send)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        last = _sendable(error)
    with suppress(ConnectionError):  # the parent has gone
        pipe.send(last)


def _work(job: _Job, on_epoch: Callable[[int], None]) -> None:
    from pipeline.store import PATIENCE_S, Store

    with Store.open(job.location, patience_s=PATIENCE_S) as store:
        train_network(job.spec, job.training, data=job.data, memo=Memo(store), on_epoch=on_epoch)


def _end_with_parent() -> None:
    """End this process when the parent has ended, also if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    """Return an exception of the same kind and sentence that survives pickling."""
    copy: Exception
    if isinstance(error, EdgewrightError):
        copy = type(error)(str(error))
    elif isinstance(error, OSError):
        copy = OSError(error.errno, error.strerror or str(error), error.filename)
    else:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note("in a training process:\n" + "".join(traceback.format_exception(error)))
    return copy
