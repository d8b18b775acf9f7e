"""Size and speed of the lossless coder beside its entropy, Huffman's codes, zstd and constriction.

Seven kinds of quantised weights, drawn with a seed: 512 x 1152 of each beside the peers, and 1 and
8 million symbols for speed. Sizes count tables; times are processor time of one core, the best of
three. zstd and constriction are installed into an environment of their own, unless `--peers` names
the Python of one that has them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from device_agents.agent.packed import pieces
from device_agents.agent.packed.cursor import Cursor
from pipeline.coding import Shape, huffman, smallest
from pipeline.coding.distributions import count_bytes, entropy
from scripts._weight_kinds import tensor_kinds
from scripts.figures import Figure, describe, finish, parser

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Peers = Mapping[str, Mapping[str, int]]

TABLE = (512, 1152)
SPEEDS = {(500, 2000): 8e6, (2000, 4000): 20e6}
"""Rows and columns -> symbols a second to reach."""

QUICK = dict([*SPEEDS.items()][:1])
OVER, OVER_BYTES = 1.005, 4096
TIMES = 3
PACKAGES = ("numpy", "zstandard", "constriction")
INSTALL_S = 600.0


def main(argv: list[str] | None = None) -> int:
    """Run, print the table; returns 1 with --check if a figure misses its bar."""
    options = parser(__doc__)
    options.add_argument("--peers", type=Path, metavar="PYTHON", help="one with the peers")
    given = options.parse_args(argv)
    conditions = describe()
    kinds = dict(tensor_kinds(*TABLE, np.random.default_rng(0)))
    with tempfile.TemporaryDirectory() as folder:
        peers = run_peers(kinds, Path(folder), given.peers)
    figures = [figure for name, codes in kinds.items() for figure in sizes(name, codes, peers)]
    for shape, bar in (QUICK if given.quick else SPEEDS).items():
        for name, codes in tensor_kinds(*shape, np.random.default_rng(0)):
            figures.append(speed(name, codes, bar))
    return finish(given, figures, conditions)


def sizes(name: str, codes: npt.NDArray[np.int8], peers: Peers) -> list[Figure]:
    """Return bits a weight beside the entropy, Huffman's codes and the peers."""
    data = codes.view(np.uint8).reshape(-1)
    counts = count_bytes(data)
    size, _ = coded(codes)
    held = entropy(counts) * data.size / 8
    code = huffman.make_code(counts)
    lengths = len(huffman.encode(data, code)) if code else data.size
    theirs = peers.get(name, {})
    least = min(lengths, theirs.get("zstd", lengths))

    def bits(count: float) -> str:
        return f"{8 * count / data.size:.3f}"

    others = ", ".join(f"{coder} {bits(found)}" for coder, found in theirs.items())
    return [
        Figure(
            f"{name}: bits a weight",
            bits(size),
            f"entropy {bits(held)}",
            "0.5 % + 4 kB over the entropy",
            size <= OVER * held + OVER_BYTES,
            8 * size / data.size,
        ),
        Figure(
            f"{name}: beside coders",
            bits(size),
            f"Huffman {bits(lengths)}, {others or 'no peer'}",
            "none of Huffman and zstd -19 smaller",
            size <= least and "zstd" in theirs,
            8 * size / data.size,
        ),
    ]


def speed(name: str, codes: npt.NDArray[np.int8], bar: float) -> Figure:
    """Return how fast a tensor decodes."""
    size, rate = coded(codes)
    return Figure(
        f"{name}, {codes.size / 1e6:.0f} million: decoded",
        f"{rate / 1e6:.1f} million/s",
        f"{8 * size / codes.size:.3f} bits",
        f"{bar / 1e6:.0f} million/s",
        rate >= bar,
        rate,
    )


def coded(codes: npt.NDArray[np.int8]) -> tuple[int, float]:
    """Return a tensor's coded bytes, and the symbols that decode in a second."""
    piece = smallest(codes.tobytes(), Shape(1, codes.shape))
    seconds = []
    for _ in range(TIMES):
        start = time.process_time()
        found = pieces.decode(Cursor(piece), codes.size)
        seconds.append(time.process_time() - start)
        if found.tobytes() != codes.tobytes():
            raise SystemExit("a tensor does not come back as it was")
    return len(piece), codes.size / min(seconds)


def run_peers(
    kinds: Mapping[str, npt.NDArray[np.int8]], folder: Path, python: Path | None
) -> Peers:
    """Return bytes by kind and coder; none, and why on stderr, where peers fail."""
    for name, codes in kinds.items():
        (folder / f"{name}.bin").write_bytes(codes.tobytes())
    script = Path(__file__).with_name("_coding_peers.py")
    try:
        chosen = python or install(folder / "peers")
        done = subprocess.run(
            [str(chosen), "-I", str(script), str(folder)],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=True,
        )
        found: Peers = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()[-300:]
        print(f"no peers: {said}", file=sys.stderr)
        return {}
    return found


def install(folder: Path) -> Path:
    """Return the Python of a new environment with the peers."""
    python = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", *PACKAGES],
    ):
        subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
