"""Exchange search: find which decisions to change together, and trade latency between them.

Under a latency limit the best networks lie at the limit, where no single change helps: what makes
a network better makes it too slow. So this local search measures what each single change does to
accuracy and to latency, takes the effects of several changes to add up, and tries the pairs and
triples that promise the most accuracy within the limit, the most promising first. Unlike an
evolution it spends no trials on children that are known to be too slow.

- As soon as a network is better the search moves there; measured effects are kept, and measured
  anew where they promise nothing any more.
- Where neither singles nor exchanges help, the climb goes on from a kick: some decisions of its
  best network drawn anew (an iterated local search: Lourenco et al. 2003), or half of them
  taken from the best of an earlier climb (a memetic one: Moscato 1989). After `patience` kicks
  in vain a new climb begins at the best of `initial` random networks.
- Without a limit, or without latencies, the score alone counts, and exchanges are changes that
  are good together.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.strategy._effects import Effects
from pipeline.search.strategy._genes import Breeder
from pipeline.search.strategy._ranking import Rank, check_limit, latency_ms, merit, rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.search.api import SearchSpace, Trial
    from pipeline.search.strategy._genes import Genes


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """Options of `Exchange`.

    Attributes:
        latency_limit_ms: networks above it are not wanted; None: the score alone counts. A
            recipe's search sets it to its target unless it is given.
        initial: random networks of which a climb begins at the best.
        exchanges: pairs and triples tried at a network before its single changes are measured
            anew, or it is given up.
        kick: fewest and most decisions that a kick draws anew.
        crossover: share of kicks that take decisions from the top of an earlier climb instead.
        patience: kicks in vain before a new climb.
        tries: draws to find a network that was not evaluated before; then a repeat is handed out.
    """

    latency_limit_ms: float | None = None
    initial: int = 20
    exchanges: int = 100
    kick: tuple[int, int] = (3, 8)
    crossover: float = 0.5
    patience: int = 12
    tries: int = 100

    def __post_init__(self) -> None:
        for name in ("initial", "exchanges", "patience", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"exchange search, {name}: {getattr(self, name)} is below 1")
        if not 1 <= self.kick[0] <= self.kick[1]:
            raise ConfigError(
                f"exchange search, kick: {list(self.kick)} is not the fewest and the most "
                "decisions to draw anew, such as [3, 8]"
            )
        if not 0 <= self.crossover <= 1:
            raise ConfigError(f"exchange search, crossover: {self.crossover} is not from 0 to 1")
        check_limit("exchange search", self.latency_limit_ms)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a told network came to."""

    place: Rank
    merit: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class _Member:
    genes: Genes
    known: _Known


