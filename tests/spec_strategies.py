"""Hypothesis strategies for architecture specs that exist (every draw is a valid network)."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from models.spec import ACTIVATIONS, GATES, PADDINGS, ArchSpec, Block, Dense, SqueezeExcite

REPLAY = settings(derandomize=True, deadline=None)
"""The same examples in every run, and no limit on a slow machine."""


@st.composite
def blocks(draw: Any, channels: int) -> Block:
    op = draw(st.sampled_from(["conv", "ds", "mb"]))
    stride = draw(st.sampled_from([1, 1, 2]))
    out = draw(st.one_of(st.just(channels), st.integers(1, 12)))
    skips = ["none", "identity", "pool"] if stride == 1 and out == channels else ["none"]
    se = draw(
        st.none()
        | st.builds(
            SqueezeExcite,
            st.integers(1, 4),
            st.sampled_from(["relu", "silu", "hardswish"]),
            st.sampled_from(GATES),
        )
    )
    return Block(
        op,
        draw(st.sampled_from([1, 3, 5, 7])),
        stride,
        out,
        draw(st.integers(0, 12)) if op == "mb" else 0,
        draw(st.sampled_from(ACTIVATIONS)),
        se,
        draw(st.sampled_from(skips)),
    )


@st.composite
def specs(draw: Any, *, max_blocks: int = 5, max_size: int = 20) -> ArchSpec:
    size = st.integers(1, max_size)
    channels = draw(st.sampled_from([1, 3]))
    shape = (draw(size), draw(size), channels)
    chain: list[Block] = []
    for _ in range(draw(st.integers(0, max_blocks))):
        chain.append(draw(blocks(channels)))
        channels = chain[-1].out
    hidden = draw(st.lists(st.builds(Dense, st.integers(1, 9), st.sampled_from(ACTIVATIONS))))
    dense = (*hidden[:2], Dense(draw(st.integers(1, 12))))
    return ArchSpec(shape, tuple(chain), dense, draw(st.sampled_from(PADDINGS)))
