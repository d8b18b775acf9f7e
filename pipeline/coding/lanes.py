"""Into how many lanes a stream is parted: many decode faster, each costs a few bytes."""

from __future__ import annotations

import numpy as np

_MOST = 2048
"""More is hardly faster: a step's calls cost less than its numbers by then."""

_SHARE = 0.002
"""Of the coded bytes, which the lanes together may cost."""

_STEPS = 12_000
"""Kept below the decoder's bound, whatever the lanes cost; it leaves room to look around."""

_FEW, _FEW_SYMBOLS = 256, 4096
"""Of a short stream, a lane for so many symbols up to so few lanes, whatever they cost."""

_AROUND = 0.1

MOST_LENGTH = _STEPS
"""Symbols that can lie in one lane."""


def wanted_lanes(symbols: int, *, coded_bytes: float, lane_bytes: float) -> int:
    """Return how many lanes suit so many symbols, coded in about so many bytes.

    `lane_bytes` are what a lane costs.
    """
    afforded = int(min(_MOST, _SHARE * coded_bytes / lane_bytes))
    return max(1, -(-symbols // _STEPS), min(_FEW, symbols // _FEW_SYMBOLS), afforded)


def choose_lanes(
    count: int, *, coded_bytes: float, lane_bytes: float, group: int = 1, length: int = 1
) -> int:
    """Return a number of lanes.

    Args:
        count: what is dealt out to lanes: symbols, or cells of several symbols.
        coded_bytes: about what all is coded in.
        lane_bytes: what a lane costs.
        group: as many are dealt out together, and what is missing from that is padded.
        length: symbols of one that is dealt out, at most MOST_LENGTH.
    """
    wanted = wanted_lanes(count * length, coded_bytes=coded_bytes, lane_bytes=lane_bytes)
    wanted = min(count, max(wanted, -(-count // (_STEPS // length))))
    # Of about so many, those that leave least to be padded.
    near = np.arange(wanted, min(count, int(wanted * (1 + _AROUND))) + 1)
    return int(near[np.argmin(-count % (near * group))])
