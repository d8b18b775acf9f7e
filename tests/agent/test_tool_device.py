"""Measuring with a benchmark_model: the lab's stand-in, and scripts that fail as real ones do."""

# ruff: noqa: E501 - logs are quoted as they are printed

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import transports
from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import AgentError, ConfigError, DeviceError
from device_agents.opening import open_device
from device_agents.runner import Device
from device_agents.tool_device import ToolDevice
from device_agents.tools.figures import read_log
from device_agents.tools.remote_job import _START, Link, _call, run_job
from scripts.lab.adb_device import adb_device
from tests import lab, lab_adb
from tests.tiny_models import tflite_conv, with_custom_op

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiles.schema import DeviceProfile
    from tests.lab_adb import AdbServer

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "scripts" / "lab" / "benchmark_model"
# Short, and wide enough for a machine shared with other work.
QUICK = replace(
    BenchProtocol.quick(), warmup_min_ms=10.0, max_s=0.03, budget_s=60.0, max_processes=3
)
ONE = replace(QUICK, processes=1, max_processes=1)

GOOD = """\
STARTING!
Log parameter values verbosely: [0]
Running benchmark for at least 1 iterations and at least 0.015 seconds but terminate if exceeding 30 seconds.
count=4 first=9000 curr=5000 min=5000 max=9000 avg=6000 std=1700

Running benchmark for at least 6 iterations and at least 0.03 seconds but terminate if exceeding 30 seconds.
count=8 first=5100 curr=5000 min=4900 max=5100 avg=5000 std=60

Inference timings in us: Init: 12500, First inference: 9000, Warmup (avg): 6000, Inference (avg): 5000
"""


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def printing(folder: Path, text: str, code: int = 0) -> str:
    """Return a binary that prints a text and exits."""
    log = folder / "log.txt"
    log.write_text(text)
    return script(folder / "printing", f'cat "{log}"; exit {code}')


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    return script(tmp_path / "benchmark_model", f'exec "{sys.executable}" "{STAND_IN}" "$@"')


@pytest.fixture
def make(local: Callable[..., DeviceProfile]) -> Callable[..., DeviceProfile]:
    return lambda binary, **changes: local(
        runtime="benchmark_model", benchmark_binary=binary, **changes
    )


def left(profile: DeviceProfile) -> list[str]:
    jobs = Path(profile.directory) / "jobs"
    return sorted(path.name for path in jobs.iterdir()) if jobs.is_dir() else []


def test_the_profile_decides_which_device(
    make: Callable[..., DeviceProfile], local: Callable[..., DeviceProfile], stand_in: str
) -> None:
    with open_device(make(stand_in)) as tool, open_device(local()) as agent:
        assert isinstance(tool, ToolDevice)
        assert isinstance(agent, Device)
        assert tool.hello["machine"] == agent.hello["machine"]
        with pytest.raises(ConfigError, match="not with 'tflite'"):
            tool.prepare("tflite")


def test_a_figure_with_its_conditions(
    make: Callable[..., DeviceProfile], stand_in: str, models: Path
) -> None:
    profile = make(stand_in)
    with open_device(profile) as device:
        result = lab.measured(device.measure(models / "large.tflite", QUICK))
        assert result.device_digest == device.digest
    assert len(result.process_medians_ms) == QUICK.processes
    assert 0.01 < result.median_ms < 50
    assert (result.delegate, result.delegated_share, result.partitions) == ("XNNPACK", 1.0, 1)
    assert result.settings["result"] == "proto"
    assert result.settings["xnnpack"] == "on"
    assert len(result.binary_sha256) == 64
    assert result.timed_ns + result.warmup_ns < result.busy_ns
    assert Measurement.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert left(profile) == []


