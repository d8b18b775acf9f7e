"""Running a file that somebody else wrote: in a process of its own, with limits.

A damaged file can end a runtime with SIGSEGV or ask it for all memory there is. Files that were
just written here are run in this process, where a run costs no start of Python (0.5 to 1 s).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from pipeline.formats import create
from pipeline.formats.child import describe_end, environment
from pipeline.formats.ends import InputsRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.formats.ends import Array, Arrays

TIMEOUT_S = 600.0

_DEPLOYED, _CHECKED = "deployed", "checked"
_LEAST_BYTES = 4 << 30
_PER_FILE_BYTE = 16


def run_apart(
    path: Path,
    format_: str,
    inputs: Arrays,
    *,
    as_deployed: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Array]:
    """Return what a format's `run` returns of a file, whatever the file does to the runtime.

    The runtime has the settings that a device's has, or with `as_deployed` false those of
    `Format.run` under which a file of codes is checked.

    Raises:
        ConfigError: the runtime refuses the file, crashes on it or does not end.
        InputsRefused: it cannot run the file on these inputs.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-run-") as folder:
        given, reply = Path(folder) / "inputs.npz", Path(folder) / "reply.npz"
        _save(given, inputs)
        settings = _DEPLOYED if as_deployed else _CHECKED
        argv = [sys.executable, "-m", "pipeline.formats.apart", format_, settings]
        try:
            done = subprocess.run(
                [*argv, str(path.resolve()), str(given), str(reply)],
                env=environment(),
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{path} did not run to its end within {timeout_s:g} s") from None
        if done.returncode == 0 and reply.is_file():
            return _load(reply)
        refused, why = _why(done)
        raise (InputsRefused if refused else ConfigError)(f"{path}: {why}")


def answer(
    format_: str, path: Path, inputs: Arrays, reply: Path, *, as_deployed: bool = True
) -> dict[str, Any]:
    """Run a file and save what it gives; return why it cannot be run, nothing if it can."""
    try:
        _save(reply, create(format_).run(path, inputs, as_deployed=as_deployed))
    except ConfigError as error:
        return {"error": str(error), "inputs_refused": isinstance(error, InputsRefused)}
    except MemoryError:
        return {"error": "the runtime asked for more memory than a model of this size needs"}
    except Exception as error:  # noqa: BLE001  # of a file that may hold anything
        kind = type(error).__name__
        return {"error": f"the runtime failed on the file ({kind}); it is damaged perhaps"}
    return {}


def _save(path: Path, arrays: Arrays) -> None:
    # By their places: a name may be anything.
    numbered: dict[str, Any] = {str(place): array for place, array in enumerate(arrays.values())}
    np.savez(path, allow_pickle=False, names=np.array(list(arrays), np.str_), **numbered)


def _load(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {str(name): file[str(place)] for place, name in enumerate(file["names"])}


def _why(done: subprocess.CompletedProcess[bytes]) -> tuple[bool, str]:
    """Return whether the inputs were refused, and why the file was not run."""
    if done.returncode < 0:
        return False, (
            f"the runtime {describe_end(done.returncode)} on the file; it is damaged, or has what "
            "this runtime cannot do: convert or copy it again"
        )
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    try:
        told = json.loads(lines[-1])
        return bool(told.get("inputs_refused")), str(told["error"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return False, f"the runtime {describe_end(done.returncode)} on the file"


def main(argv: Sequence[str]) -> int:
    """Be the child: `argv` is (format, settings, model, inputs.npz, reply.npz)."""
    format_, settings = argv[:2]
    path, given, reply = map(Path, argv[2:])
    limit = max(_LEAST_BYTES, _PER_FILE_BYTE * path.stat().st_size)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wrong = answer(format_, path, _load(given), reply, as_deployed=settings == _DEPLOYED)
    if wrong:
        print(json.dumps(wrong))  # noqa: T201  # the parent reads it
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
