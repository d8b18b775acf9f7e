"""Recognition of boards from revision codes, device trees and /proc/cpuinfo."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from device_agents.care.boards import parse_cpuinfo, parse_revision, recognise
from device_agents.care.probe import Probe


def probe(**sections: str) -> Probe:
    return Probe(MappingProxyType(sections))


@pytest.mark.parametrize(
    ("code", "name", "soc", "memory_mb", "profile"),
    [
        ("a020d3", "Raspberry Pi 3 Model B Plus", "BCM2837", 1024, "raspberry_pi_3b_plus"),
        ("c03112", "Raspberry Pi 4 Model B", "BCM2711", 4096, "raspberry_pi_4b"),
        ("d03115", "Raspberry Pi 4 Model B", "BCM2711", 8192, "raspberry_pi_4b"),
        ("902120", "Raspberry Pi Zero 2 W", "BCM2837", 512, "raspberry_pi_zero_2_w"),
        ("d04170", "Raspberry Pi 5 Model B", "BCM2712", 8192, "raspberry_pi_5"),
        ("e04171", "Raspberry Pi 5 Model B", "BCM2712", 16384, "raspberry_pi_5"),
        ("a02082", "Raspberry Pi 3 Model B", "BCM2837", 1024, ""),
        # Over-voltage and warranty bits stand before the code.
        ("1a01041", "Raspberry Pi 2 Model B", "BCM2836", 1024, ""),
        ("2d04170", "Raspberry Pi 5 Model B", "BCM2712", 8192, "raspberry_pi_5"),
        ("80fff0", "", "", 256, ""),
    ],
)
def test_revision_fields(code: str, name: str, soc: str, memory_mb: int, profile: str) -> None:
    found = parse_revision(code)
    assert found is not None
    assert (found.name, found.soc, found.memory_bytes) == (name, soc, memory_mb * 2**20)
    assert found.profile == profile


@pytest.mark.parametrize("code", ["000e", "0002", "1000015", "", "xyz", "0xd04170", "d" * 40])
def test_old_and_malformed_codes_tell_nothing(code: str) -> None:
    assert parse_revision(code) is None


@pytest.mark.parametrize(
    ("compatible", "bits", "profile"),
    [
        ("raspberrypi,5-model-b\nbrcm,bcm2712", "64", "raspberry_pi_5"),
        ("raspberrypi,4-model-b\nbrcm,bcm2711", "32", "raspberry_pi_4b_32bit"),
        ("raspberrypi,model-zero-2-w\nbrcm,bcm2837", "64", "raspberry_pi_zero_2_w"),
        ("raspberrypi,3-model-b-plus\nbrcm,bcm2837", "32", "raspberry_pi_3b_plus_32bit"),
        ("raspberrypi,3-model-b\nbrcm,bcm2837", "64", "generic_linux_ssh"),
        ("radxa,rock-5b\nrockchip,rk3588", "64", "generic_linux_ssh"),
        ("", "64", "generic_linux_ssh"),
    ],
)
def test_device_tree(compatible: str, bits: str, profile: str) -> None:
    board = recognise(probe(compatible=compatible, bits=bits, machine="aarch64"))
    assert board.profile == profile
    assert (board.kernel_bits, board.userland_bits) == (64, int(bits))


def test_hardware_line_is_never_believed() -> None:
    cpuinfo = "processor : 0\nHardware : BCM2711\nCPU part : 0xd08\n"
    assert recognise(probe(cpuinfo=cpuinfo)).profile == "generic_linux_ssh"


def test_phones() -> None:
    getprop = "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 6]"
    board = recognise(probe(getprop=getprop, machine="aarch64"))
    assert (board.profile, board.name) == ("generic_android_adb", "Google Pixel 6")
    home = "1\n10123\nu0_a123\n/data/data/com.termux/files/home"
    assert recognise(probe(getprop=getprop, identity=home)).profile == "termux_ssh"


def test_cores_share_features() -> None:
    text = (
        "processor : 0\nFeatures : fp asimd asimddp\nCPU implementer : 0x41\nCPU part : 0xd05\n"
        "processor : 1\nFeatures : fp asimd\nCPU implementer : 0x41\nCPU part : 0xd0a\n"
    )
    found = parse_cpuinfo(text)
    assert (found.cores, found.parts) == (2, ("Cortex-A55", "Cortex-A75"))
    assert found.features == {"fp", "asimd"}
    assert not found.has_dot_product
