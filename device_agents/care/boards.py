"""Which board a device is: pure recognition of what `probe` read.

`Hardware:` of /proc/cpuinfo is never used, since every Raspberry Pi says BCM2835 or something older
there. The revision code is read by its fields, never compared as a whole: the list of codes has no
end, and over-voltage bits stand before some of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.care.probe import Probe

GENERIC = "generic_linux_ssh"

# Bits 4 to 11 of a new-style revision code (raspberrypi/documentation, revision-codes).
_TYPES = {
    0x00: "Raspberry Pi Model A",
    0x01: "Raspberry Pi Model B",
    0x02: "Raspberry Pi Model A Plus",
    0x03: "Raspberry Pi Model B Plus",
    0x04: "Raspberry Pi 2 Model B",
    0x06: "Raspberry Pi Compute Module 1",
    0x08: "Raspberry Pi 3 Model B",
    0x09: "Raspberry Pi Zero",
    0x0A: "Raspberry Pi Compute Module 3",
    0x0C: "Raspberry Pi Zero W",
    0x0D: "Raspberry Pi 3 Model B Plus",
    0x0E: "Raspberry Pi 3 Model A Plus",
    0x10: "Raspberry Pi Compute Module 3 Plus",
    0x11: "Raspberry Pi 4 Model B",
    0x12: "Raspberry Pi Zero 2 W",
    0x13: "Raspberry Pi 400",
    0x14: "Raspberry Pi Compute Module 4",
    0x15: "Raspberry Pi Compute Module 4S",
    0x17: "Raspberry Pi 5 Model B",
    0x18: "Raspberry Pi Compute Module 5",
    0x19: "Raspberry Pi 500",
}
_SOCS = ("BCM2835", "BCM2836", "BCM2837", "BCM2711", "BCM2712")
# Boards that share SoC and cooling rules with one that has a profile use that profile.
_PROFILES = {
    0x0D: "raspberry_pi_3b_plus",
    0x11: "raspberry_pi_4b",
    0x12: "raspberry_pi_zero_2_w",
    0x13: "raspberry_pi_4b",
    0x14: "raspberry_pi_4b",
    0x17: "raspberry_pi_5",
    0x18: "raspberry_pi_5",
    0x19: "raspberry_pi_5",
}
_COMPATIBLE = {
    "raspberrypi,2-model-b": 0x04,
    "raspberrypi,3-model-b": 0x08,
    "raspberrypi,3-model-b-plus": 0x0D,
    "raspberrypi,3-model-a-plus": 0x0E,
    "raspberrypi,model-zero": 0x09,
    "raspberrypi,model-zero-w": 0x0C,
    "raspberrypi,model-zero-2-w": 0x12,
    "raspberrypi,model-zero-2": 0x12,
    "raspberrypi,4-model-b": 0x11,
    "raspberrypi,400": 0x13,
    "raspberrypi,4-compute-module": 0x14,
    "raspberrypi,5-model-b": 0x17,
    "raspberrypi,5-compute-module": 0x18,
    "raspberrypi,500": 0x19,
}
_CORES = {
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x51, 0x201): "Kryo",
    (0x51, 0x205): "Kryo",
    (0x51, 0x800): "Kryo 2xx Gold",
    (0x51, 0x801): "Kryo 2xx Silver",
    (0x51, 0x802): "Kryo 3xx Gold",
    (0x51, 0x803): "Kryo 3xx Silver",
}


@dataclass(frozen=True, slots=True)
class Revision:
    """A Raspberry Pi's new-style revision code; an unknown type has an empty name."""

    kind: int
    name: str
    soc: str
    memory_bytes: int
    revision: int

    @property
    def profile(self) -> str:
        """The built-in profile for a 64-bit system; empty when there is none for the type."""
        return _PROFILES.get(self.kind, "")


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What /proc/cpuinfo says, of Arm mostly.

    Attributes:
        cores: number of `processor` entries.
        parts: the kinds of core, in the order of their first entry.
        features: the instruction sets that all cores have.
        revision: the hex text behind `Revision`, empty when there is none.
        model: behind `Model`, the board's name on newer kernels.
    """

    cores: int
    parts: tuple[str, ...]
    features: frozenset[str]
    revision: str
    model: str

    @property
    def has_dot_product(self) -> bool:
        """Whether int8 products are summed in fours by one instruction."""
        return bool(self.features & {"asimddp", "avx_vnni", "avx512_vnni"})


@dataclass(frozen=True, slots=True)
class Board:
    """A recognised device.

    Attributes:
        name: as people call it.
        profile: the built-in profile to extend.
        cores: number of CPUs; None: unknown.
        parts: kinds of core.
        memory_bytes: as built in, else as the kernel counts; None: unknown.
        dot_product: whether the CPU has int8 dot products.
        kernel_bits: of the kernel; userland_bits: of the programs; None: unknown.
    """

    name: str
    profile: str
    cores: int | None
    parts: tuple[str, ...]
    memory_bytes: int | None
    dot_product: bool
    kernel_bits: int | None
    userland_bits: int | None


def parse_revision(text: str) -> Revision | None:
    """Read a revision code; None for an old-style or malformed one, which tells too little."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", text):
        return None
    code = int(text, 16) & 0xFFFFFF
    if not code >> 23 & 1:
        return None
    kind, soc = code >> 4 & 0xFF, code >> 12 & 0xF
    return Revision(
        kind=kind,
        name=_TYPES.get(kind, ""),
        soc=_SOCS[soc] if soc < len(_SOCS) else "",
        memory_bytes=256 * 2**20 << (code >> 20 & 0x7),
        revision=code & 0xF,
    )


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read /proc/cpuinfo; whatever is missing or malformed is empty."""
    values: dict[str, list[str]] = {}
    parts: list[str] = []
    implementer = 0
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            continue
        values.setdefault(key, []).append(value)
        number = int(value, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", value) else None
        if key == "CPU implementer" and number is not None:
            implementer = number
        elif key == "CPU part" and number is not None:
            name = _CORES.get((implementer, number), f"part 0x{number:03x}")
            parts += [name] if name not in parts else []
    features = [
        set(value.split()) for key in ("Features", "flags") for value in values.get(key, [])
    ]
    return CpuInfo(
        # Old kernels of one-core boards say `Processor` and no number.
        cores=sum(value.isdecimal() for value in values.get("processor", [])) or int(bool(parts)),
        parts=tuple(parts),
        features=frozenset(set.intersection(*features) if features else ()),
        revision=(values.get("Revision") or [""])[-1],
        model=(values.get("Model") or [""])[-1],
    )


def raspberry_kind(compatible: Sequence[str]) -> int | None:
    """Return the type field that a device tree's `compatible` entries stand for."""
    return next((_COMPATIBLE[item] for item in compatible if item in _COMPATIBLE), None)


