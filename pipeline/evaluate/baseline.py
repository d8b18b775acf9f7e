"""What the winner is held against: a published net, at the width that matches it in accuracy.

Before the search the narrowest width is the reference model: every candidate is timed interleaved
with it, and the target latency is the recipe's ratio times *its* latency, so that a candidate on
target is on target whichever width turns out to match. After the search the widths are trained,
narrowest first, until one is as accurate as the winner within the recipe's tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import VerificationError
from models.codes import QuantizationError
from pipeline.evaluate.files import export
from pipeline.measure.reference import ZooNet
from pipeline.train.parallel import train_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.network import Network
    from models.spec import ArchSpec
    from pipeline.evaluate.files import Exports
    from pipeline.formats.written_file import WrittenFile
    from pipeline.measure.form import Form
    from pipeline.measure.timer import Timer
    from pipeline.recipe.sections import TargetSection
    from pipeline.train.loop import Trained
    from pipeline.train.remembered import Training


@dataclass(frozen=True, slots=True)
class Baseline:
    """The matched baseline: trained, quantised, with its validation accuracy (0..1)."""

    name: str
    spec: ArchSpec
    network: Network
    file: WrittenFile
    accuracy: float
    tried: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class NoBaseline:
    """No width of the baseline could be trained and quantised; `reason` is the first one's."""

    name: str
    reason: str
    tried: tuple[dict[str, Any], ...]


def match_baseline(
    accuracy: float, target: TargetSection, *, training: Training, timer: Timer, to: Exports
) -> Baseline | NoBaseline:
    """Train the baseline's widths, narrowest first, until one matches an accuracy.

    Accuracies are those of the quantised files on the validation split; latencies are measured
    beside the reference, as in the search. Where no width comes within the target's tolerance, the
    most accurate one is the best match there is.

    Args:
        accuracy: to match, 0..1.
        target: the baseline's net and widths, and the tolerance.
        training: of every width.
        timer: of the files, in the form that candidates are measured in.
        to: where the files go.
    """
    found: list[Baseline] = []
    tried: list[dict[str, Any]] = []
    for widths in _pairs(sorted(target.widths)):
        size = (to.data.dataset.input, to.data.dataset.classes)
        nets = [ZooNet(target.baseline, width, *size) for width in widths]
        for net, trained in zip(nets, _train(nets, training, to), strict=True):
            baseline = (
                trained if isinstance(trained, Failure) else _write(net, trained, timer.form, to)
            )
            if isinstance(baseline, Failure):
                tried.append({"name": net.name, "failure": baseline.reason})
                to.bench.events.say(f"{net.name} is left out: {baseline.reason}")
                continue
            found.append(baseline)
            timed = timer.time_file(baseline.file, BenchProtocol.quick())
            latency_ms = None if isinstance(timed, Failure) else timed.latency_ms
            tried.append(
                {
                    "name": net.name,
                    "accuracy_validation": baseline.accuracy,
                    "latency_ms": latency_ms,
                }
            )
        near = [b for b in found if b.accuracy >= accuracy - target.accuracy_tolerance]
        if near:
            return replace(near[0], tried=tuple(tried))
    if not found:
        return NoBaseline(target.baseline, tried[0]["failure"], tuple(tried))
    return replace(max(found, key=lambda b: b.accuracy), tried=tuple(tried))


def _pairs(widths: Sequence[float]) -> list[Sequence[float]]:
    """Return the widths two by two: two are trained at once, and few are trained for nothing."""
    return [widths[i : i + 2] for i in range(0, len(widths), 2)]


def _train(nets: Sequence[ZooNet], training: Training, to: Exports) -> list[Trained | Failure]:
    names = " and ".join(f"x{net.width:g}" for net in nets)
    title = f"train {nets[0].net} {names}"
    with to.bench.events.task(title, len(nets) * training.config.epochs) as task:
        specs = [net.spec for net in nets]
        return train_all(specs, training, data=to.data, memo=to.bench.memo, on_epoch=task.part)


def _write(net: ZooNet, trained: Trained, form: Form, to: Exports) -> Baseline | Failure:
    network = trained.network
    try:
        file = export(network, f"baseline-x{net.width:g}", form=form, to=to)
    except (VerificationError, QuantizationError) as error:
        return Failure(str(error))
    return Baseline(net.name, network.spec, network, file, file.accuracy)
