"""Once-for-all on a Samsung Note 10: the authors' latency table and accuracy predictor.

Cai et al., "Once-for-All" (2020), MobileNetV3 at width 1.2: five stages of two to four layers, each
layer with a kernel and an expansion, and the resolution. Latencies are sums of measured operators
(`ofa_lut_note10.csv`), accuracies are *predicted* by a network of three hidden layers
(`ofa_acc_predictor.npz`) and lie about 3.5 points above the top-1 of the published networks.

Not a table of points: there are 1e19 of them. `Bed` computes both numbers for a batch of networks.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from device_agents import bounded
from device_agents.errors import ConfigError
from pipeline.search.recorded import arrays, numbers
from pipeline.search.space.decisions import Decision, DecisionSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.search.api import Choices

    Floats = npt.NDArray[np.float64]

KERNELS, EXPANSIONS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
RESOLUTIONS = (160, 176, 192, 208, 224)
STAGES, DEEPEST = 5, 4
LAYERS = STAGES * DEEPEST

_WIDTHS = (24, 32, 48, 96, 136, 192)  # stem, then stages
_STRIDES = (2, 2, 2, 1, 2)
_SQUEEZED = (0, 1, 0, 1, 1)
_HARD_SWISH = (0, 0, 1, 1, 1)
# The predictor knows 112 to 224 in steps of 16, of which the table has the last five.
_PREDICTOR_INPUTS, _FIRST_RESOLUTION = 128, 3


@dataclass(frozen=True, slots=True)
class Net:
    """A network: option indices, those of layers left out 0.

    Attributes:
        kernels: of 20 layers, into `KERNELS`.
        expansions: of 20 layers, into `EXPANSIONS`.
        depths: of 5 stages, into `DEPTHS`.
        resolution: into `RESOLUTIONS`.
    """

    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    depths: tuple[int, ...]
    resolution: int

    def __str__(self) -> str:
        stages = [
            ",".join(
                f"k{KERNELS[self.kernels[i]]}e{EXPANSIONS[self.expansions[i]]}"
                for i in range(stage * DEEPEST, stage * DEEPEST + DEPTHS[depth])
            )
            for stage, depth in enumerate(self.depths)
        ]
        return f"{RESOLUTIONS[self.resolution]}|{'|'.join(stages)}"


@dataclass(frozen=True)
class OFANote10Space(DecisionSpace[Net]):
    """46 decisions: 20 kernels, 20 expansions, 5 depths and the resolution."""

    name: ClassVar[str] = "ofa_note10"

    @cached_property
    def all_decisions(self) -> tuple[Decision, ...]:
        """Kernels, expansions, depths, resolution."""
        return (
            *(Decision(f"kernel{i}", KERNELS) for i in range(LAYERS)),
            *(Decision(f"expansion{i}", EXPANSIONS) for i in range(LAYERS)),
            *(Decision(f"depth{i}", DEPTHS) for i in range(STAGES)),
            Decision("resolution", RESOLUTIONS),
        )

    def decode(self, choices: Choices) -> Net:
        """Return the network; layers beyond a stage's depth make no difference."""
        self.chosen(choices)  # raises where it is no choice vector
        kernels, expansions = list(choices[:LAYERS]), list(choices[LAYERS : 2 * LAYERS])
        depths = choices[2 * LAYERS : -1]
        for stage, depth in enumerate(depths):
            for i in range(stage * DEEPEST + DEPTHS[depth], (stage + 1) * DEEPEST):
                kernels[i] = expansions[i] = 0
        return Net(tuple(kernels), tuple(expansions), tuple(depths), choices[-1])

    def choices(self, spec: Net) -> Choices:
        """Return the choice vector with 0 for layers left out."""
        found = (*spec.kernels, *spec.expansions, *spec.depths, spec.resolution)
        if self.decode(found) != spec:
            raise ValueError(f"{spec} is not in the space {self.name!r}")
        return found


@dataclass(frozen=True, slots=True)
class Bed:
    """The two models.

    Attributes:
        fixed_ms: what does not depend on the layers, (5,) resolutions.
        layer_ms: (5, 20, 3, 3): resolution, layer, kernel, expansion.
        weights: of the predictor, layer by layer: matrix (out, in) and bias (out,).
    """

    fixed_ms: Floats
    layer_ms: Floats
    weights: tuple[tuple[Floats, Floats], ...]

    def latency_ms(self, nets: Sequence[Net]) -> Floats:
        """Return the latencies on the Note 10, (N,)."""
        kernels, expansions, active, resolution = _arrays(nets)
        layers = self.layer_ms[resolution[:, None], np.arange(LAYERS), kernels, expansions]
        total: Floats = self.fixed_ms[resolution] + (layers * active).sum(axis=1)
        return total

    def accuracy(self, nets: Sequence[Net]) -> Floats:
        """Return the predicted top-1, 0..1, (N,)."""
        kernels, expansions, active, resolution = _arrays(nets)
        count = len(nets)
        x = np.zeros((count, _PREDICTOR_INPUTS))
        one_hot = np.eye(3)
        half = LAYERS * 3
        x[:, :half] = (one_hot[kernels] * active[:, :, None]).reshape(count, half)
        x[:, half : 2 * half] = (one_hot[expansions] * active[:, :, None]).reshape(count, half)
        x[np.arange(count), 2 * half + _FIRST_RESOLUTION + resolution] = 1.0
        for matrix, bias in self.weights[:-1]:
            x = np.maximum(x @ matrix.T + bias, 0.0)
        matrix, bias = self.weights[-1]
        predicted: Floats = (x @ matrix.T + bias)[:, 0]
        return predicted


