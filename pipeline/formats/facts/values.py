"""The facts of a model file, and how constants and memory are counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from device_agents.model_files import Tensor


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model file says of itself.

    Attributes:
        format: as people call it, such as TFLite.
        version: of the format, and of the sets of ops that it uses.
        producer: what wrote it, as far as it says.
        size_bytes: of the file, with the files that belong to it.
        inputs: in the file's order; open dimensions by name, or empty.
        outputs: likewise.
        ops: kind, as the format names it -> how many; in subgraphs, too.
        params: numbers in its weights; index tables are none. None where they cannot be counted.
        weight_bytes: type of constants -> what they take in the file.
        activations: type -> how many computed tensors have it; empty where types are not stored.
        macs: multiply-accumulates of one inference; None where shapes or an op are not known.
        peak_activation_bytes: the most that is alive at once, op by op in the file's order, without
            weights and scratch space; None where shapes are not known.
        uncounted: why one of the last two is None, in a clause; empty where none is.
        metadata: what it carries beside the network, by name, in short.
        labels: names of classes.
        remarks: what a reader of these facts should know, a clause each.
    """

    format: str
    version: str
    producer: str
    size_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ops: Mapping[str, int]
    params: int | None
    weight_bytes: Mapping[str, int]
    activations: Mapping[str, int] = field(default_factory=dict)
    macs: int | None = None
    peak_activation_bytes: int | None = None
    uncounted: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class Weights:
    """Adds up constants."""

    params: int = 0
    weight_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, dtype: str, elements: int, size_bytes: int, *, table: bool = False) -> None:
        """Count a constant; a `table` holds indices or sizes and no parameters."""
        self.params += 0 if table else elements
        self.weight_bytes[dtype] += size_bytes


Life = tuple["Collection[str]", "Collection[str]"]
"""(what an op reads, what it gives), by name."""


def find_peak(
    ops: Sequence[Life],
    inputs: Iterable[str],
    outputs: Iterable[str],
    size_bytes: Mapping[str, int],
) -> int:
    """Return the most bytes that are alive at once when ops run in order.

    While an op runs its inputs and outputs are alive, and all that a later op or the caller reads.
    Names without a size take none: constants, and what is left out.
    """
    readers = Counter(name for reads, _ in ops for name in set(reads)) + Counter(outputs)
    alive = {name: size_bytes.get(name, 0) for name in inputs}
    peak = sum(alive.values())
    for reads, gives in ops:
        alive |= {name: size_bytes.get(name, 0) for name in gives}
        peak = max(peak, sum(alive.values()))
        for name in set(reads):
            readers[name] -= 1
        for name in (*set(reads), *gives):
            if readers[name] <= 0:
                alive.pop(name, None)
    return peak


def sort_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts, the largest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def shorten(text: str, *, limit: int = 120) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
