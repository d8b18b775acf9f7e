"""Weights of half or a quarter of the size, without any data: float16 or dynamic int8.

Activations stay real numbers in the file. float16 weights are turned back as a runtime loads
them; beside int8 weights it finds the scales of activations anew at every inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models.model import Model
from models.number_format import NumberFormat
from models.quantization import Quantization
from models.simplify import fold_batchnorm, fuse_activations
from pipeline.compress.op_names import find_ops

if TYPE_CHECKING:
    from pipeline.compress.api import Needs, Use


@dataclass(frozen=True, slots=True)
class SmallWeightsOptions:
    """Options of `SmallWeights`.

    Attributes:
        scheme: float16, or dynamic8.
        float_layers: layers whose weights stay float32, of dynamic8: names, or patterns such as
            ``blocks.1.*``.
    """

    scheme: Literal["float16", "dynamic8"] = "dynamic8"
    float_layers: tuple[str, ...] = ()


class SmallWeights:
    """Makes weights smaller and leaves activations real."""

    name = "small_weights"
    version = 1
    takes = Model
    uses: frozenset[Use] = frozenset()
    quantizes = True
    Options = SmallWeightsOptions

    def __init__(self, options: SmallWeightsOptions = SmallWeightsOptions()) -> None:
        self.options = options

    def apply(self, what: Model, needs: Needs) -> Model:  # noqa: ARG002  # it needs nothing
        """Return the model with the number format of its weights, which writers apply.

        Raises:
            ConfigError: no op has a name of `float_layers`.
        """
        model = fuse_activations(fold_batchnorm(what))
        chosen = NumberFormat.parse(self.options.scheme)
        float_ops = find_ops(model.graph, self.options.float_layers)
        quantization = Quantization({}, number_format=chosen, float_ops=float_ops)
        return model.with_quantization(quantization, done=f"weights as {chosen}")
