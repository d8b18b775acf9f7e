"""The inside of the adb double: its file system below a folder, and Android's own tools.

A command is run by this computer's /bin/sh. Where it names a path below a folder that the sandbox
has (`/data/local/tmp/x`), that name is replaced in the text of the command, inside quotes too; all
other paths are this computer's. So a lab can add `sys/…` files to show other clocks. The tools are
shell scripts that print files of the folder `answers`, which tests replace.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FOLDERS = ("data/local/tmp", "sdcard", "system/bin", "answers")
_PLAIN = re.compile(r"/[\w./-]*")

_GETPROP = """\
[ro.board.platform]: [lab]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a,armeabi]
[ro.product.device]: [lab_phone]
[ro.product.manufacturer]: [edgewright]
[ro.product.model]: [Lab Phone]
[ro.product.name]: [lab_phone]
"""
_BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 5
  health: 2
  present: true
  level: 95
  scale: 100
  voltage: 4312
  temperature: 291
  technology: Li-ion
"""
_THERMAL = """\
IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=48.5, mType=3, mName=skin, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=41.2, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=43.0, mType=0, mName=CPU1, mStatus=0}
\tTemperature{mValue=32.5, mType=3, mName=skin, mStatus=0}
\tTemperature{mValue=4.1, mType=6, mName=vbat, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""

# `answers/performance` exists while the mode is on; remove `answers/no_modes` to have no modes.
_TOOLS = {
    "getprop": """\
[ $# -eq 0 ] && exec cat "$ANSWERS/getprop"
sed -n "s/^\\[$1\\]: \\[\\(.*\\)\\]$/\\1/p" "$ANSWERS/getprop"
""",
    "dumpsys": """\
case $1 in
battery | thermalservice) exec cat "$ANSWERS/dumpsys_$1" ;;
esac
echo "Can't find service: $1"
exit 20
""",
    "cmd": """\
if [ "$1 $2" != "power set-fixed-performance-mode-enabled" ]; then
    echo "cmd: Can't find service: $1" >&2
    exit 20
fi
if [ -e "$ANSWERS/no_modes" ]; then
    echo "Failed to set FIXED_PERFORMANCE mode"
    exit 255
fi
echo "$3" >> "$ANSWERS/performance"
""",
}


class Sandbox:
    """A folder as a phone's file system; `path` is where commands look for programs."""

    def __init__(self, root: Path, answers: dict[str, str]) -> None:
        root = root.resolve()
        if not _PLAIN.fullmatch(str(root)):
            raise ValueError(f"{root}: the folder's name must be of letters, digits, _ . and -")
        self.root = root
        self.path = f"{root}/system/bin:{os.environ.get('PATH', os.defpath)}"
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        told = {
            "getprop": _GETPROP,
            "dumpsys_battery": _BATTERY,
            "dumpsys_thermalservice": _THERMAL,
        }
        for name, text in {**told, **answers}.items():
            (root / "answers" / name).write_text(text, encoding="utf-8")
        for name, script in _TOOLS.items():
            tool = root / "system" / "bin" / name
            tool.write_text(f"#!/bin/sh\nANSWERS='{root}/answers'\n{script}", encoding="utf-8")
            tool.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Return what a command sees; nothing of this user's own settings."""
        home = str(self.root / "data/local/tmp")
        return {"PATH": self.path, "HOME": home, "TMPDIR": home, "ANDROID_DATA": "/data"}

    def on_host(self, text: str) -> str:
        """Return the text with each path below a folder of the sandbox replaced."""
        tops = "|".join(sorted(re.escape(path.name) for path in self.root.iterdir()))
        return re.sub(rf"(?<![\w.~/-])(?=/(?:{tops})(?![\w.-]))", str(self.root), text)
