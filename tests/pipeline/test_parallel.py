"""Training processes, real ones: what they train, how they die, and what their parent then says."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from device_agents.api import Failure
from device_agents.errors import EdgewrightError, StoreError
from models.spec import ArchSpec
from pipeline.data import Data, load_dataset
from pipeline.recipe.sections import TrainSection
from pipeline.store import Store
from pipeline.store.memo import Memo
from pipeline.train import parallel
from pipeline.train.loop import Trained, use_threads
from pipeline.train.parallel import train_all
from pipeline.train.remembered import Training, is_trained, train_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.data.api import Dataset

SMALL = ArchSpec.parse("8x8x1:same:conv_k3_s2_o8:fc10")
LARGER = ArchSpec.parse("8x8x1:same:conv_k3_s1_o16:conv_k3_s2_o32:fc10")
EPOCHS = 12
ENDS_S = 60


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", {}, resolution=8, fractions=(0.6, 0.2, 0.2), seed=0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    use_threads(1)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


class Held(NamedTuple):
    """How networks are trained, on what, and what remembers them."""

    training: Training
    data: Data
    memo: Memo

    def all(self, specs: list[ArchSpec], **options: Any) -> list[Trained | Failure]:
        return train_all(specs, self.training, data=self.data, memo=self.memo, **options)

    def one(self, spec: ArchSpec) -> Trained | Failure:
        return train_network(spec, self.training, data=self.data, memo=self.memo)

    def has(self, spec: ArchSpec) -> bool:
        return is_trained(spec, self.training, data=self.data, memo=self.memo)


@contextmanager
def workshop(folder: Path, data: Dataset, epochs: int = EPOCHS) -> Iterator[Held]:
    config = TrainSection(epochs=epochs, batch_size=32)
    with Store.open(folder) as store:
        yield Held(Training(config, 0), Data(data), Memo(store))


def digest(outcome: Trained | Failure) -> str:
    assert isinstance(outcome, Trained)
    return outcome.network.digest()


def only_child() -> int:
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    return child.pid


def test_two_at_once_are_what_each_is_alone(tmp_path: Path, digits: Dataset) -> None:
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    with workshop(tmp_path / "both", digits, epochs=3) as held:
        specs = [SMALL, LARGER, SMALL]
        both = held.all(specs, on_epoch=lambda i, epoch: seen[i].append(epoch))
        trainings = sorted(step.inputs["spec"] for step in held.memo.steps)
    with workshop(tmp_path / "alone", digits, epochs=3) as held:
        alone = [held.one(spec) for spec in (SMALL, LARGER)]
    assert [digest(t) for t in both] == [digest(alone[0]), digest(alone[1]), digest(alone[0])]
    assert trainings == sorted(str(spec) for spec in specs)
    for epochs in seen.values():
        assert sorted(set(epochs)) == [1, 2, 3]


def test_what_is_trained_needs_no_process(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workshop(tmp_path, digits, epochs=1) as held:
        assert not held.has(SMALL)
        first = digest(held.one(SMALL))
        assert held.has(SMALL)
        assert not held.has(LARGER)
        monkeypatch.setattr(parallel, "_child", None)  # a process could do nothing
        seen: list[tuple[int, int]] = []
        (again,) = held.all([SMALL], on_epoch=lambda i, epoch: seen.append((i, epoch)))
    assert digest(again) == first
    assert seen == [(0, 1)]


def test_a_killed_child_is_named_and_the_next_call_goes_on(tmp_path: Path, digits: Dataset) -> None:
    def kill(_index: int, epoch: int) -> None:
        if epoch == 4:
            os.kill(only_child(), signal.SIGKILL)

    sentence = (
        r"^a training process was killed \(signal 9; out of memory\?\); "
        "the same command goes on from there$"
    )
    later: list[int] = []
    with workshop(tmp_path / "killed", digits, epochs=15) as held:
        with pytest.raises(EdgewrightError, match=sentence):
            held.all([SMALL], on_epoch=kill)
        assert not held.has(SMALL)
        (resumed,) = held.all([SMALL], on_epoch=lambda _, epoch: later.append(epoch))
    assert later[0] > 3  # the state after epoch 3 was stored before epoch 4 began
    assert later == [*range(later[0], 16), 15]
    with workshop(tmp_path / "whole", digits, epochs=15) as held:
        assert digest(resumed) == digest(held.one(SMALL))


def test_one_killed_child_ends_the_others(tmp_path: Path, digits: Dataset) -> None:
    def kill(index: int, epoch: int) -> None:
        if (index, epoch) == (0, 1):
            for child in multiprocessing.active_children():
                child.kill()

    with (
        workshop(tmp_path, digits, epochs=5000) as held,
        pytest.raises(EdgewrightError, match=r"a training process was killed .*goes on from there"),
    ):
        held.all([SMALL, LARGER], on_epoch=kill)


def test_divergence_is_a_failure_of_that_network_only(tmp_path: Path, digits: Dataset) -> None:
    with workshop(tmp_path, digits, epochs=2) as tame:
        wild = replace(tame.training.config, learning_rate=1e20)
        held = tame._replace(training=Training(wild, 0))
        outcomes = held.all([SMALL])
        again = held.all([SMALL])
    (failure,) = outcomes
    assert isinstance(failure, Failure)
    assert "training diverged" in failure.reason
    assert again == outcomes


def test_a_store_that_cannot_be_written_is_raised_as_such(tmp_path: Path, digits: Dataset) -> None:
    """A size limit stands in for the full disk, which needs a file system of its own."""
    wide = ArchSpec.parse("8x8x1:same:conv_k3_s2_o64:conv_k3_s2_o256:fc10")  # 600 kB and momentum
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with workshop(tmp_path, digits, epochs=2) as held:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        try:
            with pytest.raises(StoreError, match=r"artifacts/.* cannot be written: ") as caught:
                held.all([wide])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.exit_code == 7
        assert "in a training process:" in caught.value.__notes__[0]
        (outcome,) = held.all([wide])
    assert isinstance(outcome, Trained)


def test_a_store_that_is_gone_is_raised_as_such(tmp_path: Path, digits: Dataset) -> None:
    with workshop(tmp_path / "store", digits) as held:
        elsewhere = tmp_path / "file"
        elsewhere.write_text("")
        held.memo.store.location = str(elsewhere)
        with pytest.raises(StoreError, match="file/artifacts cannot be written"):
            held.all([SMALL])


def test_a_fault_in_a_child_is_raised_with_its_traceback(tmp_path: Path, digits: Dataset) -> None:
    five = ArchSpec.parse("8x8x1:same:conv_k3_s2_o8:fc5")  # the digits are ten
    with workshop(tmp_path, digits) as held, pytest.raises(RuntimeError, match="IndexError") as got:
        held.all([five])
    assert "cross_entropy" in got.value.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        StoreError("the store is locked"),
        OSError(28, "No space left on device", "/tmp/x"),  # noqa: S108 - a name only
        OSError("said in words only"),
        RuntimeError("DataLoader: no"),
    ],
)
def test_an_error_keeps_its_kind_and_sentence_on_the_way(error: Exception) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        theirs.send(parallel._sendable(error))
        received = ours.recv()
    assert type(received) is type(error)
    assert str(error) in str(received)
    if isinstance(error, OSError) and isinstance(received, OSError):
        assert (received.errno, received.filename) == (error.errno, error.filename)


def test_a_child_that_hangs_is_ended_and_said(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    def stop(_index: int, epoch: int) -> None:
        if epoch == 1:
            stopped.append(only_child())
            os.kill(stopped[0], signal.SIGSTOP)
            monkeypatch.setattr(parallel, "EPOCH_TIMEOUT_S", 0.5)

    with workshop(tmp_path, digits, epochs=5000) as held:
        with pytest.raises(EdgewrightError, match=r"no training process reported .* for 0.5 s"):
            held.all([SMALL], on_epoch=stop)
        assert not held.has(SMALL)
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)


SCRIPT = """
import os, signal, sys, threading
from pathlib import Path
from models.spec import ArchSpec
from pipeline.data import load_dataset
from pipeline.train.parallel import train_all
from tests.pipeline.test_parallel import LARGER, SMALL, workshop