def test_processes_run_abba_with_the_reference(
    make: Callable[..., DeviceProfile], stand_in: str, models: Path, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    binary = script(tmp_path / "noting", f'echo "$1" >>"{order}"\nexec "{stand_in}" "$@"')
    with open_device(make(binary)) as device:
        result = lab.measured(
            device.measure(models / "large.tflite", QUICK, reference=models / "small.tflite")
        )
    graphs = [line.rsplit("/", 1)[-1] for line in order.read_text().split("\n") if line]
    names = {result.model_sha256: "A", result.reference_sha256: "B"}
    assert "".join(names[graph] for graph in graphs) == "ABBABAAB"
    assert result.ratio is not None
    assert result.ratio > 2
    assert result.reference_median_ms is not None


def test_xnnpack_off_and_full_delegation(
    make: Callable[..., DeviceProfile], stand_in: str, models: Path, tmp_path: Path
) -> None:
    with open_device(make(stand_in, xnnpack=False)) as device:
        result = lab.measured(device.measure(models / "small.tflite", ONE))
    assert (result.settings["xnnpack"], result.delegate) == ("off", "")
    with open_device(make(stand_in, min_delegated_share=1.0)) as device:
        assert lab.measured(device.measure(models / "small.tflite", ONE)).delegated_share == 1.0
    # It says nothing of delegates, or that only a part was taken.
    partial = (
        "Replacing 3 out of 4 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 "
        "partitions for subgraph 0.\n"
    )
    for said, words in (("", "an unknown share"), (partial, "75%")):
        binary = printing(tmp_path, GOOD + said)
        with open_device(make(binary, min_delegated_share=0.9)) as device:
            failure = lab.failed(device.measure(models / "small.tflite", QUICK))
        assert failure.kind == "not_delegated"
        assert f"{words} of the ops is delegated, less than the 90% asked for" in failure.reason
    # It was told to enforce it, but says nothing of flags that it does not know.
    with open_device(make(printing(tmp_path, GOOD), min_delegated_share=1.0)) as device:
        failure = lab.failed(device.measure(models / "small.tflite", QUICK))
    assert "an unknown share of the ops is delegated, less than the 100%" in failure.reason
    with open_device(make(printing(tmp_path, GOOD + partial), xnnpack=False)) as device:
        failure = lab.failed(device.measure(models / "small.tflite", QUICK))
    assert "applied XNNPACK although it is switched off" in failure.reason


def test_text_of_an_old_binary(
    make: Callable[..., DeviceProfile], models: Path, tmp_path: Path
) -> None:
    # It ignores the flag of the result file, silently or not.
    log = tmp_path / "good"
    log.write_text(GOOD)
    calls = tmp_path / "calls"
    says = (
        f'echo "$*" >>"{calls}"\n'
        'case "$*" in *--result_file_path=*) echo STARTING!\n'
        'echo "Unconsumed cmdline flags: --result_file_path=${*##*_path=}"; exit;; esac\n'
    )
    for body in ("", says):
        binary = script(tmp_path / "old", f'{body}cat "{log}"')
        with open_device(make(binary)) as device:
            result = lab.measured(device.measure(models / "small.tflite", QUICK))
        assert result.settings["result"] == "text"
        assert result.median_ms == 5.0
        assert result.reasons[-1] == "average of a process, no median told"
    asked = [line for line in calls.read_text().splitlines() if "--result_file_path" in line]
    assert len(asked) == 1
    unknown = GOOD.replace("STARTING!", "STARTING!\nUnconsumed cmdline flags: --use_xnnpack=true")
    with open_device(make(printing(tmp_path, unknown))) as device:
        failure = lab.failed(device.measure(models / "small.tflite", QUICK))
    assert "the binary does not know --use_xnnpack=true" in failure.reason


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (GOOD, 1, "its exit code is 1"),
        (GOOD, 139, "ended by signal 11"),
        (GOOD + "Benchmarking failed.\n", 1, "the tool says that it failed"),
        (GOOD.replace("count=8", "count=3"), 0, "3 of 6 runs: cut short"),
        (GOOD.replace("least 6 iter", "least 50 iter"), 0, "it ignored a flag"),
        (GOOD[: GOOD.index("Inference")], 0, "lacks its closing line"),
        (GOOD.replace("avg=5000", "avg=5000,0"), 0, "cannot read the numbers"),
        (GOOD + GOOD, 0, "2 benchmark runs in the binary's output"),
        ("hello\n", 0, "0 benchmark runs in the binary's output"),
        ("no such library\n", 127, "its loader is not there"),
        ("STARTING!\nKilled\n", 137, "the process was ended: Killed"),
    ],
)
def test_no_figure_from_a_run_that_does_not_count(
    make: Callable[..., DeviceProfile],
    models: Path,
    tmp_path: Path,
    text: str,
    code: int,
    words: str,
) -> None:
    profile = make(printing(tmp_path, text, code))
    with open_device(profile) as device:
        failure = lab.failed(device.measure(models / "small.tflite", QUICK))
    assert words in failure.reason
    assert failure.reason.startswith("device 'here': ")
    assert left(profile) == []


