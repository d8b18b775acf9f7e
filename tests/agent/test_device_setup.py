"""Setting a device up over real SSH without internet, and leaving nothing behind."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.api import BenchProtocol, Measurement
from device_agents.care import probe, setup
from device_agents.care import wheels as wheelhouse
from device_agents.care.probe_parts import Python
from device_agents.care.removal import clean
from device_agents.care.unpack_script import SCRIPT
from device_agents.errors import (
    AgentError,
    ConfigError,
    DeviceError,
    RuntimeMissing,
    TransferFailed,
)
from device_agents.runner import Device
from tests import lab
from tests.wheelhouse import repacked, stub_litert, stub_onnxruntime, wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.care.setup import Installed
    from profiles.schema import DeviceProfile


@pytest.fixture
def house(tmp_path: Path) -> Path:
    stub_litert(tmp_path / "wheels")
    return tmp_path / "wheels"


@pytest.fixture
def board(server: lab.LoopbackSsh, tmp_path: Path, bare_python: str) -> DeviceProfile:
    return server.profile(tmp_path / "de 'vice' $(touch x)", python=bare_python)


def install(profile: DeviceProfile, house: Path, **options: Any) -> Installed:
    return setup.install(
        profile,
        options.pop("runtimes", ["tflite"]),
        with_python=lambda python: dataclasses.replace(profile, python=python),
        wheels=house,
        **options,
    )


def test_a_bare_device_gets_a_runtime_of_its_own(board: DeviceProfile, house: Path) -> None:
    with pytest.raises(RuntimeMissing):
        Device.open(board)
    said: list[str] = []
    done = install(board, house, say=said.append)
    assert done.runtimes == {"tflite": "ai_edge_litert 9.8.7"}
    assert [name.split("-")[0] for name in done.wheels] == ["ai_edge_litert", "numpy"]
    assert [words.split()[0] for words in said] == ["choosing", "sending", "sending", "unpacking"]
    home = Path(done.python).parent
    assert home.parent == Path(board.directory, "runtime")
    assert [path.name for path in home.parent.iterdir()] == [home.name]
    assert (home / "site/ai_edge_litert/extra.py").is_file()
    with Device.open(dataclasses.replace(board, python=done.python)) as device:
        assert device.hello["runtimes"]["tflite"] == "ai_edge_litert 9.8.7"
        assert device.hello["python_path"] == board.python


def test_the_same_setup_again_changes_nothing(board: DeviceProfile, house: Path) -> None:
    first = install(board, house)
    stamp = Path(first.python).stat().st_mtime_ns
    said: list[str] = []
    assert install(board, house, say=said.append) == first
    assert len(said) == 1
    again = install(dataclasses.replace(board, python=first.python), house)
    assert (again.python, again.wheels) == (first.python, ())
    assert Path(first.python).stat().st_mtime_ns == stamp


def test_a_second_runtime_does_not_take_the_first_away(board: DeviceProfile, house: Path) -> None:
    first = install(board, house)
    profile = dataclasses.replace(board, python=first.python)
    stub_onnxruntime(house)
    second = install(profile, house, runtimes=["onnx"])
    assert second.runtimes == {"onnx": "onnxruntime 9.1.0", "tflite": "ai_edge_litert 9.8.7"}
    with Device.open(dataclasses.replace(board, python=second.python)) as device:
        assert "ai_edge_litert 9.8.7" in device.hello["runtimes"].values()
    # Without the first one's wheels nothing is changed.
    next(house.glob("ai_edge*")).unlink()
    third = dataclasses.replace(profile, python=first.python)
    with pytest.raises(RuntimeMissing, match="tflite counts because the set in use has it"):
        install(third, house, runtimes=["onnx"])
    assert Path(first.python).exists()


def test_all_runtimes_of_a_set_have_one_numpy(tmp_path: Path) -> None:
    house, chosen = tmp_path / "house", tmp_path / "chosen"
    chosen.mkdir()
    for version in ("1.26.0", "2.1.0"):
        wheel(house, "numpy", version, {})
    wheel(house, "tflite-runtime", "2.14.0", {})
    wheel(house, "onnxruntime", "9.1.0", {}, needs=("numpy>=1.21",))
    target = wheelhouse.Target((3, 11), "aarch64", 64, 36)
    choice = wheelhouse.download(["onnx", "tflite"], target, chosen, wheels=house)
    names = [item.path.name.split("-py3")[0] for item in choice.wheels]
    assert names == ["numpy-1.26.0", "onnxruntime-9.1.0", "tflite_runtime-2.14.0"]
    assert not choice.needs_numpy


def test_an_interrupted_setup_goes_on(board: DeviceProfile, house: Path) -> None:
    folder = Path(board.directory, "runtime")
    wheels = tuple(wheelhouse._wheel(path) for path in sorted(house.iterdir()))
    choice = wheelhouse.Choice(wheels, needs_numpy=False)
    whole, cut = choice.wheels
    (folder / "incoming").mkdir(parents=True)
    (folder / "incoming" / whole.sha256).write_bytes(whole.path.read_bytes())
    (folder / "incoming" / cut.sha256).write_bytes(cut.path.read_bytes()[:100])
    half = folder / choice.id_for(board.python)
    (half / "site").mkdir(parents=True)
    said: list[str] = []
    done = install(board, house, say=said.append)
    assert [words for words in said if words.startswith("sending")] == [f"sending {cut.path.name}"]
    assert Path(done.python).parent == half
    assert [path.name for path in folder.iterdir()] == [half.name]


def test_a_runtime_that_cannot_be_imported_is_removed_again(
    board: DeviceProfile, tmp_path: Path
) -> None:
    stub_litert(tmp_path / "broken", code="raise ImportError('no GLIBC_9')")
    with pytest.raises(RuntimeMissing, match="cannot be imported") as caught:
        install(board, tmp_path / "broken")
    assert "removed again were the wheels ai_edge_litert-9.8.7" in str(caught.value)
    assert list(Path(board.directory, "runtime").iterdir()) == []


def test_nothing_is_sent_to_a_folder_where_others_may_write(
    board: DeviceProfile, house: Path
) -> None:
    folder = Path(board.directory)
    folder.mkdir()
    folder.chmod(0o775)
    said: list[str] = []
    with pytest.raises(AgentError, match=r"others may write in .* \(mode 775\)"):
        install(board, house, say=said.append)
    assert said == []
    assert list(folder.iterdir()) == []


def test_no_wheel_fits(board: DeviceProfile, tmp_path: Path) -> None:
    wheel(tmp_path / "arm", "ai-edge-litert", "1.0", {}, tag="cp311-cp311-manylinux_2_27_armv7l")
    with pytest.raises(RuntimeMissing) as caught:
        install(board, tmp_path / "arm")
    sentence = str(caught.value)
    assert sentence.startswith("there is no tflite wheel for Python 3.")
    assert "looked for ai-edge-litert; tflite-runtime with numpy<2; tflite-runtime in" in sentence
    assert "64-bit" in sentence
    assert not Path(board.directory, "runtime").exists()
    have = ", ".join(wheelhouse.INSTALLABLE)
    with pytest.raises(ConfigError, match=f"no runtime 'null' can be installed; have {have}"):
        install(board, tmp_path / "arm", runtimes=["null"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a maker of a file system of its own, mounted with the given options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def test_full_disk(board: DeviceProfile, house: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=4m")
    full = dataclasses.replace(board, directory=str(disk / "edgewright"))
    with pytest.raises(TransferFailed, match=r"has \d MB free and the runtime needs \d+ MB"):
        install(full, house)
    assert not (disk / "edgewright" / "runtime").exists()


def test_read_only_disk(
    board: DeviceProfile, house: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("ro")
    with pytest.raises(TransferFailed, match="cannot be written; run `edgewright device doctor"):
        install(dataclasses.replace(board, directory=str(disk / "edgewright")), house)


def test_disk_from_which_nothing_runs(
    board: DeviceProfile,
    house: Path,
    small_disk: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = small_disk("noexec")
    there = dataclasses.replace(board, directory=str(disk / "edgewright"))
    words = f"{disk} is mounted noexec, so no runtime .*; set `directory` in its profile"
    with pytest.raises(TransferFailed, match=words):
        install(there, house)
    assert not (disk / "edgewright" / "runtime").exists()
    # Where the mounts cannot be read it is found out by the launcher.
    monkeypatch.setattr(probe.Probe, "noexec", "")
    with pytest.raises(
        RuntimeMissing, match=r"may not run .*noexec.*removed again were the wheels"
    ):
        install(there, house)
    assert list((disk / "edgewright" / "runtime").iterdir()) == []


def test_disk_that_fills_while_unpacking_is_left_as_it_was(
    tmp_path: Path, small_disk: Callable[[str], Path], bare_python: str
) -> None:
    folder = small_disk("size=1m") / "runtime"
    large = wheel(tmp_path / "large", "large", "1", {"large.bin": bytes(600_000)})
    found = wheelhouse._wheel(large)
    (folder / "incoming").mkdir(parents=True)
    (folder / "incoming" / found.sha256).write_bytes(large.read_bytes())
    order = {"folder": str(folder), "id": "x", "python": "p", "wheels": [["large", found.sha256]]}
    done = subprocess.run(
        [bare_python, "-c", SCRIPT, json.dumps(order)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"error": "its disk is full"}
    assert [path.name for path in folder.iterdir()] == ["incoming"]


def test_targets() -> None:
    def target(machine: str, bits: int, libc: str = "glibc 2.31") -> wheelhouse.Target:
        seen = probe.Probe(MappingProxyType({"machine": machine, "libc": libc}))
        return wheelhouse.target_of(seen, Python("python3", (3, 11, 2), bits, "/usr/bin/python3"))

    pi = target("aarch64", 64)
    assert pi.platforms()[0] == "manylinux_2_31_aarch64"
    assert {"manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} < set(
        pi.platforms()
    )
    assert "manylinux_2_32_aarch64" not in pi.platforms()
    assert target("aarch64", 32).machine == target("armv7l", 32).machine == "armv7l"
    assert str(target("aarch64", 32)) == "Python 3.11 on armv7l, 32-bit, glibc 2.31"
    with pytest.raises(RuntimeMissing, match="C library is not glibc"):
        target("aarch64", 64, "")


def test_32_bit_device_takes_tflite_runtime_and_the_numpy_of_its_system(tmp_path: Path) -> None:
    target = wheelhouse.Target((3, 11), "armv7l", 32, 36)
    tag = "cp311-cp311-manylinux_2_34_armv7l"
    wheel(tmp_path / "house", "tflite-runtime", "2.14.0", {}, tag=tag, needs=("numpy>=1.23",))
    (tmp_path / "chosen").mkdir()
    house = tmp_path / "house"
    choice = wheelhouse.download(["tflite"], target, tmp_path / "chosen", wheels=house)
    assert [item.path.name for item in choice.wheels] == [f"tflite_runtime-2.14.0-{tag}.whl"]
    assert choice.needs_numpy
    with pytest.raises(RuntimeMissing, match=r"no onnx wheel for Python 3\.11 on armv7l, 32-bit"):
        wheelhouse.download(["onnx"], target, tmp_path / "chosen", wheels=house)


def test_a_missing_numpy_is_named(board: DeviceProfile, house: Path) -> None:
    (house / "numpy-1.26.0-py3-none-any.whl").unlink()
    (path,) = house.iterdir()
    path.unlink()
    wheel(house, "tflite-runtime", "2.14.0", {"tflite_runtime/interpreter.py": b""})
    with pytest.raises(RuntimeMissing, match=r"has no numpy; .*install python3-numpy"):
        install(board, house)


def test_no_python_at_all(board: DeviceProfile) -> None:
    told = {"pythons": "python3\t3.7.3\t64\t/usr/bin/python3", "os_release": "ID=alpine"}
    nothing = probe.Probe(MappingProxyType(told))
    with pytest.raises(RuntimeMissing, match=r"no Python 3\.9 or newer; run `apk add python3`"):
        setup._interpreter(board, nothing)


@pytest.mark.slow
def test_the_real_runtime_measures_after_setup(
    board: DeviceProfile, tmp_path: Path, models: Path
) -> None:
    house = tmp_path / "real"
    repacked(house, "numpy")
    repacked(house, "ai-edge-litert", needs=("numpy",))
    done = install(board, house)
    with Device.open(dataclasses.replace(board, python=done.python)) as device:
        result = device.measure(models / "small.tflite", BenchProtocol.quick())
    assert isinstance(result, Measurement), result
    assert result.partitions == 1


def test_nothing_is_left_behind(board: DeviceProfile, house: Path, models: Path) -> None:
    done = install(board, house)
    directory = Path(board.directory)
    profile = dataclasses.replace(board, python=done.python)
    with Device.open(profile) as device:
        device.releases.deploy(models / "small.tflite", "net", "1", check=lab.unchecked)
    (directory / "notes.txt").write_text("mine")
    before = sorted(directory.iterdir())
    with pytest.raises(ConfigError, match=r"may be in use: deployed/net in .*`--releases keep`"):
        clean(profile)
    assert sorted(directory.iterdir()) == before
    removed = clean(profile, releases="keep")
    assert {"agent", "models", "runtime"} <= set(removed.removed)
    assert removed.kept == ("deployed/net",)
    left = sorted(str(p.relative_to(directory)) for p in directory.iterdir())
    assert left == ["deployed", "notes.txt"]
    assert clean(board, releases="remove").removed == ("deployed",)
    assert [path.name for path in directory.iterdir()] == ["notes.txt"]
    (directory / "notes.txt").unlink()
    assert clean(board).removed == ()
    assert not directory.exists()
    assert clean(board).removed == ()


def test_what_cannot_be_removed_is_named(
    board: DeviceProfile, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=1m")
    (disk / "edgewright" / "models").mkdir(parents=True)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(DeviceError, match=r"cannot remove models in .*Read-only file system"):
        clean(dataclasses.replace(board, directory=str(disk / "edgewright")))
    assert [path.name for path in (disk / "edgewright").iterdir()] == ["models"]
