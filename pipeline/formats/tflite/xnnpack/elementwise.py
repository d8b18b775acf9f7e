"""Rules of ops that go element by element, and of softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.tflite.xnnpack.view import (
    FLOATS,
    MOST_DIMS,
    View,
    is_normal,
    need,
    need_same,
    need_shape,
    need_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def take_unary(*types: str, into: tuple[str, ...] = ()) -> Callable[[View], None]:
    """Return the check of an op of one input; `into` are types of its output, `types` if empty."""

    def rule(view: View) -> None:
        view.need_counts((1,))
        need_shape(view.input(0), 0, MOST_DIMS)
        need_type(view.input(0), *types)
        need_type(view.output, *(into or types))

    return rule


def take_leaky_relu(view: View) -> None:
    """Check LEAKY_RELU."""
    take_unary(*FLOATS, "q8")(view)
    alpha = view.options.alpha
    need(is_normal(abs(alpha)), f"its slope is {alpha:g}")
    source, output = view.input(0), view.output
    if source.dtype in FLOATS or output.dtype in FLOATS:
        return
    positive = source.scales[0] / output.scales[0]
    negative = positive * alpha
    met = 1 / 256 <= positive <= 128 and -127.99609375 <= negative <= 128
    need(met and abs(negative) >= 1 / 256, "the ratio of its scales is out of range")


def take_quantize(view: View) -> None:
    """Check QUANTIZE: from floats, or to other parameters of the same type."""
    take_unary(*FLOATS, "q8")(view)
    source, output = view.input(0), view.output
    if source.dtype in FLOATS:
        return
    need_same(source, output)
    ratio = source.scales[0] / output.scales[0]
    need(1 / 256 <= ratio <= 128, f"the ratio {ratio:.3g} of its scales is out of range")


def take_binary(view: View) -> None:
    """Check an op of two float inputs."""
    _need_pair(view, *FLOATS)
    view.need_fused()


def take_sum(view: View) -> None:
    """Check ADD and SUB."""
    _need_pair(view, *FLOATS, "q8")
    for place in (0, 1):
        need_same(view.input(place), view.output)
        view.need_ratio((place,), 2.0**-10, 256.0)
    view.need_fused()


def take_product(view: View) -> None:
    """Check MUL."""
    _need_pair(view, *FLOATS, "q8")
    need_same(view.input(0), view.input(1))
    need_same(view.input(0), view.output)
    view.need_ratio((0, 1), 2.0**-16, 256.0)
    view.need_fused()


def take_prelu(view: View) -> None:
    """Check PRELU."""
    _need_pair(view, *FLOATS)
    view.need_fixed(1, "slopes")


def take_softmax(view: View) -> None:
    """Check SOFTMAX."""
    beta = view.options.beta
    need(beta == 1.0, f"its beta is {beta:g}")
    view.need_counts((1,))
    need_type(view.input(0), *FLOATS)
    need_type(view.output, *FLOATS)


def _need_pair(view: View, *types: str) -> None:
    view.need_counts((2,))
    for place in (0, 1):
        need_shape(view.input(place), 0, MOST_DIMS)
    for tensor in (view.input(0), view.input(1), view.output):
        need_type(tensor, *types)