def test_failures_of_the_stand_in_are_the_real_ones(
    make: Callable[..., DeviceProfile], stand_in: str, models: Path, tmp_path: Path
) -> None:
    with open_device(make(stand_in)) as device:
        junk = with_custom_op(models / "small.tflite", tmp_path / "junk.tflite")
        assert "custom" in lab.failed(device.measure(junk, QUICK)).detail
        failure = lab.failed(device.measure(models / "small.tflite", QUICK, reference=junk))
        assert "the reference: " in failure.reason
        assert failure.kind == "invoke_failed"
        with pytest.raises(ConfigError, match="a TFLite model that is cut short"):
            device.measure(models / "corrupt.tflite", QUICK)
        with pytest.raises(ConfigError, match="no model file"):
            device.measure(tmp_path / "gone", QUICK)


def test_passes_of_their_own(
    make: Callable[..., DeviceProfile], stand_in: str, models: Path, tmp_path: Path
) -> None:
    with open_device(make(stand_in)) as device:
        assert isinstance(device, ToolDevice)
        memory = device.memory(models / "small.tflite")
        assert not isinstance(memory, Failure)
        assert memory.peak_mb is not None
        assert memory.peak_mb > 1
        none = lab.failed(device.per_op(models / "small.tflite"))
        assert "printed no op profile" in none.reason
    table = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "============================== Run Order ==============================\n"
        "\t [node type]\t [first]\t [avg ms]\t [%]\t[times called]\t[Name]\n"
        "\t CONV_2D\t 3.0\t 3.000\t 1.0%\t 1\t[a]:0\n\t MEAN\t 1.0\t 1.000\t 1.0%\t 1\t[b]:1\n"
    )
    whole = GOOD.replace("least 6 iter", "least 20 iter").replace("count=8", "count=20") + table
    with open_device(make(printing(tmp_path, whole))) as device:
        assert isinstance(device, ToolDevice)
        rows = device.per_op(models / "small.tflite")
        assert not isinstance(rows, Failure)
        shares = [(row.node_type, row.share) for row in rows.ops]
        assert shares == [("CONV_2D", 0.75), ("MEAN", 0.25)]
        assert rows.input_shapes == {"x": (1, 16, 16, 3)}


