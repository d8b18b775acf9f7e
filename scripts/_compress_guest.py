"""A network pruned to half its latency on an arm64 guest whose clock counts instructions.

There a latency repeats, whatever else this computer does, so that it is told apart whether a target
is met; docs/lab.md says what such a clock does not show. Nothing is trained.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scripts._compress_cuts import RESNET8, Cut, Sizes, load_net
from scripts._compress_latency import latency_figures, prune_to_share
from scripts._compress_rows import unmeasured
from scripts.figures import Figure
from scripts.lab import icount
from scripts.lab.images import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts._compress_rows import Asked
    from scripts.lab.foreground import Reachable

SHARE = 0.5
NAME = "counted"
_TIMEOUT_S = 7200.0
_POINTS = 2

FULL = Sizes((RESNET8, "mbv2"), (SHARE,), "quick", 0, 0, 0, None, None)
QUICK = Sizes((RESNET8,), (SHARE,), "quick", 0, 0, 0, None, None)


def rows(asked: Asked) -> Iterator[Figure]:
    """Prune on the guest; where it cannot run here, nothing is measured."""
    sizes = QUICK if asked.quick else FULL
    for name in asked.nets or sizes.nets:
        what = f"{name} at {SHARE:.0%} of its latency, counted instructions"
        net = load_net(name, asked)
        if isinstance(net, str):
            yield unmeasured(what, net, "target met")
            continue
        place = asked.folder / name
        (place / "guest").mkdir(parents=True)
        try:
            with icount.running(place / "guest") as guest:
                config = write_profile(place / "config", guest)
                told = prune_to_share(
                    Cut(net, SHARE, place, sizes),
                    *("--device", NAME, "--points", str(_POINTS)),
                    config=config,
                    timeout_s=_TIMEOUT_S,
                )
        except LabError as error:
            yield unmeasured(what, str(error), "target met")
            continue
        if isinstance(told, str):
            yield Figure(what, "-", told, "target met", met=False)
            continue
        yield from latency_figures(what, told)


def write_profile(folder: Path, guest: Reachable) -> Path:
    """Write the profile of a guest; return the configuration that knows it."""
    devices = folder / "devices"
    devices.mkdir(parents=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in guest.profile_values().items()]
    (devices / f"{NAME}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
