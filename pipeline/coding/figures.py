"""What codes cost beside what the symbols hold: of each tensor, in bits an element.

The cost of a code is the cross entropy H(p, q) of what it was made for; KL(p||q) = H(p, q) - H(p)
is what it wastes. Shown are the codes of other distributions too: of all tensors together, of the
file's largest tensor, and of a Laplace distribution.

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
    from pipeline.coding.container import Packed, PackedTensor
    from pipeline.coding.distributions import Counts

_MOST_CHANNELS = 4096
# Of a tensor of one value: no byte's share may be too small for a float64.
_LEAST_DEVIATION = 0.5


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
        largest_bits: H(p, q) with the code of the largest tensor of its kind, in which each byte
            that the largest lacks counts as one that it has once: none would be without a code.
        laplace_bits: H(p, q) with the code of the Laplace distribution whose median and mean
            absolute deviation are the tensor's; None of what is not int8 or uint8.
    """

    elements: int
    entropy_bits: float
    given_channel_bits: float | None
    stored_bits: float
    shared_bits: float
    divergence_bits: float
    largest_bits: float
    laplace_bits: float | None

    @property
    def codes(self) -> dict[str, tuple[float, float] | None]:
        """What each code was made for -> H(p, q) and KL(p||q), in bits; None: it is not known.

        Of the file's own code, tables and states are counted.
        """
        costs = {
            "the tensor": self.stored_bits,
            "all tensors": self.shared_bits,
            "the largest": self.largest_bits,
            "Laplace": self.laplace_bits,
        }
        return {
            name: None if bits is None else (bits, bits - self.entropy_bits)
            for name, bits in costs.items()
        }


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
    largest: dict[tuple[str, int], _Tensor] = {}
    for tensor in sorted(tensors, key=lambda one: len(one.elements)):
        largest[tensor.kind] = tensor
    return tuple(
        _figures(tensor, shared[tensor.kind], largest[tensor.kind], packed_tensor)
        for tensor, packed_tensor in zip(tensors, packed.tensors, strict=True)
    )


def _figures(
    tensor: _Tensor, shared: Counts, largest: _Tensor, packed: PackedTensor
) -> CodingFigures:
    held = _entropy(tensor.counts)
    crossed = _cost(tensor, shared)
    return CodingFigures(
        elements=len(tensor.elements),
        entropy_bits=held,
        given_channel_bits=_given_channel(tensor),
        stored_bits=8 * packed.stored_bytes / len(tensor.elements),
        shared_bits=crossed,
        divergence_bits=max(0.0, crossed - held),
        largest_bits=_cost(tensor, np.maximum(largest.counts, 1)),
        laplace_bits=_laplace(tensor, packed.weights.dtype),
    )


def _cost(tensor: _Tensor, code: Counts) -> float:
    """Return H(p, q) of a tensor's symbols, byte by byte of an element."""
    return sum(
        cross_entropy(mine, theirs) for mine, theirs in zip(tensor.counts, code, strict=True)
    )


def _laplace(tensor: _Tensor, dtype: str) -> float | None:
    """Return H(p, q) with q in proportion to exp(-|x - median| / mean absolute deviation)."""
    if dtype not in ("int8", "uint8"):
        return None
    (counts,) = tensor.counts
    values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    order = np.argsort(values)
    half = np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)
    far = np.abs(values - values[order][half])
    deviation = max(float(far @ counts) / float(counts.sum()), _LEAST_DEVIATION)
    return cross_entropy(counts, np.exp(-far / deviation))


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
