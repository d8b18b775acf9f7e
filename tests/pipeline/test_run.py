"""The main job, as its user runs it: the command in its own process, real devices, real files."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import Inference, TensorValue
from device_agents.runner import Device
from models.network import Network
from models.spec import ArchSpec
from pipeline.data import load_data
from pipeline.formats.files import describe_file, run_file
from pipeline.recipe.recipe import Recipe
from pipeline.store import Store
from profiles.registry import load_device
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.store.result import RunResult

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
DIGITS = Path(__file__).parents[2] / "recipes" / "digits.toml"
LINE_DEADLINE_S = 240


def command(folder: Path, *args: str, recipe: Path = RECIPE) -> list[str]:
    """Return `edgewright run` of a recipe with a store and a device of this folder."""
    return [
        sys.executable, "-m", "pipeline.cli.main", "run", str(recipe),
        "--store", str(folder / "store"), "--device", "board", *args,
    ]  # fmt: skip


@contextmanager
def device_of_its_own(folder: Path) -> Iterator[Path]:
    """Give the folder a device `board`: this computer, with a model folder of its own."""
    devices = folder / "config" / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    (devices / "board.toml").write_text(f'extends = "local"\ndirectory = "{folder / "board"}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_CONFIG", str(folder / "config"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return an empty folder with a device."""
    with device_of_its_own(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return a folder where the main job has run, and what it said; later tests go on from it."""
    with device_of_its_own(tmp_path_factory.mktemp("first")) as folder:
        return folder, run(folder, "--verbose")


@pytest.fixture
def finished(first_run: tuple[Path, subprocess.CompletedProcess[str]]) -> Iterator[Path]:
    """Return the folder of a finished run."""
    with device_of_its_own(first_run[0]) as folder:
        yield folder


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *args), capture_output=True, text=True, timeout=600, check=False
    )


def result_of(folder: Path) -> RunResult:
    with Store.open(folder / "store", create=False) as store:
        return store.result()


def kinds_of(folder: Path) -> Counter[str]:
    """Return how many steps of each kind are recorded, checkpoints not counted."""
    with sqlite3.connect(folder / "store" / "store.db") as database:
        query = "select kind from steps where parent is null"
        return Counter(row[0] for row in database.execute(query))


def done_by(said: str) -> Counter[str]:
    """Return how many steps of each kind a command did, as it says with --verbose."""
    return Counter(kind for kind, _key in re.findall(r"^did (\S+) (\w+)$", said, re.MULTILINE))


def check_result(
    result: RunResult,
    folder: Path,
    candidates: int = 4,
    formats: tuple[str, ...] = ("tflite", "onnx"),
) -> None:
    """Hold what every finished run must have, whatever the device."""
    assert len(result.candidates) >= candidates
    assert len({c.spec for c in result.candidates}) == candidates
    assert all(c.latency_ms and c.accuracy for c in result.candidates)
    assert result.candidates[result.chosen].spec == result.winner_spec
    kinds = {(a.network, a.format, a.scheme) for a in result.artifacts}
    assert kinds == {
        (n, f, s) for n in ("winner", "baseline") for f in formats for s in ("float32", "static8")
    }
    for row in result.artifacts:
        assert Path(row.path).stat().st_size == row.bytes
        assert row.latency_ms > 0
        assert row.accuracy_device == pytest.approx(row.accuracy_host, abs=0.02)
        assert row.sqnr_db > (60 if row.scheme == "float32" else 10)
        if row.scheme == "static8":
            assert 1.3 < row.compression_rate < 4.2
            assert row.space_saving_rate == pytest.approx(1 - 1 / row.compression_rate)
    assert Path(str(result.deployed["path"])).is_file()
    assert Path(str(result.deployed["path"])).is_relative_to(folder / "board")
    assert sum(op.latency_ms is not None for op in result.ops) > len(result.ops) / 2
    assert 0 < result.device_timed_s < result.device_busy_s


def check_candidates(folder: Path, candidates: int = 4) -> None:
    """Hold what a finished search must have: every candidate, trained and measured."""
    with Store.open(folder / "store", create=False) as store:
        rows = store.trials(store.runs()[-1].id)
    assert len({row["spec"] for row in rows}) == candidates
    assert all(row["latency_ms"] and row["accuracy"] for row in rows)


def test_the_main_job_and_again(
    finished: Path, first_run: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    place, first = finished, first_run[1]
    assert first.returncode == 0, first.stderr
    result = result_of(place)
    check_result(result, place)
    assert done_by(first.stderr) == kinds_of(place)
    report = Path(first.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert "plotly" in report.read_text()
    assert result.comparison.sentence in first.stdout

    # The same command again: everything is remembered, nothing is measured or trained.
    again = run(place, "--verbose")
    assert again.returncode == 0, again.stderr
    assert not done_by(again.stderr), "a step was done again"
    assert result_of(place).artifacts == result.artifacts
    assert result_of(place).candidates == result.candidates

    # What was deployed computes what the network computes, run from where it was put.
    data = load_data(Recipe.load(RECIPE).data, seed=0).dataset
    images = data.validation.images[:32]
    winner = next(a for a in result.artifacts if a.sha256 == result.deployed["sha256"])
    packed = describe_file(Path(winner.path)).pack(images)
    sent = TensorValue(packed.dtype.name, packed.shape, packed.tobytes())
    with Device.open(load_device("board")) as device:
        release = (str(result.deployed["name"]), str(result.deployed["version"]))
        there = device.releases.infer(*release, [sent], runtime="tflite", threads=1)
    assert isinstance(there, Inference)
    codes = np.frombuffer(there.outputs[0].data, np.dtype(there.outputs[0].dtype))
    logits = describe_file(Path(winner.path)).unpack(codes.reshape(len(images), -1))
    assert np.array_equal(logits, run_file(Path(winner.path), images))

    check_a_failed_file_costs_nothing_else(place, Path(report), result)


def check_a_failed_file_costs_nothing_else(place: Path, report: Path, whole: RunResult) -> None:
    """Let the winner's float32 ONNX, which is not deployed, fail: a folder is in its way."""
    with sqlite3.connect(place / "store" / "store.db") as database:
        asked = "kind = 'export' and inputs like '%onnx%' and inputs like '%float32%'"
        database.execute(f"delete from steps where {asked}")  # noqa: S608
    blocked = report.parent / "winner-float32.onnx"
    blocked.unlink()
    blocked.mkdir()
    (blocked / "in the way").touch()
    done = run(place)
    assert done.returncode == 5, done.stderr
    assert "1 file beside the deployed one failed and is left out" in done.stderr
    result = result_of(place)
    (failed,) = result.failed_files
    assert (failed.network, failed.format, failed.scheme) == ("winner", "onnx", "float32")
    assert "cannot write" in failed.reason
    # All rows but its own, and of the baseline's file of its kind all but what is held against it.
    kept = {(a.network, a.format, a.scheme): a for a in result.artifacts}
    assert len(kept) == len(whole.artifacts) - 1
    assert kept["baseline", "onnx", "float32"].latency_ms > 0
    assert result.deployed == whole.deployed
    assert "Left out, because they failed" in report.read_text()


def test_networks_are_saved_as_spec_and_weights(finished: Path) -> None:
    with Store.open(finished / "store", create=False) as store:
        with sqlite3.connect(finished / "store" / "store.db") as database:
            rows = database.execute("select artifacts from steps where kind = 'train'").fetchall()
        assert len(rows) >= 2, "a winner and a baseline"
        for (text,) in rows:
            network = Network.load(store.path(json.loads(text)["network"]))
            assert isinstance(network.spec, ArchSpec)


def test_fresh_measures_anew_and_trains_nothing_twice(finished: Path) -> None:
    """Goes on in the folder of the tests above, which it changes."""
    place = finished
    before = kinds_of(place)
    again = run(place, "--fresh", "--verbose")
    done = done_by(again.stderr)
    assert done["proxy"] == done["train"] == done["export"] == 0
    # A file that looks faster than the deployed one is measured once more, in turns with it.
    assert abs(done["measure"] - before["measure"]) <= 1
    assert result_of(place).run_id == "tiny-2"


def test_killed_at_any_moment_it_goes_on_where_it_was(place: Path) -> None:
    """Kill -9 at many moments; every step is done by exactly one of the starts.

    The moments are lines that the run prints and seeded fractions of a second after them, so that
    kills also fall inside trainings, measurements and records.
    """
    asked = ("--verbose", "--set", 'export.formats=["tflite"]')
    rng = random.Random(0)
    done: Counter[str] = Counter()
    killed = 0
    for lines in (2, 4, 7, 11, 16, 22, 30):
        process = subprocess.Popen(
            command(place, *asked),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        said: list[str] = []
        with process.stderr:
            for line in process.stderr:
                said.append(line)
                if len(said) == lines:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(rng.random())  # go on for a while
                    killed += process.poll() is None
                    process.kill()
            process.wait(60)
        done += done_by("".join(said))
    assert killed >= 5
    end = run(place, *asked)
    assert end.returncode == 0, end.stderr
    done += done_by(end.stderr)
    check_result(result_of(place), place, formats=("tflite",))
    # Fewer only where the kill came between the record and the line that tells of it.
    assert done["proxy"] <= kinds_of(place)["proxy"], "a proxy training was done twice"
    with Store.open(place / "store", create=False) as store:
        assert [r.id for r in store.runs()] == ["tiny-1"]
        # A kill may cost the measurement in flight, which was taken and not yet recorded.
        measured = len(store.measurements(run_id="tiny-1"))
    assert kinds_of(place)["measure"] <= measured <= kinds_of(place)["measure"] + killed


@pytest.fixture
def ssh_board(place: Path) -> Iterator[lab.LoopbackSsh]:
    """Make `board` a loopback sshd."""
    folder = place / "sshd"
    folder.mkdir()
    with lab.loopback_ssh(folder) as server:
        # Other tests keep the machine busy: nothing would be quiet enough for the canary.
        values = asdict(server.profile(place / "board", canary=False))
        del values["name"]
        lines = (
            f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None
        )
        (place / "config" / "devices" / "board.toml").write_text("".join(lines))
        yield server


def test_the_digits_recipe_over_ssh(place: Path, ssh_board: lab.LoopbackSsh) -> None:
    """The real recipe with a smaller budget: everything that the report needs, over SSH."""
    assert ssh_board.port
    smaller = ("candidates=12", "finalists=1")
    sets = [f"search.{text}" for text in smaller]
    sets += ["search.proxy.epochs=1", "train.epochs=5"]
    sets += ["target.widths=[0.35]", "target.accuracy_tolerance=0.1"]
    arguments = [word for text in sets for word in ("--set", text)]
    done = subprocess.run(
        [*command(place, *arguments, recipe=DIGITS)],
        capture_output=True, text=True, timeout=1400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = result_of(place)
    check_result(result, place, candidates=12)
    assert result.device["name"] == "board"
    assert result.comparison.met
    assert result.comparison.ratio_ci95[1] <= 0.55
    assert result.comparison.winner_accuracy_test > 0.9


def test_a_device_that_vanishes_in_mid_search(place: Path, ssh_board: lab.LoopbackSsh) -> None:
    process = subprocess.Popen(
        command(place, "--verbose"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "did proxy" in line:
            ssh_board.cut()
            break
    said.append(process.stderr.read())
    process.stderr.close()
    assert process.wait(60) == 3, "".join(said)
    assert "what was measured is stored, the same command goes on from there" in said[-1]
    assert "Traceback" not in "".join(said)

    before = kinds_of(place)
    assert before["proxy"] >= 1
    ssh_board.start()
    again = run(place, "--until", "search", "--verbose")
    assert again.returncode == 0, again.stderr
    assert done_by(again.stderr)["proxy"] == 4 - before["proxy"]
    check_candidates(place)


def test_an_agent_that_is_killed_in_mid_search_is_started_again(place: Path) -> None:
    process = subprocess.Popen(
        command(place, "--until", "search", "--verbose"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    killed = 0
    with process.stderr:
        for line in process.stderr:
            if "did proxy" in line and not killed:
                pids = subprocess.run(
                    ["pgrep", "-P", str(process.pid), "-f", "edgewright-agent"],
                    capture_output=True, text=True, check=True,
                ).stdout.split()  # fmt: skip
                for pid in pids:
                    os.kill(int(pid), signal.SIGKILL)
                    killed += 1
    assert process.wait(60) == 0
    assert killed == 1
    check_candidates(place)


def test_data_that_cannot_be_read_is_one_sentence(place: Path) -> None:
    path = place / "images.npz"
    path.write_bytes(b"PK damaged")
    sets = ("--set", 'data.name="npz"', "--set", f'data.options.path="{path}"')
    done = run(place, *sets)
    assert done.returncode == 2
    assert f"edgewright: {path}: it is not a readable .npz file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_processes_do_not_work_on_one_run(place: Path) -> None:
    first = subprocess.Popen(
        command(place), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert first.stderr is not None
    try:
        assert "run tiny-1" in first.stderr.readline()
        second = run(place)
        assert second.returncode == 7
        assert "run tiny-1 is being worked on by another process" in second.stderr
    finally:
        first.kill()
        first.wait(60)
        first.stderr.close()


def test_a_target_that_nothing_meets_says_how_close_the_best_came(place: Path) -> None:
    done = run(place, "--set", "target.latency_ratio=0.001", "--set", "search.candidates=2")
    assert done.returncode == 4
    assert "no candidate meets the target" in done.stderr
    assert "the fastest of 2 candidates (1 measured at the end) took" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_one_sentence_and_the_run_goes_on(place: Path) -> None:
    process = subprocess.Popen(
        command(place), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    with process.stderr, lab.deadline(LINE_DEADLINE_S):
        for line in process.stderr:
            if "measure the reference model" in line:
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
    assert process.wait(60) == 130
    assert "interrupted; what was finished is stored" in said
    assert "Traceback" not in said
    assert run(place, "--until", "search").returncode == 0


def test_a_device_that_cannot_run_the_runtime_is_named(place: Path) -> None:
    python = shutil.which("python3", path="/usr/bin") or "/usr/bin/python3"
    if not Path(python).is_file():
        pytest.skip("no system Python without the runtimes")
    (place / "config" / "devices" / "board.toml").write_text(
        f'extends = "local"\ndirectory = "{place / "board"}"\npython = "{python}"\n'
    )
    done = run(place)
    assert done.returncode == 3
    assert "board" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
