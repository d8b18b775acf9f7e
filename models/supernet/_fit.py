"""Which blocks of a full network a sub-network is made of.

A stage of the full network begins at every block that is not an ``mb`` block with a skip, and at
one that does not follow an ``mb`` block; a sub-network takes the first blocks of each stage, each
with a smaller or equal kernel and middle width (``conv`` blocks stay as they are). So an `ArchSpec`
alone says what is selected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.spec import SpecError

if TYPE_CHECKING:
    from models.spec import ArchSpec, Block

SMALLEST_KERNEL = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a sub-network: its place in the full network, and what it is there."""

    index: int
    block: Block


def stages(spec: ArchSpec) -> list[list[int]]:
    """Return the indices of each stage's blocks."""
    found: list[list[int]] = []
    before = ""
    for index, block in enumerate(spec.blocks):
        if block.op == before == "mb" and block.skip != "none":
            found[-1].append(index)
        else:
            found.append([index])
        before = block.op
    return found


def fit(full: ArchSpec, spec: ArchSpec) -> tuple[Part, ...]:
    """Return the parts of `full` that make up `spec`, in order.

    Raises:
        SpecError: `spec` does not fit inside `full`; names the block and what does not fit.
    """
    for what, given, fixed in (
        ("input channels", str(spec.input[2]), str(full.input[2])),
        ("padding", spec.padding, full.padding),
        ("dense layers", ":".join(map(str, spec.dense)), ":".join(map(str, full.dense))),
    ):
        if given != fixed:
            raise SpecError(
                f"a network with {what} {given} does not fit in a supernet with {fixed}; "
                "these are the same in all its sub-networks"
            )
    outer, inner = stages(full), stages(spec)
    if len(outer) != len(inner):
        raise SpecError(
            f"a network of {len(inner)} stages does not fit in a supernet of {len(outer)}; a stage "
            "begins at every mb block without skip, and each keeps at least its first block"
        )
    parts = []
    for number, (places, own) in enumerate(zip(outer, inner, strict=True)):
        if len(own) > len(places):
            raise SpecError(
                f"stage {number} of the network has {len(own)} blocks, from block {own[0]} "
                f"({spec.blocks[own[0]]}) on; the supernet's has at most {len(places)}"
            )
        for index, position in zip(places, own, strict=False):
            _check(position, spec.blocks[position], full.blocks[index])
            parts.append(Part(index, spec.blocks[position]))
    return tuple(parts)


def _check(position: int, block: Block, largest: Block) -> None:
    """Refuse a block that is no part of the supernet's block. Raises SpecError."""
    where = f"block {position} ({block}) does not fit in the supernet's {largest}"
    for name in ("op", "stride", "out", "act", "skip"):
        given, fixed = getattr(block, name), getattr(largest, name)
        if given != fixed:
            raise SpecError(f"{where}: its {name} is {given}, it must be {fixed}")
    least = largest.kernel if block.op == "conv" else min(SMALLEST_KERNEL, largest.kernel)
    if not least <= block.kernel <= largest.kernel:
        raise SpecError(
            f"{where}: its kernel is {block.kernel}, it must be {least} to {largest.kernel}"
        )
    if block.mid > largest.mid or (block.mid == 0) != (largest.mid == 0):
        bounds = f"1 to {largest.mid}" if largest.mid else "0 (no expanding layer)"
        raise SpecError(f"{where}: its middle width is {block.mid}, it must be {bounds}")
    own, allowed = block.se, largest.se
    if (own is None) != (allowed is None):
        raise SpecError(f"{where}: both have squeeze-and-excite or neither")
    if own is not None and allowed is not None:
        if (own.act, own.gate) != (allowed.act, allowed.gate):
            raise SpecError(f"{where}: its squeeze-and-excite has other activations")
        fewest = allowed.channels if block.op == "conv" else 1
        if not fewest <= own.channels <= allowed.channels:
            raise SpecError(
                f"{where}: its squeeze-and-excite has {own.channels} channels, "
                f"it must have {fewest} to {allowed.channels}"
            )
