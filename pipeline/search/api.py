"""The three questions of architecture search, as protocols: space, strategy, estimate.

None of the three imports another; `pipeline.search.loop` joins them. A strategy sees no device,
no torch and no store: it is asked for specs and told trials, so a recorded search replays bit for
bit from its seed and its trials.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from device_agents.api import Failure
    from models.spec import ArchSpec

Choices = tuple[int, ...]
"""One index per decision of a space."""


class SearchSpace(Protocol):
    """A set of networks, each given by one choice per decision.

    `cardinalities[i]` is the number of options of decision i. `decode` and `choices` are inverse
    up to choices that make no difference (a skip where none is possible): `decode` is
    many-to-one, `choices` returns one representative or raises ValueError for a spec outside.
    """

    @property
    def name(self) -> str:
        """The space's name in recipes."""

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of options of each decision."""

    @property
    def decisions(self) -> tuple[str, ...]:
        """Name of each decision."""

    @property
    def size(self) -> int:
        """Number of choice vectors."""

    def decode(self, choices: Choices) -> ArchSpec:
        """Return the network of a choice vector."""

    def choices(self, spec: ArchSpec) -> Choices:
        """Return a choice vector of a network; ValueError if the network is not in the space."""

    def sample(self, rng: np.random.Generator) -> ArchSpec:
        """Draw a network, uniform over choice vectors."""

    def mutate(self, spec: ArchSpec, rng: np.random.Generator) -> ArchSpec:
        """Return a different network one decision away (bounded tries)."""

    def crossover(self, a: ArchSpec, b: ArchSpec, rng: np.random.Generator) -> ArchSpec:
        """Return a network each of whose decisions comes from `a` or `b`."""

    def encode(self, spec: ArchSpec) -> npt.NDArray[np.float64]:
        """Return a feature vector (one-hot decisions) for predictors."""

    def __contains__(self, spec: object) -> bool:
        """Whether `choices(spec)` would succeed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number about a network: where it comes from and how sure it is.

    `source` is counted | table | predicted | trained | measured.
    """

    value: float
    stderr: float
    source: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known about one candidate after evaluation. A failure is a value, not an end.

    `estimates` maps a metric (``accuracy`` in 0..1, ``latency_ms``) to its estimate; `score` is
    the objective's, higher is better, minus infinity for a failure.
    """

    spec: ArchSpec
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    score: float = float("-inf")
    failure: Failure | None = None


class Strategy(Protocol):
    """Decides what to try. Call order: ask(n), tell(those trials, in order), ask, tell, …."""

    def ask(self, n: int) -> Sequence[ArchSpec]:
        """Return the next n specs to evaluate (repeats of earlier ones are allowed)."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from the trials of the last `ask`; only the first few if the budget has ended."""


class Estimator(Protocol):
    """Gives one metric of networks: counted, predicted, trained or measured behind one face."""

    @property
    def metric(self) -> str:
        """What is estimated: ``accuracy`` or ``latency_ms``."""

    def estimate(self, specs: Sequence[ArchSpec]) -> Sequence[Estimate | Failure]:
        """Return one estimate or failure per spec, in order."""


class Objective(Protocol):
    """Folds the estimates of a trial into one score."""

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return the score, higher is better."""
