"""What a log says about delegates: who runs how many nodes. The name counts, not only the share.

With two delegates the second counts the nodes that the first left over, so the share is taken of
the nodes that the first one saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_REPLACING = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^()]*)\) node, yielding (\d+) "
    r"partitions(?: for (?:subgraph (\d+)|the whole graph))?"
)
_APPLIED = (
    (
        "full",
        re.compile(
            r"Explicitly applied (\S+) delegate, and the model graph will be completely executed"
        ),
    ),
    (
        "partial",
        re.compile(
            r"Explicitly applied (\S+) delegate, and the model graph will be partially executed by "
            r"the delegate(?: w/ (\d+) delegate kernels)?"
        ),
    ),
    (
        "none",
        re.compile(
            r"Though (\S+) delegate is explicitly applied, the model graph will not be executed"
        ),
    ),
)
_SPLIT = re.compile(
    r"(\d{1,9}) operations will run on the (\w{1,40}), and the remaining (\d{1,9}) operations will "
    r"run on the C"
)
_CREATED = re.compile(r"Created TensorFlow Lite (?:(\S+) delegate for CPU|delegate for (\S+?)\.)")
_REFUSED_HEAD = re.compile(r"Following operations are not supported by .* delegate:")
_REFUSED = re.compile(r"[A-Z][A-Z0-9_]+: \S.*")

_SHORT = {
    "TfLiteXNNPackDelegate": "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteNnapiDelegate": "NNAPI",
}

Extent = Literal["full", "partial", "none"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """`replaced` of `nodes` nodes of a subgraph go to a delegate; its own cut is `partitions`."""

    delegate: str
    replaced: int
    nodes: int
    partitions: int
    subgraph: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What the tool says after applying a delegate; `kernels` is None when it does not count."""

    delegate: str
    extent: Extent
    kernels: int | None = None


@dataclass(frozen=True, slots=True)
class Delegation:
    """Everything a run says about delegates.

    Attributes:
        replacements: per delegate and subgraph, in the order printed.
        applied: per delegate that was asked for.
        split: operations on the accelerator, and left on the CPU.
        created: delegates that were made; being made does not mean being used.
        refused: ops that a delegate does not take, with its words.
    """

    replacements: tuple[Replacement, ...] = ()
    applied: tuple[Applied, ...] = ()
    split: tuple[str, int, int] | None = None
    created: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def delegate(self) -> str:
        """Names of the delegates that run something, joined by `+`; empty: none, or not told."""
        names = [item.delegate for item in self.replacements if item.replaced]
        names += [item.delegate for item in self.applied if item.extent != "none"]
        names += [self.split[0]] if self.split and self.split[1] else []
        silent = {item.delegate for item in self.applied if item.extent == "none"}
        if not names:
            # A default delegate is applied without a word.
            names = [name for name in self.created if name not in silent]
        return "+".join(dict.fromkeys(names))

    @property
    def share(self) -> float | None:
        """Share of the nodes that delegates run, 0 to 1; None when the log does not tell."""
        if self.replacements:
            nodes: dict[int, int] = {}
            taken: dict[int, int] = {}
            for item in self.replacements:
                nodes.setdefault(item.subgraph, item.nodes)
                taken[item.subgraph] = taken.get(item.subgraph, 0) + item.replaced
            total = sum(nodes.values())
            return sum(min(taken[key], nodes[key]) for key in nodes) / total if total else None
        extents = {item.extent for item in self.applied}
        if "full" in extents:
            return 1.0
        if self.split:
            return self.split[1] / max(1, self.split[1] + self.split[2])
        return 0.0 if extents == {"none"} else None

    @property
    def partitions(self) -> int | None:
        """Number of delegate kernels; None when the log does not tell."""
        kernels = [item.kernels for item in self.applied if item.kernels is not None]
        if kernels:
            return sum(kernels)
        if self.share == 1.0:
            return 1
        return 0 if self.share == 0.0 else None

    def __str__(self) -> str:
        if self.share == 0.0:
            tried = [item.delegate for item in self.applied]
            return f"none ({', '.join(tried)} was asked for)"
        if not self.delegate:
            return "not told"
        if self.share is not None:
            return f"{self.delegate} {self.share:.0%}"
        return f"{self.delegate}, share not told"


class Reader:
    """Collects the delegate lines of one run."""

    def __init__(self) -> None:
        self._replacements: list[Replacement] = []
        self._applied: list[Applied] = []
        self._split: tuple[str, int, int] | None = None
        self._created: list[str] = []
        self._refused: list[str] = []
        self._listing = False

    def feed(self, line: str) -> None:
        """Take one bare line."""
        if _REFUSED_HEAD.match(line):
            self._listing = True
            return
        if self._listing and _REFUSED.fullmatch(line):
            self._refused.append(line)
            return
        self._listing = False
        if found := _REPLACING.search(line):
            replaced, nodes, name, partitions, subgraph = found.groups()
            self._replacements.append(
                Replacement(
                    _SHORT.get(name, name),
                    int(replaced),
                    int(nodes),
                    int(partitions),
                    int(subgraph or 0),
                )
            )
        elif found := _CREATED.search(line):
            self._created.append(found[1] or found[2])
        elif found := _SPLIT.search(line):
            self._split = (found[2], int(found[1]), int(found[3]))
        else:
            self._feed_applied(line)

    def _feed_applied(self, line: str) -> None:
        for extent, form in _APPLIED:
            if found := form.search(line):
                kernels = found.groups()[1] if extent == "partial" else None
                self._applied.append(
                    Applied(found[1], extent, int(kernels) if kernels else None)  # type: ignore[arg-type]
                )

    def result(self) -> Delegation:
        """Return what was collected."""
        return Delegation(
            tuple(self._replacements),
            tuple(self._applied),
            self._split,
            tuple(dict.fromkeys(self._created)),
            tuple(dict.fromkeys(self._refused)),
        )
