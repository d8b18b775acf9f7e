"""The simulated device: real agent, virtual time, scripted heat and faults."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent import jobs
from device_agents.agent.main import Agent
from device_agents.agent.wire import Refused
from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import AgentError, ConfigError, RuntimeMissing
from device_agents.fakes.board import add_board, board_of
from device_agents.fakes.script import FAULTS, Fault, Latency, Script, Thermal, script_from
from device_agents.fakes.script import Board as About
from device_agents.runner import Device
from profiles.registry import load_device
from profiles.schema import DeviceProfile
from tests import lab

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.fakes.board import FakeBoard

ONE = replace(BenchProtocol.quick(), processes=1, max_processes=1, target_half_width=1.0)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> DeviceProfile:
    return DeviceProfile(f"fake {request.node.name}", transport="fake", runtime="null")


def null_model(folder: Path, **values: Any) -> Path:
    path = folder / "null.json"
    path.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 5.0, **values}))
    return path


def refused(found: Measurement | Failure) -> Failure:
    assert isinstance(found, Failure), found
    return found


def test_thorough_measurement_takes_no_real_time(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path, noise=0.02, first_factor=3.0)
    begin = time.monotonic()
    with Device.open(profile) as device:
        found = lab.measured(device.measure(model, BenchProtocol.thorough()))
    assert board_of(profile).seconds() > 3.0
    assert time.monotonic() - begin < 10.0
    assert found.median_ms == pytest.approx(5.0, rel=0.01)
    assert found.verdict == "valid", found.reasons
    assert found.runtime_version == "null 1"


def test_same_seed_gives_the_same_samples(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path, noise=0.05)
    found = []
    for _ in range(2):
        add_board(profile, Script(latency=Latency(noise=0.01)))
        with Device.open(profile) as device:
            found.append(lab.measured(device.measure(model, ONE)))
    assert found[0].samples_ns == found[1].samples_ns
    assert len(set(found[0].samples_ns)) > 3


def test_factor_and_reference(profile: DeviceProfile, tmp_path: Path) -> None:
    add_board(profile, Script(latency=Latency(factor=2.0)))
    reference = tmp_path / "reference.json"
    reference.write_text('{"edgewright_null": 1, "latency_ms": 2.5}')
    with Device.open(profile) as device:
        found = lab.measured(device.measure(null_model(tmp_path), ONE, reference=reference))
    assert found.median_ms == pytest.approx(10.0)
    assert found.ratio == pytest.approx(2.0)


def test_hot_board_throttles_and_the_figure_is_invalid(
    profile: DeviceProfile, tmp_path: Path
) -> None:
    board = add_board(profile, Script(thermal=Thermal(heat_celsius_per_s=20.0)))
    with Device.open(profile) as device:
        cool = device.sensors()
        found = lab.measured(device.measure(null_model(tmp_path), BenchProtocol.thorough()))
        board.sleep(600.0)
        rested = device.sensors()
    assert (cool.soc_celsius, cool.throttled, cool.clock_khz) == (40.0, 0, 1_800_000)
    assert found.verdict == "invalid"
    assert any("throttle flags" in reason for reason in found.reasons)
    assert max(found.samples_ns) > 1.15 * min(found.samples_ns)
    assert rested.soc_celsius == pytest.approx(40.0, abs=0.1)
    # The clock is back, and the bits "since boot" stay.
    assert (rested.clock_khz, rested.throttled) == (1_800_000, 0xE0000)


def test_under_voltage_is_told(profile: DeviceProfile) -> None:
    add_board(profile, Script(board=About(under_voltage=True)))
    with Device.open(profile) as device:
        assert device.sensors().throttled == 0x10001


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"load_error": "bad magic"}, "load_failed", "refuses the model"),
        ({"fail_at": 4}, "invoke_failed", "failed to run"),
        ({"crash_at": 4}, "crashed", "died with SIGSEGV while warming up"),
        ({"hang_at": 4}, "timeout", "killed at its deadline while warming up"),
        ({"latency": 5}, "load_failed", "refuses the model"),
    ],
)
def test_scripted_model_failures(
    profile: DeviceProfile, tmp_path: Path, values: dict[str, Any], kind: str, words: str
) -> None:
    with Device.open(profile) as device:
        found = refused(device.measure(null_model(tmp_path, **values), ONE))
        assert found.kind == kind
        assert words in found.reason
        found = lab.measured(device.measure(null_model(tmp_path), ONE))
        assert found.median_ms == pytest.approx(5.0)


def test_only_the_null_runtime_is_there(profile: DeviceProfile) -> None:
    with (
        pytest.raises(RuntimeMissing, match="has no tflite runtime, only null"),
        Device.open(replace(profile, runtime="tflite")),
    ):
        pass


def call_of(profile: DeviceProfile, model: Path, op: str) -> int:
    """Return the number of the first call `op` of a measurement, counted on a healthy board."""
    names: list[str] = []
    board = add_board(profile, Script())
    with pytest.MonkeyPatch.context() as patch, Device.open(profile) as device:
        answer = Agent.answer

        def noted(self: Agent, message: dict[str, Any]) -> dict[str, Any]:
            names.append(f"{board._calls} {message['op']}")
            return answer(self, message)

        patch.setattr(Agent, "answer", noted)
        lab.measured(device.measure(model, ONE))
    return next(int(item.split()[0]) for item in names if item.split()[1] == op)


def with_fault(profile: DeviceProfile, model: Path, op: str, fault: Fault) -> FakeBoard:
    return add_board(profile, Script(fault=(replace(fault, at_call=call_of(profile, model, op)),)))


@pytest.mark.parametrize("op", ["has", "put", "prepare", "sensors", "bench"])
@pytest.mark.parametrize("phase", ["before", "during", "after"])
@pytest.mark.parametrize("kind", ["cut", "agent_killed", "reboot", "garbage", "clock_jump"])
def test_measurement_survives(
    profile: DeviceProfile, tmp_path: Path, op: str, phase: str, kind: str
) -> None:
    model = null_model(tmp_path)
    board = with_fault(profile, model, op, Fault(kind, phase=phase))
    with Device.open(profile) as device:
        found = lab.measured(device.measure(model, ONE))
    assert board.injected == {kind: 1}
    assert found.median_ms == pytest.approx(5.0)
    kept = [item for item in board.executions if not item.lost]
    assert len(kept) == 1
    rejoins = op == "bench" and (kind == "garbage" or phase != "before")
    assert board.rejoined == (rejoins and kind in ("cut", "agent_killed", "garbage"))
    # The agent is back at once; the link after half a second, when the job has ended.
    still_runs = (op, phase, kind) == ("bench", "during", "agent_killed")
    assert board.rejoined_running == still_runs
    # Only a reboot under the job makes it run a second time.
    lost = (op, kind) == ("bench", "reboot") and phase != "before"
    assert len(board.executions) == 1 + lost
    rebooted = kind == "reboot" and op == "bench"
    assert ("the device rebooted during the measurement" in found.reasons) == rebooted


def test_cut_in_mid_job_is_noticed_in_its_middle(
    profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = null_model(tmp_path)
    whole = with_fault(profile, model, "bench", Fault("clock_jump"))
    with Device.open(profile) as device:
        lab.measured(device.measure(model, ONE))
    ends_s = whole.seconds()
    board = with_fault(profile, model, "bench", Fault("cut", phase="during", down_s=0.01))
    seen: list[float] = []
    with Device.open(profile) as device:
        monkeypatch.setattr(board, "go_down", lambda _: seen.append(board.seconds()))
        lab.measured(device.measure(model, ONE))
    # One model's job is all that takes time here.
    assert seen == [pytest.approx(ends_s / 2, rel=0.01)]
    assert board.seconds() == pytest.approx(ends_s, rel=0.01)
    assert (board.rejoined, board.rejoined_running) == (1, 1)
    assert [item.lost for item in board.executions] == [False]


def test_job_that_nobody_came_back_for_in_time_is_begun_anew(
    profile: DeviceProfile, tmp_path: Path
) -> None:
    model = null_model(tmp_path, latency_ms=1000.0)
    # The job takes 12 s, half of them after the cut.
    board = with_fault(profile, model, "bench", Fault("cut", phase="during", down_s=5.0))
    with Device.open(profile) as device:
        assert refused(device.measure(model, replace(ONE, rejoin_s=1.0))).retryable
        board.pause(60.0)
        lab.measured(device.measure(model, ONE))
    assert [item.lost for item in board.executions] == [True, False]
    assert board.rejoined == 0


def test_another_job_ends_one_that_was_left(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path, latency_ms=1000.0)
    board = with_fault(profile, model, "bench", Fault("cut", phase="during", down_s=0.5))
    with Device.open(profile) as device:
        device._session.pause = lambda _: device.abort()
        assert refused(device.measure(model, ONE)).retryable
    board.pause(0.5)
    with Device.open(profile) as other:
        lab.measured(other.measure(model, replace(ONE, seed=9)))
    assert [(item.seed, item.lost) for item in board.executions] == [(0, True), (9, False)]


def test_cut_in_mid_transfer_uses_no_half_file(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path)
    # The transfer is the call before the one that takes the file in.
    number = call_of(profile, model, "put") - 1
    board = add_board(profile, Script(fault=(Fault("cut", at_call=number),)))
    with Device.open(profile) as device:
        assert lab.measured(device.measure(model, ONE)).median_ms == pytest.approx(5.0)
    assert board.injected == {"cut": 1}
    models = list(board.folder.glob(".cache/edgewright/models/*"))
    assert [path.read_bytes() for path in models] == [model.read_bytes()]


def test_hang_is_a_deadline_in_virtual_time(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path)
    board = with_fault(profile, model, "bench", Fault("hang"))
    with Device.open(profile) as device:
        begin = time.monotonic()
        found = refused(device.measure(model, ONE))
        assert time.monotonic() - begin < 5.0
        assert (found.kind, found.retryable) == ("link", True)
        assert "did not answer bench within 75 s" in found.reason
        assert board.seconds() >= 75.0
        assert lab.measured(device.measure(model, ONE))


def test_full_disk(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path)
    with_fault(profile, model, "put", Fault("disk_full"))
    with Device.open(profile) as device:
        found = refused(device.measure(model, ONE))
        assert "disk is full" in found.reason
        assert lab.measured(device.measure(model, ONE))
    # At the job itself: its answer cannot be kept, and goes by the pipe all the same.
    board = with_fault(profile, model, "bench", Fault("disk_full"))
    with Device.open(profile) as device:
        assert lab.measured(device.measure(model, ONE))
    assert len(board.executions) == 1
    assert board.injected == {"disk_full": 1}


def test_device_that_stays_away_is_given_up(profile: DeviceProfile, tmp_path: Path) -> None:
    model = null_model(tmp_path)
    board = with_fault(profile, model, "bench", Fault("cut", down_s=1e6))
    with Device.open(profile) as device:
        found = refused(device.measure(model, replace(ONE, rejoin_s=30.0)))
    assert "out of reach" in found.reason
    assert (found.kind, found.retryable) == ("link", True)
    assert 20.0 < board.seconds() < 60.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bord": {}}, r"x.toml has no option 'bord'; did you mean 'board'\? known: board, "),
        ({"board": 5}, "option 'board': 5 is not a table of model, cores, "),
        (
            {"latency": {"factor": "2"}},
            r"\[latency\], option 'factor': '2' is not a number$",
        ),
        ({"latency": {"factor": True}}, "option 'factor': True is not a number$"),
        ({"fault": {"kind": "cut"}}, r"is not a list; write \[\[fault\]\]$"),
        ({"fault": [{"kind": "fire"}]}, f"no kind 'fire' known; have {', '.join(FAULTS)}"),
        ({"fault": [{"at_call": 1}]}, r"\[fault\[0\]\] needs the option 'kind'"),
        ({"fault": [{"kind": "cut"}]}, "cut never befalls; give at_call or probability"),
        ({"board": {"clocks_khz": []}}, r"\[board\], option 'clocks_khz': the list is empty"),
        ({"board": {"clocks_khz": ["a"]}}, "'clocks_khz', item 0: 'a' is not a whole number"),
        ({"board": {"clocks_khz": [0]}}, "'clocks_khz': 0 is not a whole number from 1"),
        ({"latency": {"factor": 0}}, r"\[latency\], option 'factor': 0.0 is not a number above 0"),
        (
            {"thermal": {"cooling_per_s": 0}},
            "option 'cooling_per_s': 0.0 is not a number above 0",
        ),
    ],
)
def test_bad_scripts_are_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        script_from(values, source="x.toml")


def test_script_from_a_file(profile: DeviceProfile, tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text(
        '[board]\nmodel = "Slow"\nclocks_khz = [600000]\n[latency]\nfactor = 3\n'
        '[[fault]]\nkind = "cut"\nat_call = 1000\n'
    )
    with Device.open(replace(profile, address=str(script))) as device:
        assert device.hello["model"] == "Slow"
        assert device.sensors().clock_khz == 600_000
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        Device.open(replace(profile, address=str(tmp_path / "none.toml")))


def test_answers_of_another_shape_are_one_sentence(
    profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for op in ("run", "releases"):
        monkeypatch.setattr(jobs.module(op), "answer", lambda *_: {"outputs": 5, "releases": [7]})
    with Device.open(profile) as device:
        found = device.infer(null_model(tmp_path), [])
        assert isinstance(found, Failure)
        assert "answered run with something unusable" in found.reason
        with pytest.raises(AgentError, match="answered releases with something unusable"):
            device.releases.list_all()


def test_words_of_a_device_are_bounded_and_steer_no_terminal(
    profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*_: object) -> None:
        raise Refused("bad_request", "\x1b[2Jno\r\n" + "x" * 100_000, "\x1b]0;" + "y" * 100_000)

    monkeypatch.setattr(jobs.module("releases"), "answer", said)
    with Device.open(profile) as device, pytest.raises(AgentError) as caught:
        device.releases.list_all()
    assert str(caught.value).startswith(f"device {profile.name!r}: releases: no xxx")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200
    assert len(caught.value.detail) <= 8192


def test_built_in_profile(tmp_path: Path) -> None:
    with Device.open(load_device("fake")) as device:
        assert lab.measured(device.measure(null_model(tmp_path), ONE))


@pytest.mark.parametrize("latency_ms", [0, -1, "5", float("nan")])
def test_a_model_that_takes_no_time_is_refused(
    profile: DeviceProfile, tmp_path: Path, latency_ms: object
) -> None:
    with Device.open(profile) as device:
        refused = device.measure(null_model(tmp_path, latency_ms=latency_ms), ONE)
    assert isinstance(refused, Failure)
    assert refused.kind == "load_failed"
    assert "latency_ms" in refused.detail
