"""A network of cells with several candidates each, of which one is active at a time.

ProxylessNAS (Cai et al. 2019) calls it a binarised super-network: in every cell a one-hot gate g
picks one path, m(x) = sum_j g_j o_j(x), so training costs the time and memory of one network. To
learn which path is best one needs dL/dg_j of the paths that were *not* taken too, and

    dL/dg_j = <dL/dm, o_j(x)>,

for which o_j(x) is recomputed from the cell's input without a graph: the memory is still that of
one path, the time grows with the number of paths asked for (the authors' `full_v2`).

A candidate is a list of blocks; the empty one is the authors' Zero, for a cell whose shortcut is
all that remains. Shortcuts are part of our blocks, while the authors add them behind the mixture.
That makes no difference to the architecture's gradient: the shortcut adds the same number to every
dL/dg_j, and what is the same for all paths moves no probability.

Beyond the paper, the candidates of a cell start alike: the smaller ones as parts of the largest,
as in a Once-for-all network (Cai et al. 2020), the middle of its kernel and the first of its
channels. Cells then understand each other from the start, whichever paths are drawn. With
independent weights the loss of a small net on 1,078 images was 2.2 after six epochs, that of
guessing being 2.3; with these it was 1.7. Their training is independent as in the paper.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.build import build
from models.network import Network
from models.spec import ArchSpec, Block, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.spec import Dense

Candidate = tuple[Block, ...]


class PathNet(nn.Module):
    """All candidates of all cells, followed by pooling and dense layers that they share.

    Args:
        input: height, width, channels of an image.
        cells: the candidates of each cell in the order of the chain; a cell with one candidate is
            a fixed part. All candidates of a cell must give the same shape.
        dense: the layers after pooling.
        padding: as in `models.spec`.
        generator: source of the initial weights; torch's global one if None.

    Raises:
        SpecError: a network of the cells cannot exist, or the paths of a cell differ in shape.
    """

    def __init__(
        self,
        input: tuple[int, int, int],  # noqa: A002 - the word that specs use
        cells: Sequence[Sequence[Candidate]],
        dense: tuple[Dense, ...],
        padding: str = "same",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.input, self.dense_layers, self.padding = input, dense, padding
        self.candidates = tuple(tuple(cell) for cell in cells)
        _check(input[2], self.candidates)
        self.active = (0,) * len(self.candidates)
        # Built as plain networks, so that weights start as those of a network trained alone.
        columns = [
            build(
                self.spec([min(j, len(cell) - 1) for cell in self.candidates]), generator=generator
            )
            for j in range(max(map(len, self.candidates)))
        ]
        self.cells = nn.ModuleList()
        starts = [0] * len(columns)
        for cell in self.candidates:
            paths = nn.ModuleList()
            for j, column in enumerate(columns):
                length = len(cell[min(j, len(cell) - 1)])
                if j < len(cell):
                    paths.append(column.blocks[starts[j] : starts[j] + length])
                starts[j] += length
            _start_alike(paths)
            self.cells.append(paths)
        self.head = columns[0]
        self.head.blocks = nn.Sequential()

    def spec(self, choices: Sequence[int]) -> ArchSpec:
        """Return the network that takes one candidate in each cell."""
        chosen = zip(self.candidates, choices, strict=True)
        blocks = tuple(block for cell, choice in chosen for block in cell[choice])
        return ArchSpec(self.input, blocks, self.dense_layers, self.padding)

    def select(self, choices: Sequence[int]) -> None:
        """Make one path of each cell the active one."""
        self.active = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes) along the active paths."""
        for paths, choice in zip(self.cells, self.active, strict=True):
            x = paths[choice](x)  # type: ignore[index] # torch types ModuleList's items as Module
        logits: Tensor = self.head(x)
        return logits

    def active_parameters(self) -> list[nn.Parameter]:
        """Return the weights on the active paths."""
        modules = [p[c] for p, c in zip(self.cells, self.active, strict=True)]  # type: ignore[index]
        return [w for module in (*modules, self.head) for w in module.parameters()]

    def gate_gradients(
        self, x: Tensor, loss: Callable[[Tensor], Tensor], paths: Sequence[Sequence[int]]
    ) -> tuple[float, list[list[float]]]:
        """Return the loss along the active paths and dL/dg_j of the paths asked for in each cell.

        Weights and running statistics stay as they are; batch normalisation uses the batch's own
        statistics, in training as in the weight steps.

        Args:
            x: images (N, C, H, W).
            loss: logits (N, classes) -> loss.
            paths: candidate indices of each cell; none for a cell whose gradient is not wanted.
        """
        self.train()
        x = x.detach().requires_grad_()
        inputs, outputs = [], []
        with _untouched_statistics(self):
            for candidates, choice in zip(self.cells, self.active, strict=True):
                inputs.append(x)
                x = candidates[choice](x)  # type: ignore[index]
                outputs.append(x)
            value = loss(self.head(x))
            gradients = torch.autograd.grad(value, outputs)
            with torch.no_grad():
                found = [
                    [
                        float(torch.vdot(gradient.flatten(), self._output(at, j, inputs, outputs)))
                        for j in wanted
                    ]
                    for at, (gradient, wanted) in enumerate(zip(gradients, paths, strict=True))
                ]
        return float(value.detach()), found

    def network(self, choices: Sequence[int]) -> Network:
        """Return one network with a copy of its weights, in evaluation mode."""
        spec = self.spec(choices)
        module = build(spec, generator=torch.Generator())
        chosen = [paths[c] for paths, c in zip(self.cells, choices, strict=True)]  # type: ignore[index]
        blocks = [block for path in chosen for block in path]
        own = nn.Module()
        own.blocks, own.dense = nn.Sequential(*blocks), self.head.dense
        module.load_state_dict(own.state_dict())
        return Network(spec, module.eval(), ("one path of a super-network",))

    def _output(
        self, cell: int, path: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Tensor:
        """Return the flat output of a path, recomputed unless it is the active one."""
        if path == self.active[cell]:
            return outputs[cell].flatten()
        result: Tensor = self.cells[cell][path](inputs[cell])  # type: ignore[index]
        return result.flatten()


@contextmanager
def _untouched_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def _start_alike(paths: nn.ModuleList) -> None:
    """Give every weight of a path the values of the largest path's, cut to its own shape."""
    own = [dict(path.named_parameters()) for path in paths]
    for name in dict.fromkeys(name for parameters in own for name in parameters):
        weights = [parameters[name] for parameters in own if name in parameters]
        largest = max(weights, key=lambda weight: weight.numel())
        for weight in weights:
            if all(a <= b for a, b in zip(weight.shape, largest.shape, strict=True)):
                weight.copy_(largest[_middle(weight.shape, largest.shape)].clone())


def _middle(shape: Sequence[int], of: Sequence[int]) -> tuple[slice, ...]:
    """Return the first channels (dimensions 0 and 1) and the middle of the window (2 and 3)."""
    starts = [
        (b - a) // 2 if axis > 1 else 0 for axis, (a, b) in enumerate(zip(shape, of, strict=True))
    ]
    return tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))


def _check(channels: int, cells: Sequence[Sequence[Candidate]]) -> None:
    for index, cell in enumerate(cells):
        shapes = {
            (blocks[-1].out if blocks else channels, math.prod(b.stride for b in blocks))
            for blocks in cell
        }
        if len(shapes) != 1:
            given = ", ".join(f"{out} channels at step {step}" for out, step in sorted(shapes))
            raise SpecError(
                f"cell {index} gives {given or 'no candidate'}; all candidates of a cell must "
                "give the same width and step, since any of the next cell's may follow"
            )
        channels = shapes.pop()[0]
