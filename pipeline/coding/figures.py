"""What a code costs beside what the symbols hold: of each tensor, in bits an element.

An element of one byte is a symbol. Of wider ones the place among the values is, where there are at
most 256, else each of their bytes for itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.coding.distributions import count_bytes, cross_entropy, entropy
from pipeline.coding.pieces import few_values

if TYPE_CHECKING:
    import numpy.typing as npt

    from device_agents.model_files.weights import Weights
    from pipeline.coding.container import Packed
    from pipeline.coding.distributions import Counts

_MOST_CHANNELS = 4096


@dataclass(frozen=True, slots=True)
class CodingFigures:
    """Of a tensor, bits an element.

    Attributes:
        elements: how many; of types of less than a byte, the bytes.
        entropy_bits: H(p) of its symbols, each for itself.
        given_channel_bits: the same with the channel known, of the axis where that is less; it is
            too small where channels have few elements. None: it has no axes.
        stored_bits: what it takes in the packed file, tables counted.
        shared_bits: H(p, q): with one code for all tensors of its kind in the file.
        divergence_bits: KL(p||q) = H(p, q) - H(p): what the code of another distribution wastes.
    """

    elements: int
    entropy_bits: float
    given_channel_bits: float | None
    stored_bits: float
    shared_bits: float
    divergence_bits: float


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor's elements, as the indices of its values or as they are, and its symbols' counts."""

    kind: tuple[str, int]
    elements: npt.NDArray[Any]
    dims: tuple[int, ...]
    counts: Counts


def coding_figures(content: bytes, packed: Packed) -> tuple[CodingFigures, ...]:
    """Return the figures of each tensor of a file that was packed."""
    tensors = [_tensor(content, packed_tensor.weights) for packed_tensor in packed.tensors]
    shared: dict[tuple[str, int], Counts] = {}
    for tensor in tensors:
        shared[tensor.kind] = tensor.counts + shared.get(tensor.kind, np.zeros_like(tensor.counts))
    return tuple(
        _figures(tensor, shared[tensor.kind], packed_tensor.stored_bytes)
        for tensor, packed_tensor in zip(tensors, packed.tensors, strict=True)
    )


def _figures(tensor: _Tensor, shared: Counts, stored_bytes: int) -> CodingFigures:
    held = _entropy(tensor.counts)
    pairs = zip(tensor.counts, shared, strict=True)
    crossed = sum(cross_entropy(mine, every) for mine, every in pairs)
    return CodingFigures(
        elements=len(tensor.elements),
        entropy_bits=held,
        given_channel_bits=_given_channel(tensor),
        stored_bits=8 * stored_bytes / len(tensor.elements),
        shared_bits=crossed,
        divergence_bits=max(0.0, crossed - held),
    )


def _tensor(content: bytes, weights: Weights) -> _Tensor:
    data = content[weights.offset : weights.offset + weights.size]
    elements = np.frombuffer(data, f"<u{weights.width}")
    values = few_values(elements) if weights.width > 1 else None
    kind = "bytes"
    if values is not None:
        elements, kind = np.searchsorted(values, elements).astype(np.uint8), "values"
    return _Tensor((kind, weights.width), elements, weights.dims, _counts(elements))


def _counts(elements: npt.NDArray[Any]) -> Counts:
    """Return counts of each byte of the elements, (bytes, 256)."""
    planes = np.ascontiguousarray(elements).view(np.uint8).reshape(elements.size, -1).T
    return np.stack([*map(count_bytes, planes)])


def _entropy(counts: Counts) -> float:
    return sum(map(entropy, counts))


def _given_channel(tensor: _Tensor) -> float | None:
    """Return the mean entropy of channels, of the first or the last axis; None: it has none."""
    dims = tensor.dims
    if len(dims) < 2 or len(tensor.elements) != math.prod(dims):
        return None
    ways = (tensor.elements.reshape(dims[0], -1), tensor.elements.reshape(-1, dims[-1]).T)
    means = [
        sum(_entropy(_counts(row)) for row in rows) / len(rows)
        for rows in ways
        if len(rows) <= _MOST_CHANNELS
    ]
    return min(means, default=None)
