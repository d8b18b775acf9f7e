"""Runs a virtual device in the foreground: says how to reach it, and stops it on Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from profiles.registry import devices_folder
from scripts.lab.images import LabError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from scripts.lab.userland import Userland


class Reachable(Protocol):
    """A running virtual device."""

    def profile_values(self) -> dict[str, Any]:
        """Return what a profile file of it holds."""
        ...


def serve(start: Callable[[Path], AbstractContextManager[Reachable]], name: str, more: str) -> int:
    """Run the device that `start` starts until Ctrl-C or SIGTERM; `more` is printed too."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with (
            tempfile.TemporaryDirectory(prefix=f"edgewright-{name}-") as folder,
            start(Path(folder)) as device,
        ):
            print(_how_to_reach(name, device.profile_values()), end="")
            print(more.format(folder=folder), flush=True)
            ended.wait()
    except LabError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def options_of(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a device's command: `--help` says what it is, and what it needs."""
    return argparse.ArgumentParser(
        prog=f"scripts/lab/{name}",
        description=f"{description.strip()}\n\nWhat it proves and what not: docs/lab.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def serve_userland(running: Callable[..., AbstractContextManager[Userland]], name: str) -> int:
    """Run a userland; its sensors are files that say what you write into them."""
    parser = options_of(
        name,
        f"Runs the virtual device `{name}` until Ctrl-C and prints the profile that reaches it.\n"
        "Needs root, and Debian's qemu-user-static, binfmt-support, mmdebstrap and cpio, which\n"
        "scripts/system-packages installs; the first start builds its image (half a minute).",
    )
    parser.add_argument(
        "--bare", action="store_true", help="without a runtime: a board that nobody prepared"
    )
    bare = parser.parse_args().bare

    def start(folder: Path) -> AbstractContextManager[Reachable]:
        return running(folder, runtime="") if bare else running(folder)

    more = (
        "Its sensors are files; to let it be hot and under-volted:\n"
        "  echo 82500 > {folder}/sys/class/thermal/thermal_zone0/temp\n"
        "  echo 0x50005 > {folder}/sys/throttled\n"
        "Ctrl-C stops it."
    )
    return serve(start, name, more)


def _how_to_reach(name: str, values: dict[str, Any]) -> str:
    lines = "".join(f"  {key} = {json.dumps(value)}\n" for key, value in values.items())
    ssh = (
        f"  ssh -i {values['identity_file']} -o UserKnownHostsFile={values['known_hosts']} "
        f"-p {values['port']} pi@{values['address']}\n"
    )
    return (
        f"{name} runs. As a device of yours, {devices_folder() / f'lab_{name}.toml'}:\n{lines}"
        f"Then: edgewright bench model.tflite --device lab_{name}\nBy hand:\n{ssh}"
    )
