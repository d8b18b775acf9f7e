"""The window that convolutions and pools move over a map: where it stands and what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window and its steps; pairs are (down, across).

    Attributes:
        kernel: height and width of the window.
        stride: its step.
        padding: zeros (top, bottom, left, right); minus infinity for a max pool.
        dilation: distance of the positions that the window reads; 1 if they touch.
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    @property
    def key(self) -> str:
        """Return the window as a part of an op's key; dilation only where there is any."""
        return window_key(self)

    @property
    def reach(self) -> Pair:
        """Return the height and width that the window covers, gaps included."""
        (height, width), (down, across) = self.kernel, self.dilation
        return (height - 1) * down + 1, (width - 1) * across + 1

    def positions(self, height: int, width: int) -> Pair:
        """Return how many rows and columns of windows a map has.

        Raises:
            ValueError: the window is none, or the map has no room for it; says why.
        """
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError(f"has the window {self.key}, whose numbers cannot all be")
        top, bottom, left, right = self.padding
        rows = (height + top + bottom - self.reach[0]) // self.stride[0] + 1
        columns = (width + left + right - self.reach[1]) // self.stride[1] + 1
        if rows < 1 or columns < 1:
            raise ValueError(f"has the window {self.key}, which a {height}x{width} map cannot hold")
        return rows, columns

    def same_padding(self, height: int, width: int) -> Padding:
        """Return the padding that TensorFlow's SAME gives this window on a map."""
        top, bottom = same_margins(height, self.reach[0], self.stride[0])
        left, right = same_margins(width, self.reach[1], self.stride[1])
        return top, bottom, left, right

    def over(self, x: Array, outside: float) -> Iterator[tuple[int, int, Array]]:
        """Yield (row, column, what all windows read there) of a map (N, H, W, C).

        Args:
            x: the map.
            outside: the value of padding.
        """
        rows, columns = self.positions(*x.shape[1:3])
        top, bottom, left, right = self.padding
        margins = ((0, 0), (top, bottom), (left, right), (0, 0))
        padded = np.pad(x, margins, constant_values=outside) if any(self.padding) else x
        down, across = self.stride
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                y, x_ = i * self.dilation[0], j * self.dilation[1]
                last_y, last_x = y + (rows - 1) * down + 1, x_ + (columns - 1) * across + 1
                yield i, j, padded[:, y:last_y:down, x_:last_x:across]


def window_key(window: Window) -> str:
    """Return a window as `k3s2p0.1.0.1`, sides that differ as `k3x5`, dilation as `d2`."""
    padding = ".".join(map(str, window.padding))
    key = f"k{_pair(window.kernel)}s{_pair(window.stride)}p{padding}"
    return key if window.dilation == (1, 1) else f"{key}d{_pair(window.dilation)}"


def same_margins(size: int, reach: int, stride: int) -> Pair:
    """Return the zeros before and after of TensorFlow's SAME: ceil(size / stride) outputs."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _pair(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
