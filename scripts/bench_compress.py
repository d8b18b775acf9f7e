"""Compression on CIFAR-10: sizes, accuracies and latencies of compressed networks beside peers.

    bases    the networks that are compressed, as `_compress_bases.py` has trained them
    latency  pruned to a share of the latency on this computer, beside uniform pruning to the same
    guest    pruned to half the latency on an arm64 guest whose clock counts instructions
    sizes    weights pruned, shared, both, and both coded: size against accuracy
    ptq      quantised without training: int8 and 4 bits, beside other quantisers

A part that fails is a figure that is missed; one whose networks are not trained yet, or whose peer
was left out, is not measured, which is neither met nor missed and is counted aloud. Without --quick
a bar that is not measured fails --check as a missed one does. With --json the figures are written
after each. Coders are held against theirs by `bench_coding.py`.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import (
    _compress_bases,
    _compress_cuts,
    _compress_guest,
    _compress_latency,
    _compress_ptq,
    _compress_sizes,
)
from scripts._compress_rows import NOT_MEASURED, Asked, count
from scripts.figures import Figure, describe, finish, guarded, keep, parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main(argv: list[str] | None = None) -> int:
    """Run, print the table; returns 1 with --check if a figure misses its bar."""
    options_of = parser(__doc__, data="CIFAR-10 as JPEG in it")
    options_of.add_argument("--only", choices=PARTS, action="append", help="this part only")
    options_of.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        default=_compress_bases.WORK,
        help="trained networks, of _compress_bases.py",
    )
    options_of.add_argument("--without-peers", action="store_true", help="leave peers out")
    options_of.add_argument("--net", choices=NETS, action="append", help="this network only")
    options_of.add_argument("--seeds", type=int, metavar="N", help="trainings of each at most")
    options = options_of.parse_args(argv)
    conditions = describe()
    figures: list[Figure] = []
    for name in options.only or PARTS:
        with working_folder() as folder:
            asked = Asked(
                options.data,
                options.work,
                folder,
                quick=options.quick,
                peers=not options.without_peers,
                nets=options.net and tuple(options.net),
                seeds=options.seeds,
            )
            for figure in guarded(name, PARTS[name](asked)):
                figures.append(figure)
                print(f"{figure.what}: {figure.ours}", file=sys.stderr, flush=True)
                keep(options, figures, conditions)
    status = finish(options, figures, conditions)
    print(count(figures))
    open_bars = [one for one in figures if one.bar and one.ours == NOT_MEASURED]
    return 1 if options.check and open_bars and not options.quick else status


@contextmanager
def working_folder() -> Iterator[Path]:
    """Give a folder for the files of a part."""
    with tempfile.TemporaryDirectory(prefix="edgewright-compress-") as folder:
        yield Path(folder)


NETS = (*_compress_bases.BASES, _compress_cuts.RESNET8)

PARTS: dict[str, Callable[[Asked], Iterator[Figure]]] = {
    "bases": _compress_bases.rows,
    "latency": _compress_latency.rows,
    "guest": _compress_guest.rows,
    "sizes": _compress_sizes.rows,
    "ptq": _compress_ptq.rows,
}


if __name__ == "__main__":
    sys.exit(main())