def recognise(probe: Probe) -> Board:
    """Say which board was probed; any device is at least a generic one."""
    cpu = parse_cpuinfo(probe.text("cpuinfo") or "")
    facts = probe.facts()
    revision = parse_revision(cpu.revision)
    kind = raspberry_kind(probe.lines("compatible"))
    if kind is None and revision is not None:
        kind = revision.kind
    profile = _PROFILES.get(kind, "") if kind is not None else ""
    if profile and probe.userland_bits == 32:
        profile += "_32bit"
    if not profile:
        profile = _other(probe)
    named = _TYPES.get(kind, "") if kind is not None else ""
    return Board(
        name=facts["model"] or cpu.model or named or probe.machine or "unknown device",
        profile=profile,
        cores=cpu.cores or None,
        parts=cpu.parts,
        memory_bytes=revision.memory_bytes if revision else facts["memory_bytes"],
        dot_product=cpu.has_dot_product,
        kernel_bits=probe.kernel_bits,
        userland_bits=probe.userland_bits,
    )


def _other(probe: Probe) -> str:
    """Return the profile of a device that is no known board."""
    if not probe.is_android:
        return GENERIC
    # Termux brings its own shell and user over SSH; adb's shell has neither a prefix nor a Python.
    login = "\n".join(probe.lines("identity"))
    return "termux_ssh" if "com.termux" in login else "generic_android_adb"
