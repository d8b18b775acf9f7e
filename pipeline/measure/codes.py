"""What an int8 file gives, code by code, beside exact integer arithmetic with its own codes.

Kernels round at other places than `models.integer` (a fixed-point rescaling, two roundings, a
float accumulator), so right ones give codes that are mostly equal and differ by a few here and
there; what saturates, or leaves something out, is far off in sample after sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError, VerificationError
from models.integer import integer_outputs
from pipeline.formats.beside import compare_files
from pipeline.formats.convert import as_file, graph_inputs
from pipeline.formats.figures import STRAY_STEPS
from pipeline.formats.subjects import ModelSubject

if TYPE_CHECKING:
    from models.codes import QParams
    from models.model import Model
    from pipeline.formats.ends import Array, Arrays
    from pipeline.formats.subjects import Subject

_FAR_SHARE = 0.25
"""Of samples that may be farther off than STRAY_STEPS: where a hundred ops each round otherwise,
near ties turn over in some. Of 23 networks, converted and trained, right kernels had none that far
off; onnxruntime's saturating ones have most."""


@dataclass(frozen=True, slots=True)
class OutputCodes:
    """How the codes of one output compare.

    Attributes:
        name: in the file.
        values: how many codes were compared.
        equal_share: of them that are equal, 0..1.
        largest_difference: of two codes, in codes.
        typical_steps: how far the median sample is off: root mean square, in codes.
        far_samples: that are farther off than STRAY_STEPS.
    """

    name: str
    values: int
    equal_share: float
    largest_difference: int
    typical_steps: float
    far_samples: int


@dataclass(frozen=True, slots=True)
class CodesBeside:
    """How the codes of a file's outputs compare; `real_outputs` are made of no codes."""

    samples: int
    outputs: tuple[OutputCodes, ...]
    real_outputs: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The figures of every output, in one clause."""
        told = (
            f"{'' if len(self.outputs) == 1 else f'{one.name}: '}{one.equal_share:.2%} of "
            f"{one.values} codes equal, the largest difference {one.largest_difference}"
            for one in self.outputs
        )
        return "; ".join(told)


def has_codes(model: Model) -> bool:
    """Tell whether an output of a model is made of codes."""
    quantization = model.quantization
    if quantization is None or not quantization.number_format.is_static:
        return False
    return not quantization.made_as_codes(model.graph).isdisjoint(model.graph.outputs)


def compare_codes(model: Model, file: Subject, source: Subject, inputs: Arrays) -> CodesBeside:
    """Run a file, here or on a device, and hold its codes against its model's exact arithmetic.

    Args:
        model: what the file holds, of a static number format.
        file: runs it.
        source: whose inputs are given; often the file.
        inputs: of the source by name, (N, *shape).

    Raises:
        ConfigError: the file has no output that is made of codes, or its inputs have no batch
            dimension.
        DeviceError: the device cannot run it.
    """
    quantization, graph = model.quantization, model.graph
    if quantization is None or not quantization.number_format.is_static:
        raise ConfigError(
            f"{file.name} is {model.number_format}, whose activations are no codes; give an int8 "
            "file, as `edgewright quantize` makes"
        )
    coded = quantization.made_as_codes(graph)
    ends = list(zip(graph.outputs, model.outputs, strict=True))
    if not has_codes(model):
        raise ConfigError(f"no output of {file.name} is made of codes; there is nothing to compare")
    given = graph_inputs(model, source, inputs)
    exact, count = integer_outputs(model, given), len(next(iter(given.values())))
    means = {}
    for made, end in ends:
        real = quantization[made].dequantize(exact[made]) if made in coded else exact[made]
        means[end.name] = real.reshape(count, *graph.shape(made))
    ours = ModelSubject(file.name, model)
    _, _, found = compare_files(
        (ours.ends, file.ends), as_file(ours, given), lambda _: means, file.run
    )
    outputs = tuple(
        _compare(end.name, quantization[made], exact[made], found[end.name])
        for made, end in ends
        if made in coded
    )
    return CodesBeside(count, outputs, tuple(end.name for made, end in ends if made not in coded))


def _compare(name: str, params: QParams, exact: Array, real: Array) -> OutputCodes:
    """Compare exact codes with what a file gave in real numbers, of as many values each."""
    wanted = exact.reshape(len(real), -1).astype(np.int64)
    apart = params.quantize(real.reshape(len(real), -1)).astype(np.int64) - wanted
    steps = np.sqrt(np.square(apart).mean(axis=1))
    return OutputCodes(
        name=name,
        values=wanted.size,
        equal_share=float(np.mean(apart == 0)),
        largest_difference=int(np.abs(apart).max(initial=0)),
        typical_steps=float(np.median(steps)),
        far_samples=int(np.sum(steps > STRAY_STEPS)),
    )


def check_codes(found: CodesBeside, name: str, where: str) -> None:
    """Refuse codes that are farther off than rounding explains.

    Args:
        found: the figures.
        name: of the file.
        where: it was run, as in "on device 'pi'".

    Raises:
        VerificationError: names the output, with its figures.
    """
    for one in found.outputs:
        if one.far_samples > _FAR_SHARE * found.samples:
            raise VerificationError(
                f"{name} does not compute {where} what its codes mean: of its output {one.name!r} "
                f"{one.equal_share:.1%} of {one.values} codes equal exact integer arithmetic, the "
                f"largest difference is {one.largest_difference} codes, and {one.far_samples} of "
                f"{found.samples} samples are more than {STRAY_STEPS:g} codes off (root mean "
                "square), where rounding explains less; the kernels of the runtime there are at "
                "fault, not the quantisation"
            )
