"""Corrupted and hostile input, seeded: what each reader of the program is tried with.

A case is good when it is read, or refused by an EdgewrightError of one clean sentence. Anything
else is a `Finding`: another exception, a warning, more than `CPU_S` of processor time, more than
`GROWTH_BYTES` of memory. `tests/unit/test_fuzz.py` tries a fixed number of cases of each target;
`python -m tests.fuzzing --cases 5000` is the long form, which `scripts/fuzz` runs. A new reader is
one line in `targets`.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import EdgewrightError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CPU_S = 5.0
GROWTH_BYTES = 512 << 20
SENTENCE_CHARS = 4096

# What a text may be broken with: numbers no type holds, other encodings, marks of the syntaxes.
_WORDS = (
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000),
    *(b"1979-05-27", b"07:32:00", b"1e-320", b"0.1e400", b"+", b"%s", b"../../x", b"~nobody-here/"),
    *(
        b'"',
        b"'",
        b"'''",
        b"#",
        b"=",
        b".",
        b",",
        b"\n",
        b"\r",
        b"\t",
        b"\x00",
        b"\xff\xfe",
        b"\\u",
    ),
    *(b"\xe2\x80\xae", b"\x1b[31m", b"\x07", b"\xed\xa0\x80", b"\\ud800", b"[red]", b"x" * 70_000),
    *(b"[" * 5000, b"{" * 5000, b"[]," * 2000, b"a." * 2000, b"true", b"null", b"NaN", b"{}"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, -0.0, 10**400, 2**64, 1e308, float("nan"), float("-inf")),
    *("", "x" * 100_000, "\ud800", "\x1b[31m\x07", "\u202e", [], {}, [[]], {"": None}, [None] * 3),
)


@dataclass(frozen=True)
class Target:
    """A reader, and what it is tried with.

    Attributes:
        read: reads a file; returns anything.
        suffix: of the file.
        seeds: good files, which are mutated.
        mutate: makes a bad file of a good one.
        crafted: bad files made by hand; tried first.
    """

    read: Callable[[Path], object]
    suffix: str
    seeds: Sequence[bytes]
    mutate: Callable[[bytes, random.Random], bytes]
    crafted: Sequence[bytes] = ()


@dataclass(frozen=True)
class Finding:
    """A case that was not good: target, its number (None by hand), and what happened."""

    target: str
    case: str
    what: str


def cases(name: str, target: Target, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name of the case, its bytes): the good files, those by hand, `count` mutated ones."""
    for number, content in enumerate(target.seeds):
        yield f"seed {number}", content
    for number, content in enumerate(target.crafted):
        yield f"by hand {number}", content
    for number in range(count):
        rng = random.Random(f"{name} {seed} {number}")
        content = rng.choice(target.seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            content = target.mutate(content, rng)
        yield f"case {number} of seed {seed}", content


def campaign(name: str, target: Target, folder: Path, *, count: int, seed: int) -> list[Finding]:
    """Try a target; a good file that is refused is a finding too."""
    found = []
    for case, content in cases(name, target, count, seed):
        path = folder / f"case{target.suffix}"
        path.write_bytes(content)
        what, refused = tried(target.read, path)
        if what is None and refused and case.startswith("seed"):
            what = f"a good file is refused: {refused}"
        if what is not None:
            found.append(Finding(name, case, what))
    return found


def tried(read: Callable[[Path], object], path: Path) -> tuple[str | None, str]:
    """Return (what was not good, if anything; the sentence of a refusal)."""
    before_bytes, began_s = _peak_bytes(), time.process_time()
    refused, what = "", None
    try:
        read(path)
    except EdgewrightError as error:
        refused = str(error)
        what = unclean(refused)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        what = f"{type(error).__name__}: {str(error)[:200]!r}"
    if (took_s := time.process_time() - began_s) > CPU_S:
        what = f"{took_s:.1f} s of processor time"
    if (grown := _peak_bytes() - before_bytes) > GROWTH_BYTES:
        what = f"{grown >> 20} MiB of memory"
    return what, refused


def unclean(sentence: str) -> str | None:
    """Return what keeps a text from being one clean sentence."""
    if not sentence.strip() or len(sentence) > SENTENCE_CHARS:
        return f"a sentence of {len(sentence)} characters"
    joined = " ".join(sentence.split())  # as the command line prints it
    return None if joined.isprintable() else f"a sentence that is not clean: {sentence[:200]!r}"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_text(content: bytes, rng: random.Random) -> bytes:
    """Break a text: words of another kind, parts gone, doubled or moved, single bits."""
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice((1, 3, 10, 40)))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:at] + rng.choice(_WORDS) + content[end:]
    if kind == 1:
        return content[:at] + rng.choice(_WORDS) + content[at:]
    if kind == 2:
        return content[:at] + content[end:]
    if kind == 3:
        return content[:end] + content[at:]
    if kind == 4:
        return content[:at]
    return in_bytes(content, rng)


