"""Search problems that cost nothing to evaluate, shared by tests of spaces and strategies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.spec import Block
from pipeline.search import strategy as strategies
from pipeline.search.api import Trial
from pipeline.search.space.categorical import CategoricalSpace, Group
from pipeline.search.space.decisions import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.spec import ArchSpec
    from pipeline.search.api import Choices


@dataclass(frozen=True)
class Cells(CategoricalSpace):
    """`depth` decisions of `options` each, all independent: a chain of 1x1 convolutions."""

    depth: int = 6
    options: int = 5
    input: tuple[int, int, int] = (1, 1, 1)
    classes: int = 10
    padding: str = "same"

    name: ClassVar[str] = "cells"

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple((Decision(f"d{i}", tuple(range(self.options))),) for i in range(self.depth))

    def blocks(self, group: int, options: tuple[Any, ...], channels: int) -> tuple[Block, ...]:
        del group, channels
        return (Block("conv", 1, 1, options[0] + 1),)


def additive(space: CategoricalSpace, seed: int) -> Callable[[ArchSpec], float]:
    """Return a score that is a sum of one random worth per option: mean 0 and sd about 1."""
    rng = np.random.default_rng(seed)
    worth = [rng.normal(size=count) for count in space.cardinalities]

    def score(spec: ArchSpec) -> float:
        chosen = space.choices(spec)
        return float(sum(w[c] for w, c in zip(worth, chosen, strict=True)) / len(worth) ** 0.5)

    return score


def agreement(space: CategoricalSpace) -> Callable[[ArchSpec], float]:
    """Return the share of neighbouring decisions that agree: no decision is good by itself."""

    def score(spec: ArchSpec) -> float:
        chosen: Choices = space.choices(spec)
        pairs = list(pairwise(chosen))
        return sum(a == b for a, b in pairs) / len(pairs)

    return score


def run(
    name: str,
    space: CategoricalSpace,
    score: Callable[[ArchSpec], float],
    *,
    trials: int,
    seed: int,
    batch: int = 10,
    options: Mapping[str, Any] | None = None,
) -> Sequence[Trial]:
    """Search with a strategy; a score that is not finite is a failed candidate.

    Fewer trials come back only from a strategy that has no more to ask for.
    """
    strategy = strategies.create(name, space, np.random.default_rng(seed), **(options or {}))
    done: list[Trial] = []
    while len(done) < trials:
        told = [Trial(spec, score=score(spec)) for spec in strategy.ask(batch)]
        strategy.tell(told)
        done += told
        if not told:
            break
    return done
