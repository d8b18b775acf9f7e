"""Quantisation-aware training: a network trained while it computes as its codes will.

It begins as post-training quantisation ends, with the same scales, and learns from the truths, from
the model as it came (its teacher), or from both. A share of the samples is held out: where the
trained codes are no better on them than those of `ptq`, the latter are kept. See docs/qat.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from device_agents.api import Failure
from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from device_agents.plural import number_of
from models.codes import QuantizationError
from models.fake_quantized import FakeQuantized, Scales
from models.model import Model
from models.number_format import NumberFormat
from models.simplify import prepare_for_codes
from pipeline.compress.layer_codes import FULL_BITS
from pipeline.compress.passes.ptq import PTQ, PTQOptions
from pipeline.compress.quantize import refuse_codes, slow_as_codes
from pipeline.compress.zeros import Zeros
from pipeline.data.task import score_outputs
from pipeline.train.balance import balance_gradients
from pipeline.train.fit import FitOptions, fit, measure_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pipeline.compress.api import Lessons, Needs, Use


_AT_ONCE = 64
"""Samples that are judged in one forward pass."""

_LEAST = 2
"""Samples to learn from, and to judge by."""


@dataclass(frozen=True, slots=True)
class QATOptions(FitOptions):
    """Options of `QAT`.

    Attributes:
        epochs: how often every sample is seen.
        batch_size: samples of a step.
        learning_rate: the highest; it warms up for a fifth of the steps, then falls to 0.
        weight_decay: pull of weights to zero; not of biases and of normalisation.
        label_smoothing: share of a truth that goes to all classes alike.
        distillation: weight of imitating the teachers, where there are any, beside the truths;
            without truths they alone are imitated.
        temperature: of the softmax that is imitated.
        features: names of ops whose outputs are to be like the teachers' of the same names.
        feature_weight: of that, beside the rest.
        augment: strength of random rotation, scaling and shift, where the only input is a picture.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for an accelerator where there is one.
        scheme: static8, or static16x8 with int16 activations.
        images: how many samples to calibrate on, as of `ptq`.
        float_layers: ops to stay in float32: names, or patterns such as ``blocks.1.*``.
        weight_bits: of a weight's code, as of `ptq`; its scales stay as calibrated below 8 bits.
        per_tensor: one scale for each layer's weight, as of `ptq`, which stays as calibrated.
        bn: ``folded`` trains layers with batch normalisation folded into them; ``frozen`` trains
            its scale and shift beside the layers, with its statistics as they are.
        scales: of activations: ``fixed`` as they were calibrated, or ``learnt``.
        held_out: share of the samples that is not learnt from, and decides.
    """

    epochs: int = field(default=2, metadata=bounds(low=1, high=100_000))
    learning_rate: float = field(default=0.005, metadata=bounds(above=0, high=100))
    scheme: Literal["static8", "static16x8"] = "static8"
    images: int = field(default=256, metadata=bounds(low=1))
    float_layers: tuple[str, ...] = ()
    weight_bits: int = field(default=FULL_BITS, metadata=bounds(low=2, high=FULL_BITS))
    per_tensor: bool = False
    bn: Literal["folded", "frozen"] = "folded"
    scales: Scales = "fixed"
    held_out: float = field(default=0.2, metadata=bounds(above=0, high=0.9))


class QAT:
    """Trains a network in static int8."""

    name = "qat"
    version = 1
    takes = Model
    uses: frozenset[Use] = frozenset({"calibration", "training"})
    quantizes = True
    Options = QATOptions

    def __init__(self, options: QATOptions = QATOptions()) -> None:
        self.options = options

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with other weights and with scales; those of `ptq` if these are better.

        Raises:
            ConfigError: there is nothing to calibrate on or to learn from, what is there is none of
                this network, or the model holds codes.
        """
        refuse_codes(what)
        given = needs.require_lessons(self.name)
        given.check(what.graph)
        if self.options.scales == "learnt" and not what.graph.keeps_batch:
            raise ConfigError(
                "qat, scales: they are learnt from batches, and the samples of this network are "
                "run one by one; leave scales out"
            )
        lessons, held = _divide(given, self.options.held_out)
        folded = prepare_for_codes(what)
        calibrated = self._calibrate(folded, needs)
        module = self._module(what, folded, calibrated)
        balance_gradients(module)
        zeros = Zeros(module)
        before = self._judge(module, held)
        failed = self._train(module, lessons, zeros)
        after = before if failed else self._judge(module, held)
        epochs = number_of(self.options.epochs, "epoch")
        done = f"{calibrated.history[-1]}, and trained so {epochs} on {len(lessons)} samples"
        came_to = f"{before.words} to {after.words} of {len(held)} that are held out"
        if failed or not after.is_as_good_as(before):
            why = failed or f"it came from {came_to}"
            kept = f"{done} for nothing, kept as calibrated: {why}"
            return replace(calibrated, history=(*what.history, kept))
        made = module.quantized()
        formats = replace(made.quantization, dense_per_output=True) if made.quantization else None
        history = (*what.history, f"{done}: {came_to}{zeros.words}")
        return replace(made, quantization=formats, history=history)

    def _calibrate(self, folded: Model, needs: Needs) -> Model:
        options = self.options
        number_format = NumberFormat.parse(options.scheme)
        float_layers = (*options.float_layers, *slow_as_codes(folded, number_format))
        plain = PTQOptions(
            options.images,
            options.scheme,
            float_layers,
            weight_bits=options.weight_bits,
            per_tensor=options.per_tensor,
        )
        return PTQ(plain).apply(folded, needs)

    def _module(self, what: Model, folded: Model, calibrated: Model) -> FakeQuantized:
        source, trained = what, set[str]()
        if self.options.bn == "folded":
            source = folded
            known = {tensor.name for tensor in what.graph.constants}
            trained = {tensor.name for tensor in folded.graph.constants} - known
        if calibrated.quantization is None:
            raise QuantizationError("calibration gave no scales to train with")
        # TFLite files have one scale for a dense layer; what bears that bears one per output too.
        coarse = replace(calibrated.quantization, dense_per_output=False)
        return FakeQuantized(source, coarse, scales=self.options.scales, trained=trained)

    def _train(self, module: FakeQuantized, lessons: Lessons, zeros: Zeros) -> str:
        """Train; return why that came to nothing, if it did."""
        try:
            found = fit(module, lessons, self.options, name=self.name, after_step=zeros.restore)
        except QuantizationError as error:
            return str(error)
        return found.reason if isinstance(found, Failure) else ""

    def _judge(self, module: FakeQuantized, held: Lessons) -> _Judged:
        loss = measure_loss(module, held, self.options)
        if held.truths is None:
            return _Judged("", None, loss)
        with torch.no_grad():
            outputs = [next(iter(module.run(batch).values())) for batch in _batches(held, _AT_ONCE)]
        score = score_outputs(held.task, torch.cat(outputs).numpy(), held.truths)
        return _Judged(held.task.metric, score, loss)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a network is worth on samples that it did not learn from."""

    metric: str
    score: float | None
    loss: float

    def is_as_good_as(self, other: _Judged) -> bool:
        """Tell whether it is at least as good; a loss that is no number never is."""
        if self.score is None or other.score is None or self.score == other.score:
            return self.loss <= other.loss
        return self.score > other.score

    @property
    def words(self) -> str:
        """Say it in the history."""
        score = "" if self.score is None else f"{self.metric} {self.score:.4f}, "
        return f"{score}loss {self.loss:.4g}"


def _divide(lessons: Lessons, held_out: float) -> tuple[Lessons, Lessons]:
    """Return what is learnt from, and a share that is held out, drawn by the seed."""
    count = len(lessons)
    held = max(round(count * held_out), _LEAST)
    if count - held < _LEAST:
        raise ConfigError(
            f"qat learns from some samples and holds others out: {count} are too few; give some "
            "hundreds, or a smaller held_out"
        )
    order = np.random.default_rng(lessons.seed).permutation(count)
    return _chosen(lessons, np.sort(order[held:])), _chosen(lessons, np.sort(order[:held]))


def _chosen(lessons: Lessons, rows: npt.NDArray[np.int64]) -> Lessons:
    inputs = {name: values[rows] for name, values in lessons.inputs.items()}
    truths = None if lessons.truths is None else lessons.truths[rows]
    return replace(lessons, inputs=inputs, truths=truths)


def _batches(lessons: Lessons, size: int) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, len(lessons), size):
        yield {
            name: torch.from_numpy(values[start : start + size])
            for name, values in lessons.inputs.items()
        }
