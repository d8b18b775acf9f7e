"""Channels scaled across layers, the function kept: weights of like ranges, which int8 wants.

It helps where all of a layer's weights have one scale, or few bits; a scale for each output channel
does most of it by itself. Only what is positively homogeneous carries a scale: nets of ReLUs do,
hard-swish does not, and of ReLU6 the clip would have to be scaled for each channel, which no file
can say: see `EqualizeOptions.relu6`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.channels import find_scalable
from models.codes import QuantizationError
from models.model import Model
from models.side_by_side import one_thread_each
from models.simplify import fold_batchnorm, fuse_activations
from pipeline.compress.equalizing import absorb, equalize, find_absorbing
from pipeline.compress.passes.ptq import count_samples, take_samples

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt

    from models.channels import Channels
    from pipeline.compress.api import Needs, Use

    Inputs = Mapping[str, npt.NDArray[Any]]

_SAMPLES = 256
_BATCH = 16
_CLIP = 6.0


@dataclass(frozen=True, slots=True)
class EqualizeOptions:
    """Options of `Equalize`.

    Attributes:
        relu6: ``keep`` leaves ReLU6 as they are, and channels before them unscaled; ``observed``
            makes ReLUs of those that clip no calibration sample; ``all`` of all, which changes what
            the model computes where they clip.
        absorb_bias: take mean - 3 standard deviations off channels that are never near 0, where
            the next layer can make up for it: smaller ranges. Needs calibration samples, and
            changes what the model computes below that.
    """

    relu6: Literal["keep", "observed", "all"] = "keep"
    absorb_bias: bool = False


class Equalize:
    """Brings the ranges of channels' weights close to each other."""

    name = "equalize"
    version = 1
    takes = Model
    uses: frozenset[Use] = frozenset()
    quantizes = False
    Options = EqualizeOptions

    def __init__(self, options: EqualizeOptions = EqualizeOptions()) -> None:
        self.options = options
        if options.relu6 == "observed" or options.absorb_bias:
            self.uses = frozenset({"calibration"})

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with other weights that computes the same.

        Raises:
            ConfigError: it has codes, or there are no samples and an option needs them.
            QuantizationError: samples of another shape, or weights or values that are not finite.
        """
        if what.quantization is not None:
            raise QuantizationError(
                f"equalize changes weights in real numbers, and the model is {what.number_format} "
                "already; put it before the pass that quantises"
            )
        model = fuse_activations(fold_batchnorm(what))
        _refuse_not_finite(model)
        inputs: Inputs = {}
        if self.uses:
            inputs = take_samples(self.name, model, needs, _SAMPLES)
            count_samples(model.graph, inputs)
        model, told = self._without_relu6(model, inputs)
        channels = find_scalable(model.graph)
        if not channels.groups:
            why = f"equalized nothing: {_why_none(channels)}{told}"
            return replace(what, history=(*what.history, why))
        found = equalize(model, channels)
        model = found.model
        done = (
            f"equalized {found.channels} channels in {found.groups} groups, {found.sweeps} sweeps: "
            f"a layer's largest range is {found.spread[1]:.1f} times its median at most, "
            f"{found.spread[0]:.1f} before{told}"
        )
        if self.options.absorb_bias:
            shifts = _high_biases(model, inputs)
            count = sum(int(np.count_nonzero(shift)) for shift in shifts.values())
            model = absorb(model, shifts)
            done += f"; high biases of {count} channels absorbed"
        return replace(model, history=(*what.history, done))

    def _without_relu6(self, model: Model, inputs: Inputs) -> tuple[Model, str]:
        """Return the model with ReLUs for those ReLU6 that may go, and words for it."""
        clipping = [op.name for op in model.graph.ops if op.act == "relu6"]
        if not clipping:
            return model, ""
        if self.options.relu6 == "keep":
            return model, f"; {len(clipping)} ReLU6 stay, before which nothing is scaled"
        gone = set(clipping)
        if self.options.relu6 == "observed":
            largest = _largest(model, inputs, gone)
            gone = {name for name in gone if largest[name] < _CLIP}
        ops = tuple(replace(op, act="relu") if op.name in gone else op for op in model.graph.ops)
        said = f"; {len(gone)} of {len(clipping)} ReLU6 are ReLU now"
        if self.options.relu6 == "observed":
            said += f", which clip none of {len(next(iter(inputs.values())))} samples"
        return replace(model, graph=replace(model.graph, ops=ops)), said


def _refuse_not_finite(model: Model) -> None:
    for name, arrays in model.weights.items():
        if not all(np.isfinite(array).all() for array in arrays):
            raise QuantizationError(
                f"layer {name!r} has weights or biases that are not finite, and no range to make "
                "even: take the weights from before they were damaged"
            )


def _why_none(channels: Channels) -> str:
    if not channels.pinned:
        return "no layer reads what another makes"
    first = channels.pinned[0]
    return (
        "no channel between two layers can be scaled; those of layer "
        f"{first.layer!r} stay because {first.at} {first.why}"
    )


def _observe(model: Model, inputs: Inputs, names: Collection[str], see: Any) -> None:
    """Show some tensors, (N, …, C), of all samples."""
    from models.execute import execute_all
    from models.torch_forms.axes import channels_last

    def observe(name: str, tensor: Any) -> None:
        if name in names:
            values = channels_last(tensor).numpy().astype(np.float64)
            if not np.isfinite(values).all():
                raise QuantizationError(
                    f"tensor {name!r} is not finite on the calibration images: check images and "
                    "weights"
                )
            see(name, values.reshape(-1, values.shape[-1]))

    count = count_samples(model.graph, inputs)
    with one_thread_each():
        for start in range(0, count, _BATCH):
            batch = {name: values[start : start + _BATCH] for name, values in inputs.items()}
            execute_all(model, batch, observe)


def _largest(model: Model, inputs: Inputs, names: Collection[str]) -> dict[str, float]:
    found = dict.fromkeys(names, 0.0)

    def see(name: str, rows: npt.NDArray[np.float64]) -> None:
        found[name] = max(found[name], float(rows.max()))

    _observe(model, inputs, names, see)
    return found


def _high_biases(model: Model, inputs: Inputs) -> dict[str, npt.NDArray[np.float64]]:
    """Return what each channel of layers with a ReLU is nearly always above, 0 of most.

    The paper takes it from the batch normalisation, as beta - 3 gamma; here it is what was seen.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}

    def see(name: str, rows: npt.NDArray[np.float64]) -> None:
        part = np.stack([np.full(rows.shape[1], len(rows)), rows.sum(0), np.square(rows).sum(0)])
        sums[name] = sums.get(name, np.zeros_like(part)) + part

    _observe(model, inputs, find_absorbing(model), see)
    found = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
        found[name] = np.maximum(mean - 3 * deviation, 0.0)
    return found