data = load_dataset("digits", {}, resolution=8, fractions=(0.6, 0.2, 0.2), seed=0)
with workshop(Path(sys.argv[1]), data, epochs=int(sys.argv[2])) as held:
"""
TRAINS = """
    held.all([SMALL, LARGER], on_epoch=lambda index, epoch: print(index, epoch, flush=True))
"""
UNMOVED = """
    arrived = []
    signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    over = threading.Event()

    def storm():
        while not over.wait(0.02):
            os.killpg(0, signal.SIGINT)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        held.all([SMALL, LARGER])
    finally:
        over.set()
        thread.join()
    print(len(arrived))
"""
INTERRUPTED = """
    for delay_s in (0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 4.0):
        threading.Timer(delay_s, os.killpg, (0, signal.SIGINT)).start()
        try:
            held.all([SMALL, LARGER])
        except KeyboardInterrupt:
            print("interrupted after", delay_s, flush=True)
"""


def script(folder: Path, body: str, epochs: int = 100_000) -> subprocess.Popen[str]:
    path = folder / "script.py"
    # A training process imports the script of its parent.
    path.write_text(f"if __name__ == '__main__':\n{_indented(SCRIPT + body)}")
    return subprocess.Popen(
        [sys.executable, str(path), str(folder / "store"), str(epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = script(tmp_path, TRAINS)
    assert parent.stdout is not None
    try:
        seen = {parent.stdout.readline().split()[0] for _ in range(2)}
        while seen != {"0", "1"}:
            seen.add(parent.stdout.readline().split()[0])
        parent.kill()
        # Children have their parent's stdout and stderr, which therefore end with the last child.
        _, said = parent.communicate(timeout=ENDS_S)
    finally:
        _kill_all(parent)
    assert "Traceback" not in said


def test_ctrl_c_at_any_moment_prints_no_traceback(tmp_path: Path) -> None:
    parent = script(tmp_path, INTERRUPTED)
    try:
        said, complained = parent.communicate(timeout=ENDS_S)
    finally:
        _kill_all(parent)
    assert said.count("interrupted after") == 7
    assert complained == ""
    assert parent.returncode == 0


def test_a_child_takes_no_notice_of_ctrl_c_from_its_first_moment(tmp_path: Path) -> None:
    parent = script(tmp_path, UNMOVED, epochs=3)
    try:
        said, complained = parent.communicate(timeout=ENDS_S)
    finally:
        _kill_all(parent)
    assert complained == ""
    assert parent.returncode == 0
    assert int(said) > 10


@pytest.mark.parametrize("from_another_thread", [True, False])
def test_ctrl_c_waits_until_a_process_is_started(*, from_another_thread: bool) -> None:
    go = threading.Event()

    def interrupt() -> None:
        go.wait(ENDS_S)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    if from_another_thread:
        thread.start()  # before SIGINT is blocked here, so it is not blocked there
    reached = False
    before = signal.getsignal(signal.SIGINT)
    try:
        with parallel._interrupts_wait():
            go.set()
            if from_another_thread:
                thread.join()
            else:
                interrupt()
            reached = True
    except KeyboardInterrupt:
        assert reached
    else:
        pytest.fail("the interrupt was lost")
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def _kill_all(parent: subprocess.Popen[str]) -> None:
    """Leave no process of a failed test; the session is the parent's own."""
    try:
        os.killpg(parent.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    parent.wait(ENDS_S)