def in_bytes(content: bytes, rng: random.Random) -> bytes:
    """Break a binary file: bits, whole numbers at any place, parts gone or doubled."""
    if not content:
        return rng.randbytes(8)
    made = bytearray(content)
    at = rng.randrange(len(made))
    kind = rng.randrange(5)
    if kind == 0:
        made[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        for _ in range(rng.randrange(1, 16)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    elif kind == 2:
        number = rng.choice((0, 1, -1, 2**31 - 1, -(2**31), 65535, 10**6))
        made[at : at + 4] = struct.pack(rng.choice(("<i", ">i")), number)
    elif kind == 3:
        del made[at : at + rng.choice((1, 4, 64, len(made)))]
    else:
        made[at:at] = made[at : at + rng.choice((1, 4, 64))]
    return bytes(made)


def in_values(content: bytes, rng: random.Random) -> bytes:
    """Break a JSON value: one item becomes of another kind, goes, or comes twice."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):  # broken once already
        return in_text(content, rng)
    if not isinstance(value, (dict, list)):
        return in_text(content, rng)
    where: Any = value
    while True:
        keys = list(where) if isinstance(where, dict) else range(len(where))
        if not keys:
            return in_text(content, rng)
        key = rng.choice(keys)
        if not isinstance(where[key], (dict, list)) or not where[key] or rng.random() < 0.3:
            break
        where = where[key]
    if rng.random() < 0.15:
        del where[key]
    else:
        where[key] = copy.deepcopy(rng.choice(_VALUES))
    text = json.dumps(value)
    if rng.random() < 0.1 and isinstance(value, dict) and value:
        text = f'{{"{next(iter(value))}": 1, {text[1:]}'
    return text.encode()


def in_members(content: bytes, rng: random.Random) -> bytes:
    """Break an .npz behind its checksums: one member is broken and all are packed again."""
    if rng.random() < 0.3:
        return in_bytes(content, rng)
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as source:
            members = {name: source.read(name) for name in source.namelist()}
    except Exception:  # noqa: BLE001 - broken once already
        return in_bytes(content, rng)
    with zipfile.ZipFile(made, "w") as target:
        chosen = rng.choice(list(members))
        for name, whole in members.items():
            member = whole
            if name == chosen:
                head, rest = member[:128], member[128:]
                member = (in_text if rng.random() < 0.5 else in_bytes)(head, rng) + rest
            target.writestr(name, member)
    return made.getvalue()


def npz(**arrays: Any) -> bytes:
    """Return the bytes of an .npz."""
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def main() -> int:
    """Try targets by name, or all; print what was found."""
    from tests.fuzz_targets import targets

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("target", nargs="*", help="default: all")
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    known = targets()
    if unknown := [name for name in arguments.target if name not in known]:
        parser.error(f"no target {unknown[0]!r}; have {', '.join(known)}")
    failed = False
    for name in arguments.target or known:
        with tempfile.TemporaryDirectory() as folder:
            began_s = time.monotonic()
            found = campaign(
                name, known[name], Path(folder), count=arguments.cases, seed=arguments.seed
            )
        print(f"{name}: {arguments.cases} cases in {time.monotonic() - began_s:.0f} s")
        for finding in found:
            failed = True
            print(f"  {finding.case}: {finding.what}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
