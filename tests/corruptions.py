"""Files damaged at random, and what becomes of each when it is verified; run as a program.

`python -m tests.corruptions FORMAT FILE COUNT` damages FILE in COUNT ways from fixed seeds and puts
each through everything that `edgewright verify` does with a file, in a fork of its own: it prints
JSON with how many ran, were refused in a sentence, crashed the runtime, or came to another end.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from device_agents.errors import EdgewrightError, VerificationError
from models.number_format import FLOAT32
from pipeline.formats import create
from pipeline.formats.figures import compare
from pipeline.formats.files import describe_file
from pipeline.formats.limits import check

_ENDS = {0: "ran", 1: "refused"}
_SECONDS = 20
_LIMIT_BYTES = 4 << 30


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a copy with bytes changed, a stretch overwritten, or the end cut off."""
    copy = bytearray(content)
    how = rng.integers(4)
    if how == 0:
        return bytes(copy[: rng.integers(len(copy))])
    if how == 1:
        start = int(rng.integers(len(copy)))
        size = int(rng.integers(1, 64))
        copy[start : start + size] = bytes([int(rng.choice([0, 255]))]) * len(
            copy[start : start + size]
        )
        return bytes(copy)
    # Headers are at either end: half of the changes fall there.
    near = int(rng.integers(len(copy) if how == 2 else min(600, len(copy))))
    for _ in range(int(rng.integers(1, 9))):
        place = (near + int(rng.integers(64))) % len(copy)
        copy[place if rng.integers(2) else -place - 1] = int(rng.integers(256))
    return bytes(copy)


def verified(format_: str, path: Path) -> None:
    """Do what `edgewright verify` does, the runtime in this process."""
    io = describe_file(path)
    images = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    given = {io.input.name: io.pack(images)[:, None]}
    outputs = create(format_).run(path, given, as_deployed=True)
    logits = io.unpack(outputs[io.output.name])
    found = compare(np.ones((2, 5), np.float32), logits)
    with suppress(VerificationError):
        check(found, FLOAT32, path.name)


def _end_of(format_: str, path: Path) -> str:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            return "crashed"
        return _ENDS.get(os.waitstatus_to_exitcode(status), "unexpected")
    code = 2
    try:
        signal.alarm(_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))
        verified(format_, path)
        code = 0
    except EdgewrightError as error:
        code = 1 if "\n" not in str(error) else 2
    except MemoryError:
        code = 1  # `run_apart` says so
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(code)
    raise AssertionError


def main(argv: list[str]) -> int:
    """Damage and verify."""
    format_, source, count = argv[0], Path(argv[1]), int(argv[2])
    verified_once = source.read_bytes()
    ends: Counter[str] = Counter()
    target = source.with_name("damaged" + source.suffix)
    for seed in range(count):
        target.write_bytes(damaged(verified_once, np.random.default_rng(seed)))
        ends[_end_of(format_, target)] += 1
    print(json.dumps(ends))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