def load(folder: Path) -> Bed:
    """Read the table and the predictor.

    Raises:
        ConfigError: a file cannot be read, or the table lacks an operator of the space.
    """
    table, predictor = folder / "ofa_lut_note10.csv", folder / "ofa_acc_predictor.npz"
    found = arrays(predictor, "Once-for-all's accuracy predictor")
    weights = tuple(_layer(found, index, predictor) for index in (0, 2, 4, 6))
    text = bounded.read_text(table, limit_bytes=bounded.JSON_BYTES)
    fixed_ms, layer_ms = _tables(list(csv.DictReader(text.splitlines())))
    return Bed(fixed_ms, layer_ms, weights)


def load_published(folder: Path, name: str) -> Net:
    """Return a network of the authors by name; it must be of this space.

    Raises:
        ConfigError: no such network, or it is of another space.
    """
    text = bounded.read_text(folder / "ofa_specialized.json", limit_bytes=bounded.JSON_BYTES)
    nets = bounded.json_value(text)
    found = next((net for net in nets if net["name"] == name), None)
    if found is None:
        raise ConfigError(
            f"no published network {name!r}; have {', '.join(n['name'] for n in nets)}"
        )
    stages: list[list[dict[str, int]]] = []
    for block in found["blocks"][1:]:
        if not block["skip"]:  # a stage begins where there is no identity
            stages.append([])
        stages[-1].append(block)
    if [stage[0]["o"] for stage in stages] != list(_WIDTHS[1:]):
        raise ConfigError(f"the network {name!r} has other widths than the Note 10 space")
    kernels, expansions = [0] * LAYERS, [0] * LAYERS
    try:
        for stage, blocks in enumerate(stages):
            for layer, block in enumerate(blocks, stage * DEEPEST):
                kernels[layer] = KERNELS.index(block["k"])
                expansions[layer] = EXPANSIONS.index(block["e"])
        depths = tuple(DEPTHS.index(len(blocks)) for blocks in stages)
        resolution = RESOLUTIONS.index(found["res"])
    except (ValueError, IndexError) as error:
        raise ConfigError(f"the network {name!r} is not of the Note 10 space: {error}") from error
    return Net(tuple(kernels), tuple(expansions), depths, resolution)


def _arrays(nets: Sequence[Net]) -> tuple[npt.NDArray[np.int64], ...]:
    """Return kernels, expansions and whether a layer is there, (N, 20), and resolutions, (N,)."""
    rows = np.array([(*n.kernels, *n.expansions, *n.depths, n.resolution) for n in nets], np.int64)
    depths = np.array(DEPTHS)[rows[:, 2 * LAYERS : -1]]  # (N, 5)
    active = (np.arange(DEEPEST) < depths[:, :, None]).reshape(len(nets), LAYERS)
    return rows[:, :LAYERS], rows[:, LAYERS : 2 * LAYERS], active.astype(np.int64), rows[:, -1]


def _layer(found: Mapping[str, Any], index: int, path: Path) -> tuple[Floats, Floats]:
    """Return matrix and bias of one layer of the predictor. Raises ConfigError."""
    names = (f"{index}.weight", f"{index}.bias")
    for name in names:
        if name not in found:
            raise ConfigError(f"{path} has no array {name!r}: no accuracy predictor")
    layer = numbers({name: found[name] for name in names}, path)
    return layer[names[0]], layer[names[1]]


def _tables(rows: list[dict[str, str]]) -> tuple[Floats, Floats]:
    """Return `Bed.fixed_ms` and `Bed.layer_ms` of the table's rows."""
    columns = ("res", "input", "output", "expand", "kernel", "stride", "idskip", "se", "hs")
    blocks = {
        tuple(row[c] for c in columns): float(row["mean_ms"])
        for row in rows
        if row["type"] == "expanded_conv"
    }

    def block(*key: object) -> float:
        try:
            return blocks[tuple(map(str, key))]
        except KeyError:
            raise ConfigError(f"the Note 10 table has no operator {key}") from None

    fixed_ms = np.zeros(len(RESOLUTIONS))
    layer_ms = np.zeros((len(RESOLUTIONS), LAYERS, len(KERNELS), len(EXPANSIONS)))
    for r, resolution in enumerate(RESOLUTIONS):
        size, width = (resolution + 1) // 2, _WIDTHS[0]
        shape = f"{size}x{size}x{width}"
        others = [row for row in rows if row["type"] != "expanded_conv"]
        fixed_ms[r] = sum(float(o["mean_ms"]) for o in others if o["res"] == str(resolution))
        fixed_ms[r] += block(resolution, shape, shape, width, 3, 1, 1, 0, 0)
        for layer in range(LAYERS):
            stage, place = divmod(layer, DEEPEST)
            stride = _STRIDES[stage] if place == 0 else 1
            out_size, out_width = (size - 1) // stride + 1, _WIDTHS[stage + 1]
            shapes = (f"{size}x{size}x{width}", f"{out_size}x{out_size}x{out_width}")
            flags = (int(place > 0), _SQUEEZED[stage], _HARD_SWISH[stage])
            for k, kernel in enumerate(KERNELS):
                for e, ratio in enumerate(EXPANSIONS):
                    key = (resolution, *shapes, round(width * ratio), kernel, stride, *flags)
                    layer_ms[r, layer, k, e] = block(*key)
            size, width = out_size, out_width
    return fixed_ms, layer_ms
