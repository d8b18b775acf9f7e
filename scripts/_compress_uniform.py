"""The peer of pruning to a latency: torch-pruning, by the ratio that is as fast as was asked."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.cost import cost
from pipeline.formats import create
from scripts._compress_cuts import read
from scripts._import_latency import Ratio, compare_latencies
from scripts._import_runs import run_program
from scripts.figures import ROOT
from scripts.other_models import Unavailable, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts._compress_cuts import Cut

PACKAGE = "torch-pruning"
PEER_MULTIPLES = (8, 1)
"""Of the peer, whose widths can be few where they are multiples: of both, the larger network."""

RATIOS = tuple(round(0.025 * step, 3) for step in range(1, 38))
_PEER_S = 900.0


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer's network that is as fast as was asked: which, and how fast."""

    words: str
    ratio: Ratio


def prune_peer(cut: Cut) -> Peer | str:
    """Prune uniformly, as little as makes it fast enough; or why there is none.

    Raises:
        Unavailable: torch-pruning cannot be had.
    """
    told, target = cut.place / "peer.json", cut.place / "peer.tflite"
    if told.is_file():
        kept = json.loads(told.read_text(encoding="utf-8"))
        return Peer(kept["words"], Ratio(**kept["ratio"]))
    version, files = pruned_uniformly(cut)

    def time(file: Uniform) -> Ratio:
        target.write_bytes(file.content)
        return compare_latencies(target, cut.whole, rounds=cut.sizes.rounds)

    fast = [first_below(time, some, cut.share) for some in files]
    best = max((one for one in fast if one), key=lambda one: one[0].macs, default=None)
    if best is None:
        return f"{PACKAGE} {version} makes none that takes {cut.share:.0%}"
    file, ratio = best
    target.write_bytes(file.content)
    words = f"{PACKAGE} {version}, ratio {file.ratio:g}, multiples of {file.multiple}"
    told.write_text(json.dumps({"words": words, "ratio": asdict(ratio)}), encoding="utf-8")
    return Peer(words, ratio)


@dataclass(frozen=True, slots=True)
class Uniform:
    """A network that the peer has pruned, as a file of our writer."""

    multiple: int
    ratio: float
    macs: int
    content: bytes


def pruned_uniformly(cut: Cut) -> tuple[str, list[list[Uniform]]]:
    """Return the peer's version and its networks of each multiple, ever fewer MACs.

    Raises:
        Unavailable: torch-pruning cannot be had, or fails.
    """
    version, files = "", []
    for multiple in PEER_MULTIPLES:
        folder = cut.place / f"peer-{multiple}"
        folder.mkdir(exist_ok=True)
        script = Path(__file__).with_name("_pruning_peer.py")
        argv = [sys.executable, str(script), str(cut.net.source), str(folder), str(multiple)]
        done = run_program(
            [*argv, *map(str, RATIOS)],
            more={"PYTHONPATH": f"{ROOT}{os.pathsep}{unpack(PACKAGE)}"},
            timeout_s=_PEER_S,
        )
        if done.code:
            raise Unavailable(f"{PACKAGE} failed: {done.said[:200]}")
        version = done.out.strip()
        models = {ratio: read(folder / f"{ratio}.onnx") for ratio in RATIOS}
        found = [
            Uniform(multiple, ratio, cost(model.graph).macs, create("tflite").write(model))
            for ratio, model in models.items()
        ]
        # It rounds in its own way: more than a ratio, or nothing where a group would vanish.
        files.append(sorted(found, key=lambda file: -file.macs))
    return version, files


def first_below(
    time: Callable[[Uniform], Ratio], files: Sequence[Uniform], share: float
) -> tuple[Uniform, Ratio] | None:
    """Return the first of some files, ever smaller ones, that takes at most a share; by halving.

    None where the last takes more.
    """
    low, high = 0, len(files)
    found: dict[int, Ratio] = {}
    while low < high:
        middle = (low + high) // 2
        found[middle] = time(files[middle])
        low, high = (low, middle) if found[middle].ratio <= share else (middle + 1, high)
    return None if low == len(files) else (files[low], found[low])