def test_wrong_processor_is_said_before_anything_is_pushed(
    make: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    binary = tmp_path / "for_another"
    # RISC-V, 64 bits, little-endian.
    binary.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xf3\x00" + bytes(40))
    profile = make(str(binary))
    with pytest.raises(ConfigError, match="is built for RISC-V"):
        open_device(profile)
    assert not (Path(profile.directory) / "tools").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder, _: folder.chmod(0o777), r"can be written by others.*\(drwxrwxrwx\)"),
        (lambda folder, _: (folder / "tools").chmod(0o720), "can be written by others"),
        (
            lambda folder, theirs: (
                (folder / "tools").rmdir(),
                (folder / "tools").symlink_to(theirs),
            ),
            r"holds a link where a folder must be \(tools\)",
        ),
    ],
)
def test_a_folder_in_which_others_may_put_programs_is_refused(
    make: Callable[..., DeviceProfile],
    models: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Path], object],
    words: str,
) -> None:
    theirs, profile = tmp_path / "theirs", make(printing(tmp_path, GOOD))
    theirs.mkdir()
    folder = Path(profile.directory)
    (folder / "tools").mkdir(parents=True)
    folder.chmod(0o755)
    spoil(folder, theirs)
    with pytest.raises(DeviceError, match=words) as caught:
        ToolDevice.open(profile)
    assert str(caught.value).endswith("or set another `directory` in the profile")
    assert list(theirs.iterdir()) == []
    shutil.rmtree(folder)
    folder.mkdir(mode=0o755)
    with open_device(profile) as device:
        result = device.measure(models / "small.tflite", ONE)
    assert isinstance(result, Measurement), result
    assert folder.stat().st_mode & 0o777 == 0o700


