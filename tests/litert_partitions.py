"""Counts the partitions that LiteRT makes of files; as a program, since a file may end it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter


def count(content: bytes) -> int | None:
    """Return the DELEGATE nodes that LiteRT makes of a file; None where it refuses the file."""
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        before = len(interpreter._get_ops_details())
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError):
        return None
    return len(interpreter._get_ops_details()) - before


def count_apart(folder: Path) -> dict[str, int]:
    """Return the partitions of the files of a folder by name, without those that are refused.

    A file that ends its process counts as refused; another goes on with the file after it.
    """
    waiting, found = sorted(path.name for path in folder.iterdir()), {}
    while waiting:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *(str(folder / name) for name in waiting)],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = done.stdout.splitlines()
        found |= {name: int(n) for name, n in zip(waiting, lines, strict=False) if n != "None"}
        assert done.returncode < 0 or len(lines) == len(waiting), done.stderr
        waiting = waiting[len(lines) + 1 :]
    return found


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(count(Path(path).read_bytes()), flush=True)