class Exchange(Generic[Spec]):
    """Iterated local search by single changes, pairs and triples; see the module."""

    Options = ExchangeOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: ExchangeOptions = ExchangeOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._breeder = Breeder(space, rng)
        self._effects = Effects(space.cardinalities)
        self._known: dict[Spec, _Known] = {}
        self._asked: dict[Spec, Genes] = {}
        self._queue: deque[Genes] = deque()
        self._steps: deque[Callable[[_Member], list[Genes]]] = deque()
        self._base: Genes = np.zeros(len(space.cardinalities), np.int64)
        self._here: _Member | None = None
        self._top: _Member | None = None
        self._tops: list[Genes] = []
        self._drawn: list[_Member] = []
        self._kicks = 0

    def ask(self, n: int) -> Sequence[Spec]:
        """Return the next n networks of the climb; if it has fewer, variants of where it is."""
        asked: dict[Spec, Genes] = {}
        while len(asked) < n and self._advance(asked):
            pass
        self._asked = asked
        specs = list(asked)
        return [*specs, *(self._variant(asked) for _ in range(n - len(specs)))]

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Learn from the trials; move to the best if it is better than where the climb is."""
        limit_ms = self.options.latency_limit_ms
        told = []
        for trial in trials:
            ms = latency_ms(trial)
            # Without a latency nothing is known to cost any: the score alone counts.
            cost_ms = 0.0 if limit_ms is None or math.isnan(ms) else float(ms)
            known = _Known(rank(trial, limit_ms), float(merit(trial, limit_ms)), cost_ms)
            self._known[trial.spec] = known
            told.append(_Member(self._asked[trial.spec], known))
        if self._here is None:
            self._begin(told)
            return
        for member in told:
            self._learn(self._here, member)
        best = max(told, key=lambda member: member.known.place, default=self._here)
        if best.known.place > self._here.known.place:
            self._move(best)

    def _advance(self, asked: dict[Spec, Genes]) -> bool:
        """Take one network from the queue or queue the next step; False where nothing is left.

        Bounded: networks in the queue and steps of a place are finite, and each move raises the
        place's rank.
        """
        here = self._here
        if here is None:
            return False
        if self._queue:
            genes = self._queue.popleft()
            spec = self._breeder.spec(genes)
            if spec not in self._known:
                asked.setdefault(spec, genes)
                return True
            member = _Member(genes, self._known[spec])
            self._learn(here, member)
            if member.known.place > here.known.place and not asked:
                self._move(member)
            return True
        # What is told next may tell where to look, except for single changes.
        if self._steps and (not asked or self._steps[0] == self._singles):
            self._queue.extend(self._steps.popleft()(here))
            return True
        if not asked:
            self._leave(here)
        return False

    def _variant(self, asked: dict[Spec, Genes]) -> Spec:
        """Return a network beyond the climb's own: a start, a kick or a neighbour; adds it."""
        for _ in range(self.options.tries):
            if self._here is not None:
                genes = self._breeder.redraw_some(self._here.genes, 2)
            elif self._top is not None:
                genes = self._kicked(self._top.genes)
            else:
                genes = self._breeder.sample()
            spec = self._breeder.spec(genes)
            if spec not in self._known and spec not in asked:
                break
        asked[spec] = genes
        return spec

    def _kicked(self, top: Genes) -> Genes:
        """Return the top of the climb with some decisions drawn anew, or of another climb's."""
        if self._tops and self.rng.random() < self.options.crossover:
            other = self._tops[int(self.rng.integers(len(self._tops)))]
            return self._breeder.cross([top, other])
        low, high = self.options.kick
        return self._breeder.redraw_some(top, int(self.rng.integers(low, high + 1)))

    def _begin(self, told: Sequence[_Member]) -> None:
        """Climb from the best network drawn, once there are enough: a kick is one."""
        self._drawn += told
        if len(self._drawn) < (self.options.initial if self._top is None else 1):
            return
        best = max(self._drawn, key=lambda member: member.known.place)
        self._drawn = []
        if self._top is None:
            self._top = best
            self._effects.forget()
        self._move(best)

    def _move(self, member: _Member) -> None:
        """Climb on from a network; effects stay known, relative to it."""
        self._effects.move(self._base, member.genes)
        self._base = member.genes
        self._here = member
        self._queue.clear()
        self._steps = deque([self._exchanges, self._singles, self._exchanges])

    def _leave(self, here: _Member) -> None:
        """Give up a local optimum: kick the best of this climb, or begin anew."""
        top = self._top or here
        better = here.known.place > top.known.place
        self._top = here if better else top
        self._kicks = 0 if better else self._kicks + 1
        if self._kicks > self.options.patience:
            self._tops.append(self._top.genes)
            self._top, self._kicks = None, 0
        self._here = None

    def _learn(self, here: _Member, member: _Member) -> None:
        """Note the effect of a single change."""
        changed = np.flatnonzero(here.genes != member.genes)
        if len(changed) == 1:
            d = int(changed[0])
            self._effects.learn(
                d,
                int(member.genes[d]),
                member.known.merit - here.known.merit,
                member.known.latency_ms - here.known.latency_ms,
            )

    def _singles(self, here: _Member) -> list[Genes]:
        """Return all networks one change away, in random order."""
        found = []
        for d, count in enumerate(self.space.cardinalities):
            for option in set(range(count)) - {int(here.genes[d])}:
                genes = here.genes.copy()
                genes[d] = option
                found.append(genes)
        return [found[i] for i in self.rng.permutation(len(found))]

    def _exchanges(self, here: _Member) -> list[Genes]:
        """Return the networks two or three changes away that promise most."""
        limit_ms = self.options.latency_limit_ms
        slack_ms = 0.0 if limit_ms is None else limit_ms - here.known.latency_ms
        return self._effects.exchanges(here.genes, slack_ms, self.options.exchanges)
