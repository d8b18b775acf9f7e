"""Every built-in device profile, and the rules of the format."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from device_agents import transports
from device_agents.agent import runtimes
from device_agents.errors import ConfigError
from profiles import registry
from profiles.schema import KEYS, DeviceProfile

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = sorted(path.stem for path in registry.BUILT_IN.glob("*.toml"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "devices").mkdir()
    return tmp_path


def write(config: Path, name: str, text: str) -> Path:
    path = config / "devices" / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_profile(name: str, tmp_path: Path) -> None:
    profile = registry.load_device(name, tmp_path)
    assert profile.name == name
    assert profile.description
    assert profile.transport in transports.names()
    assert profile.runtime in (*runtimes.names(), "benchmark_model")


def test_local_needs_nothing(tmp_path: Path) -> None:
    assert not registry.load_device("local", tmp_path).is_template
    assert registry.load_device("raspberry_pi_5", tmp_path).is_template


def test_unknown_device_lists_the_known(config: Path) -> None:
    write(config, "tx2", "extends = 'nothing'")  # broken, and yet the user's own
    write(config, "bench_pi", 'address = "pi.local"')
    with pytest.raises(ConfigError) as caught:
        registry.load_device("pi5", config)
    message = str(caught.value)
    assert message.startswith("no device 'pi5' known")
    templates = [name for name in BUILT_IN if registry.load_device(name, config).is_template]
    devices = [name for name in BUILT_IN if name not in templates]
    have = ", ".join(["bench_pi", "tx2", *devices])
    assert f"; have {have}; `edgewright device add pi5 ADDRESS` adds" in message
    assert message.endswith(f"the one that --extends names: {', '.join(templates)}")
    assert {"fake", "local"} <= set(devices)
    assert "generic_android_adb" in templates
    with pytest.raises(ConfigError, match="`edgewright device add NAME ADDRESS` adds one"):
        registry.load_device("$(x)", config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adress = 'x'", " has no option 'adress'; did you mean 'address'? known: address, "),
        ("colour = 'x'", " has no option 'colour'; known: "),
        ("extend = 'x'", "did you mean 'extends'? known: extends, "),
        ("port = '22'", ", option 'port': '22' is not a whole number"),
        ("port = true", ", option 'port': True is not a whole number"),
        ("port = 70000", ", option 'port': 70000 is not a whole number from 0 up to 65535"),
        ("threads = 0", ", option 'threads': 0 is not a whole number from 1"),
        ("threads = 4\ncpus = [2, 3]", "threads = 4 must be at most the number of `cpus`, 2"),
        ("cpus = ['a']", ", option 'cpus', item 0: 'a' is not a whole number"),
        ("thermal_limit_celsius = 'hot'", "is not a number"),
        ("name = 'x'", " has no option 'name'"),
        ("extends = 5", ", option 'extends': 5 is not text"),
        ("cool_celsius = nan", ", option 'cool_celsius': nan is not a number from -273.15"),
        ("extends = 'pi6'", "no device 'pi6' known"),
        ("extends = 'broken'", "extends itself"),
        ("x = ", "cannot be read as TOML"),
        ("connect_timeout_s = inf", ": inf is not a number above 0 up to 600"),
    ],
)
def test_broken_files_name_file_and_key(config: Path, text: str, words: str) -> None:
    path = write(config, "broken", text)
    with pytest.raises(ConfigError) as caught:
        registry.load_device("broken", config)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    catalogue = registry.list_devices(config)
    assert "local" in [profile.name for profile in catalogue.profiles]
    assert len(catalogue.problems) == 1


def test_extending(config: Path) -> None:
    write(config, "kitchen", 'extends = "raspberry_pi_5"\naddress = "10.0.0.7"\ncpus = [2]')
    write(config, "attic", 'extends = "kitchen"\naddress = "10.0.0.8"')
    profile = registry.load_device("attic", config)
    assert (profile.address, profile.cpus, profile.user) == ("10.0.0.8", (2,), "")
    assert profile.thermal_limit_celsius == 75.0
    write(config, "kitchen", 'extends = "attic"')
    with pytest.raises(ConfigError, match="attic extends kitchen extends attic: a circle"):
        registry.load_device("attic", config)


def test_own_file_may_extend_the_built_in_that_it_hides(config: Path) -> None:
    write(config, "local", 'extends = "local"\nthreads = 2')
    profile = registry.load_device("local", config)
    assert (profile.transport, profile.threads) == ("local", 2)


def test_environment_says_where(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, "desk", 'address = "desk.local"')
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(config))
    assert registry.load_device("desk").address == "desk.local"


def test_add_list_remove(config: Path) -> None:
    values = {"extends": "raspberry_pi_4b", "address": 'a"b', "cpus": (1, 2), "threads": 2}
    profile = registry.add_device("new", values, config=config)
    assert (profile.address, profile.cpus, profile.user) == ('a"b', (1, 2), "")
    assert registry.load_device("new", config) == profile
    with pytest.raises(ConfigError, match="is there already"):
        registry.add_device("new", values, config=config)
    with pytest.raises(ConfigError, match="has no option"):
        registry.add_device("other", {"adress": "x"}, config=config)
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        registry.add_device("other", {"python": "/a\udcff"}, config=config)
    for bad in ("../up", "", "a b"):
        with pytest.raises(ConfigError, match="must be letters"):
            registry.add_device(bad, {}, config=config)
    assert [path.name for path in (config / "devices").iterdir()] == ["new.toml"]
    registry.remove_device("new", config)
    with pytest.raises(ConfigError, match="no device 'local' of your own; it is built"):
        registry.remove_device("local", config)


def test_values_round_trip(config: Path) -> None:
    profile = DeviceProfile(
        "x",
        address="a",
        cpus=(0, 1),
        thermal_limit_celsius=70.0,
        cool_celsius=50.0,
        nominal_clock_khz=1_500_000,
        xnnpack=False,
    )
    values = asdict(profile)
    del values["name"]
    assert set(values) == set(KEYS)
    assert registry.add_device("x", values, config=config) == profile


RASPBERRIES = [name for name in BUILT_IN if name.startswith("raspberry_pi")]


def test_every_raspberry_has_both_systems() -> None:
    boards = {name.removesuffix("_32bit") for name in RASPBERRIES}
    assert boards >= {
        "raspberry_pi_3b_plus",
        "raspberry_pi_4b",
        "raspberry_pi_5",
        "raspberry_pi_zero_2_w",
    }
    assert sorted(RASPBERRIES) == sorted(
        f"{name}{end}" for name in boards for end in ("", "_32bit")
    )


@pytest.mark.parametrize("name", RASPBERRIES)
def test_raspberry_states_its_limits(name: str, tmp_path: Path) -> None:
    profile = registry.load_device(name, tmp_path)
    assert profile.cool_celsius is not None
    assert profile.thermal_limit_celsius is not None
    assert profile.cool_celsius < profile.thermal_limit_celsius < 80
    assert profile.nominal_clock_khz is not None
    # The SSH configuration's user counts where the profile names none.
    assert profile.user == ""
    if "3b_plus" in name:
        assert profile.thermal_limit_celsius < 60


def test_one_value_is_set_and_every_other_line_stays(config: Path) -> None:
    path = write(config, "kitchen", '# mine\nextends = "raspberry_pi_5"\npython="old"\nport = 7')
    profile = registry.set_value("kitchen", "python", '/a "b"/python', config)
    assert (profile.python, profile.port) == ('/a "b"/python', 7)
    assert path.read_text().splitlines() == [
        "# mine",
        'extends = "raspberry_pi_5"',
        "port = 7",
        'python = "/a \\"b\\"/python"',
    ]
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="'port': 70000 is not a whole number from 0 up to 65535"):
        registry.set_value("kitchen", "port", 70000, config)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="no device 'local' of your own; it is built in"):
        registry.set_value("local", "python", "x", config)


def test_what_another_profile_extends_stays(config: Path) -> None:
    write(config, "kitchen", 'extends = "raspberry_pi_5"\naddress = "k"')
    write(config, "attic", 'extends = "kitchen"')
    with pytest.raises(ConfigError, match="device 'attic' extends 'kitchen'; remove it first"):
        registry.remove_device("kitchen", config)
    registry.remove_device("attic", config)
    registry.remove_device("kitchen", config)
