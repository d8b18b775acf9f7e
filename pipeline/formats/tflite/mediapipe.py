"""MediaPipe's own transposed convolution, which XNNPACK computes and LiteRT has no kernel for.

It has its bias beside its weight, its input first, and no output size: with the padding SAME that
is the input's times the steps. Its options are a C struct in host order: TfLiteTransposeConvParams.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.window import Pair

DECONV = "Convolution2DTransposeBias"

_PARAMS = struct.Struct("<iii")
_SAME, _VALID = 1, 2


@dataclass(frozen=True, slots=True)
class DeconvOptions:
    """How it moves: `same` is whether its padding is SAME, `stride` is (down, across)."""

    same: bool
    stride: Pair

    def output_size(self, size: Pair, kernel: Pair) -> Pair:
        """Return the (height, width) that it makes of such a map."""
        down, across = self.stride
        if self.same:
            return size[0] * down, size[1] * across
        return (size[0] - 1) * down + kernel[0], (size[1] - 1) * across + kernel[1]


def deconv_options(content: bytes) -> DeconvOptions | None:
    """Read the options of an op; None if they are none of such an op."""
    if len(content) < _PARAMS.size:
        return None
    padding, across, down = _PARAMS.unpack_from(content)
    if padding not in (_SAME, _VALID) or min(across, down) < 1:
        return None
    return DeconvOptions(padding == _SAME, (down, across))
