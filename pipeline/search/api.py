"""The three questions of architecture search, as protocols: space, strategy, estimate.

None of the three imports another; `pipeline.search.loop` joins them. A strategy sees no device,
no torch and no store: it is asked for specs and told trials, so a recorded search replays bit for
bit from its seed and its trials.

What is searched is a type variable, `Spec`: an `ArchSpec`, a cell of a recorded benchmark or a set
of training hyper-parameters. A strategy needs nothing of it but that it can be hashed.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from device_agents.api import Failure
    from models.graph import Op

Choices = tuple[int, ...]
"""One index per decision of a space."""

Spec = TypeVar("Spec", bound=Hashable)
"""A point of a space: hashable, equal to its like, and `str` gives it in one line."""
Spec_contra = TypeVar("Spec_contra", bound=Hashable, contravariant=True)


class SearchSpace(Protocol[Spec]):
    """A set of networks (or cells, or settings), each given by one choice per decision.

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
    def size(self) -> int:
        """Number of choice vectors."""

    def decode(self, choices: Choices) -> Spec:
        """Return the network of a choice vector."""

    def choices(self, spec: Spec) -> Choices:
        """Return a choice vector of a network; ValueError if the network is not in the space."""

    def sample(self, rng: np.random.Generator) -> Spec:
        """Draw a network, uniform over choice vectors."""

    def mutate(self, spec: Spec, rng: np.random.Generator) -> Spec:
        """Return a different network one decision away (bounded tries)."""

    def crossover(self, a: Spec, b: Spec, rng: np.random.Generator) -> Spec:
        """Return a network each of whose decisions comes from `a` or `b`."""

    def encode(self, spec: Spec) -> npt.NDArray[np.float64]:
        """Return the one-hot decisions, (sum of cardinalities,)."""

    def features(self, spec: Spec) -> npt.NDArray[np.float64]:
        """Return what a model of the space should see: `encode`, or what the space knows better.

        Columns are scaled so that distances between vectors mean something; equal networks have
        equal vectors.
        """

    def latency_features(self, spec: Spec) -> npt.NDArray[np.float64]:
        """Return what a model of latency should see: `features`, or more where there is more.

        A space that knows the latencies of its networks on other devices gives them here.
        """

    def __contains__(self, spec: object) -> bool:
        """Whether `choices(spec)` would succeed."""


@runtime_checkable
class KnowsOps(Protocol):
    """A space of networks that knows its ops without going through its networks.

    Then it can have a latency table. 1e17 networks have some hundred different ops.
    """

    def graph_ops(self) -> Iterator[Op]:
        """Yield every op that a network of the space can have, in the order of the chain.

        Equal ops (`Op.key`) may come several times.
        """


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number about a network: where it comes from and how sure it is.

    `source` is counted | table | predicted | trained | supernet | measured.
    """

    value: float
    stderr: float
    source: str


@dataclass(frozen=True, slots=True)
class Trial(Generic[Spec]):
    """What is known about one candidate after evaluation. A failure is a value, not an end.

    `estimates` maps a metric (``accuracy`` in 0..1, ``latency_ms``) to its estimate; `score` is
    the objective's, higher is better, minus infinity for a failure.
    """

    spec: Spec
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    score: float = float("-inf")
    failure: Failure | None = None


class Strategy(Protocol[Spec]):
    """Decides what to try. Call order: ask(n), tell(those trials, in order), ask, tell, …."""

    def ask(self, n: int) -> Sequence[Spec]:
        """Return the next n specs to evaluate (repeats of earlier ones are allowed).

        Fewer than n, and at last none, if the strategy has a list that ends.
        """

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Learn from the trials of the last `ask`; only the first few if the budget has ended."""


class Estimator(Protocol[Spec_contra]):
    """Gives one metric of networks: counted, predicted, trained or measured behind one face."""

    @property
    def metric(self) -> str:
        """What is estimated: ``accuracy`` or ``latency_ms``."""

    def estimate(self, specs: Sequence[Spec_contra]) -> Sequence[Estimate | Failure]:
        """Return one estimate or failure per spec, in order."""


class Objective(Protocol):
    """Makes one score of the estimates of a trial."""

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return the score, higher is better."""
