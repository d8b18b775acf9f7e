"""What the benchmark scripts share: a table of figures beside peers and bars, and their flags.

A script reads its command line with `parser`, measures, and ends with `finish`, which prints the
table, writes the JSON and returns the exit status.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import traceback
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (
    "tensorflow-cpu",
    "tensorflow",
    "numpy",
    "scipy",
    "torch",
    "ai-edge-litert",
    "paramiko",
    "SQLAlchemy",
)
_MARKS = {True: "ok", False: "MISSED", None: ""}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        what: what was measured, in words.
        ours: our figure.
        beside: the published or plain figure.
        bar: what it is to reach, in words; empty for information.
        met: whether it does; None for information.
        value: our figure as a number, for the JSON.
    """

    what: str
    ours: str
    beside: str = ""
    bar: str = ""
    met: bool | None = None
    value: float | None = None


def parser(description: str | None, *, data: str = "") -> argparse.ArgumentParser:
    """Return the flags that every script has; with `data`, words on where the data comes from."""
    found = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    found.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    found.add_argument("--check", action="store_true", help="exit 1 when a figure misses its bar")
    found.add_argument("--quick", action="store_true", help="a smaller run")
    if data:
        found.add_argument(
            "--data", type=Path, metavar="DIR", default=ROOT.parent / "shared" / "data", help=data
        )
    return found


def finish(
    options: argparse.Namespace,
    figures: Sequence[Figure],
    conditions: Mapping[str, Any] | None = None,
    **more: Any,
) -> int:
    """Print the table, write --json FILE, and return the exit status.

    `conditions` are those of `describe` before the run, whose own load is none of them; `more`
    goes into the JSON beside them.
    """
    show(figures)
    facts = keep(options, figures, conditions, **more)
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    print(f"\n{facts['machine']}, {facts['cpus']} CPUs, load {facts['load']:.1f}, {versions}")
    return 1 if options.check and any(figure.met is False for figure in figures) else 0


def keep(
    options: argparse.Namespace,
    figures: Sequence[Figure],
    conditions: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Write --json FILE as `finish` does, of what there is so far; return its conditions."""
    facts = {**(conditions or describe()), "quick": options.quick, **more}
    write_json(
        options.json, {"conditions": facts, "figures": [asdict(figure) for figure in figures]}
    )
    return facts


def guarded(name: str, part: Iterable[Figure]) -> Iterator[Figure]:
    """Give the figures of a part; one that fails is a figure that is missed, and ends only it."""
    try:
        yield from part
    except (Exception, SystemExit) as error:  # noqa: BLE001  # of programs that may do anything
        traceback.print_exc()
        said = " ".join(str(error).split())[:300] or type(error).__name__
        yield Figure(name, "-", said, "it runs", met=False)


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write a script's figures as JSON; without a path nothing is written.

    They become text either way, so that a value that JSON cannot hold fails every run.

    Raises:
        SystemExit: there is such a value.
    """
    try:
        text = json.dumps(content, indent=1) + "\n"
    except TypeError as error:
        raise SystemExit(f"the figures cannot be written as JSON: {error}") from error
    if path is not None:
        path.write_text(text, encoding="utf-8")


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    lines = [("figure", "ours", "beside it", "bar", "")]
    lines += [(f.what, f.ours, f.beside, f.bar, _MARKS[f.met]) for f in figures]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def describe() -> dict[str, Any]:
    """Return what figures depend on: the machine, its load, the versions and the time."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": found,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def need(path: Path, where: str) -> Path:
    """Return a data file that is there; end the script with one sentence where it is not."""
    if not path.is_file():
        raise SystemExit(f"{path} is not there: {where}; give its folder with --data DIR")
    return path