def test_transfers_that_never_ended_go_after_an_hour(
    make: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    profile = make(printing(tmp_path, GOOD))
    tools = Path(profile.directory, "tools")
    tools.mkdir(parents=True)
    tools.parent.chmod(0o700)
    tools.chmod(0o700)
    for name, age_s in ((".part-old-01", 4000), (".part-young-23", 60), ("program", 4000)):
        (tools / name).write_bytes(b"x")
        os.utime(tools / name, (time.time() - age_s,) * 2)
    ToolDevice.open(profile).close()
    left = {path.name for path in tools.iterdir()}
    assert {".part-young-23", "program"} <= left
    assert ".part-old-01" not in left


def test_pinned_to_cpus(make: Callable[..., DeviceProfile], models: Path, tmp_path: Path) -> None:
    log, seen = tmp_path / "good", tmp_path / "seen"
    log.write_text(GOOD)
    binary = script(
        tmp_path / "pinned", f'grep Cpus_allowed_list /proc/self/status >"{seen}"; cat "{log}"'
    )
    with open_device(make(binary, cpus=(0,))) as device:
        assert lab.measured(device.measure(models / "small.tflite", QUICK)).cpus == (0,)
    assert seen.read_text().split() == ["Cpus_allowed_list:", "0"]


def test_a_hanging_binary_is_ended_at_the_deadline(
    make: Callable[..., DeviceProfile], models: Path, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    profile = make(script(tmp_path / "hanging", f'echo $$ >"{pid}"; exec sleep 1000'))
    with open_device(profile) as device:
        failure = lab.failed(
            device.measure(models / "small.tflite", replace(QUICK, deadline_s=1.0))
        )
    assert (failure.kind, failure.retryable) == ("timeout", True)
    lab.poll(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    assert left(profile) == []


def test_a_flood_of_output_is_bounded(
    make: Callable[..., DeviceProfile], models: Path, tmp_path: Path
) -> None:
    profile = make(script(tmp_path / "flood", "exec yes 'count=8 first=5100 curr=5000'"))
    with open_device(profile) as device:
        failure = lab.failed(device.measure(models / "small.tflite", QUICK))
    assert "more than 4194304; is it a benchmark_model?" in failure.reason
    assert left(profile) == []


def test_abort_ends_a_running_measurement(
    make: Callable[..., DeviceProfile], models: Path, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    binary = script(tmp_path / "slow", f'touch "{begun}"; exec sleep 30')
    with open_device(make(binary)) as device:
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.append(device.measure(models / "small.tflite", QUICK))
        )
        thread.start()
        lab.poll(begun.exists)
        device.abort()
        thread.join(10)
    assert not thread.is_alive()
    assert lab.failed(results[0]).kind == "link"


def test_a_lost_link_is_rejoined_and_nothing_runs_twice(
    server: lab.LoopbackSsh, stand_in: str, models: Path, tmp_path: Path
) -> None:
    starts, gate = tmp_path / "starts", tmp_path / "gate"
    binary = script(
        tmp_path / "gated",
        f'echo "$$" >>"{starts}"\nuntil [ -e "{gate}" ]; do sleep 0.05; done\n'
        f'exec "{stand_in}" "$@"',
    )
    profile = server.profile(
        tmp_path / "device", runtime="benchmark_model", benchmark_binary=binary
    )
    with open_device(profile) as device:
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.append(
                device.measure(models / "small.tflite", replace(QUICK, rejoin_s=40.0))
            )
        )
        thread.start()
        lab.poll(starts.exists)
        server.cut()
        try:
            gate.touch()
        finally:
            server.start()
        thread.join(60)
        assert not thread.is_alive()
    result = lab.measured(results[0])
    assert len(result.process_medians_ms) == QUICK.processes
    assert len(starts.read_text().split()) == QUICK.processes
    assert left(profile) == []


def test_a_device_that_stays_away_is_a_retryable_failure(
    server: lab.LoopbackSsh, models: Path, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    binary = script(tmp_path / "slow", f'touch "{begun}"; exec sleep 20')
    profile = server.profile(
        tmp_path / "device", runtime="benchmark_model", benchmark_binary=binary
    )
    with open_device(profile) as device:
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.append(
                device.measure(models / "small.tflite", replace(QUICK, rejoin_s=1.0))
            )
        )
        thread.start()
        lab.poll(begun.exists)
        server.cut()
        thread.join(30)
        server.start()
    assert not thread.is_alive()
    assert (lab.failed(results[0]).kind, results[0].retryable) == ("link", True)


@pytest.fixture
def phones(tmp_path: Path) -> Iterator[AdbServer]:
    folder = tmp_path / "adb"
    folder.mkdir()
    with lab_adb.adb_server(folder) as running:
        yield running


def test_a_phone_over_the_real_adb(
    phones: AdbServer, stand_in: str, models: Path, tmp_path: Path
) -> None:
    with adb_device(tmp_path / "phone") as phone:
        profile = phones.profile(
            phone, python="", runtime="benchmark_model", benchmark_binary=stand_in
        )
        with open_device(profile) as device:
            result = lab.measured(
                device.measure(models / "large.tflite", QUICK, reference=models / "small.tflite")
            )
        phones.adb("disconnect", phone.serial)
    assert result.ratio is not None
    assert result.ratio > 2
    assert (result.delegate, result.settings["result"]) == ("XNNPACK", "proto")
    assert "fixed_performance_mode" in result.settings


def test_a_phone_that_vanishes_and_comes_back_is_rejoined(
    phones: AdbServer, stand_in: str, models: Path, tmp_path: Path
) -> None:
    starts, gate = tmp_path / "starts", tmp_path / "gate"
    binary = script(
        tmp_path / "gated",
        f'echo "$$" >>"{starts}"\nuntil [ -e "{gate}" ]; do sleep 0.05; done\n'
        f'exec "{stand_in}" "$@"',
    )
    with adb_device(tmp_path / "phone") as phone:
        profile = phones.profile(phone, runtime="benchmark_model", benchmark_binary=binary)
        with open_device(profile) as device:
            results: list[Any] = []
            thread = threading.Thread(
                target=lambda: results.append(device.measure(models / "small.tflite", ONE))
            )
            thread.start()
            lab.poll(starts.exists)
            phone.vanish()
            gate.touch()
            phone.come_back()
            thread.join(60)
            assert not thread.is_alive()
        phones.adb("disconnect", phone.serial)
    assert len(lab.measured(results[0]).process_medians_ms) == 1
    assert len(starts.read_text().split()) == 1


def test_the_compiled_model_tool_that_ships_with_the_runtime(tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "litert-benchmark"
    if not tool.is_file():
        pytest.skip("no litert-benchmark beside this Python; install ai-edge-litert 2.3")
    model = tflite_conv(tmp_path / "net.tflite", size=64, channels=32, depth=3)
    done = subprocess.run(
        [str(tool), f"--model={model}", "--num_runs=20", "--warmup_runs=3"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    log = done.stdout + done.stderr
    # Its own log and its results are on two streams, in this order or the other.
    (figure,) = [found for found in read_log(done.stderr + done.stdout) if found.latency_ms]
    assert (figure.status, figure.runs, figure.statistic) == ("accepted", 20, "median")
    assert f"{figure.latency_ms:.2f} ms" in log


def tools_only(folder: Path, *names: str) -> str:
    """Return a PATH on which only these programs are."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize("detachers", [("setsid",), ("nohup",), ()])
def test_jobs_need_no_more_than_posix_tools(
    local: Callable[..., DeviceProfile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    detachers: tuple[str, ...],
) -> None:
    names = ("sh", "cat", "grep", "mkdir", "rm", "mv", "sleep", "wc", "head", "find")
    monkeypatch.setenv("PATH", tools_only(tmp_path / "bin", *names, *detachers))
    link = Link("here", lambda: transports.connect(local()), threading.Event())
    jobs = str(tmp_path / "the jobs")
    argv = ["sh", "-c", 'echo "$0 $1"; echo err >&2; exit 3', "a b", "$(touch x)"]
    for number in range(2):
        found = run_job(link, jobs, argv, job_id=f"ew-{number}", deadline_s=20, rejoin_s=0)
        assert (found.rc, found.text, found.result) == (3, "a b $(touch x)\nerr\n", b"")
    assert list(Path(jobs).iterdir()) == []
    link.drop()


def test_orphans_are_ended_and_attached_jobs_waited_for(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    link = Link("here", lambda: transports.connect(local()), threading.Event())
    jobs = tmp_path / "jobs"
    assert _call(link.transport, _START, str(jobs), "ew-old", "60", "sleep", "50")[0] == "started"
    # The same id again does not start again.
    assert _call(link.transport, _START, str(jobs), "ew-old", "60", "false")[0] == "started"
    lab.poll((jobs / "ew-old" / "program").exists)
    program = int((jobs / "ew-old" / "program").read_text())
    with pytest.raises(AgentError, match="another measurement keeps the device busy"):
        run_job(link, str(jobs), ["true"], job_id="ew-new", deadline_s=0.2, rejoin_s=0)
    assert Path(f"/proc/{program}").exists()
    # Nobody has asked for it for two minutes.
    past = time.time() - 120
    os.utime(jobs / "ew-old" / "seen", (past, past))
    found = run_job(link, str(jobs), ["echo", "hi"], job_id="ew-new", deadline_s=20, rejoin_s=0)
    assert (found.rc, found.text) == (0, "hi\n")
    lab.poll(lambda: not Path(f"/proc/{program}").exists())
    assert list(jobs.iterdir()) == []
    link.drop()


def test_a_folder_that_cannot_be_made_is_said(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    link = Link("here", lambda: transports.connect(local()), threading.Event())
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match=r"cannot make .*; is its disk full or read-only"):
        run_job(
            link, str(tmp_path / "file" / "jobs"), ["true"], job_id="x", deadline_s=5, rejoin_s=0
        )
    link.drop()


def test_a_disk_that_fills_while_a_job_runs_is_said(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    link = Link("here", lambda: transports.connect(local()), threading.Event())
    jobs = tmp_path / "jobs"
    # What is left when the exit code could not be written.
    argv = ["sh", "-c", f': >"{jobs}/ew-full/rc"; sleep 5']
    with pytest.raises(AgentError, match="is its disk full") as caught:
        run_job(link, str(jobs), argv, job_id="ew-full", deadline_s=20, rejoin_s=0)
    assert caught.value.kind == "disk_full"
    assert list(jobs.iterdir()) == []
    link.drop()


def test_a_command_is_repeated_over_a_new_connection(local: Callable[..., DeviceProfile]) -> None:
    link = Link("here", lambda: transports.connect(local()), threading.Event())
    link.transport.abort()
    assert link.run(["echo", "hi"], timeout_s=10).stdout == b"hi\n"
    link.drop()
