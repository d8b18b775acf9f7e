"""Figures of the gradient search: does it land on the latency that was asked for?

Called by bench_supernet.py. A small ProxylessNAS space on this computer, in int8: one latency
table, then a search for each of three targets between the fastest and the slowest network. What a
search took is measured once more when all have ended, with the long protocol and in turns with the
reference model: the search's own measurements had a part in the choice.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Failure
from models.number_format import STATIC8
from pipeline.cli.lut_bench import TableOrder, open_bench
from pipeline.data import Data, load_data
from pipeline.recipe.sections import DataSection, DeviceSection
from pipeline.search import gradient
from pipeline.search.estimate.measured import MeasuredLatency
from pipeline.search.estimate.table import TableLatency
from pipeline.search.gradient.cells import LatencyModel, cells_of
from pipeline.search.lut.table import build_table
from pipeline.train.loop import use_threads
from scripts.figures import Figure

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.measure.timer import Timer
    from pipeline.search.api import Estimate, SearchSpace

SHARES = (0.35, 0.5, 0.75)
"""Targets, as shares of the way from the fastest network of the space to the slowest."""
BAND = 0.05
BESIDE = "published tools: asked 1000, got 7073 ms; asked 25, got 265"
STAGES = [[2, 16, 2], [2, 32, 2]]
OPTIONS = {"stem": [3, 2, 8], "first": 8, "stages": STAGES, "head": 64, "kernels": [3, 5]}
TRAINING = {"batch_size": 32, "warmup_learning_rate": 0.1, "learning_rate": 0.05}
LONG = {"warmup_epochs": 10, "epochs": 20}
SHORT = {"warmup_epochs": 2, "epochs": 6}
PROTOCOL = BenchProtocol.thorough()
SEED = 0


def rows(quick: bool) -> list[Figure]:  # noqa: FBT001 - as the other figures are called
    """Search for three targets, or one if `quick`, and return where the searches landed."""
    use_threads(1)
    data = load_data(DataSection("digits", resolution=32), seed=SEED)
    order = TableOrder(
        "proxyless",
        OPTIONS,
        data.dataset.input,
        data.dataset.classes,
        number_format=STATIC8,
        device=DeviceSection("local"),
    )
    with (
        tempfile.TemporaryDirectory(prefix="edgewright-") as store,
        open_bench(order, store, fresh=True, priority=0) as held,
    ):
        return _land(order.open_timer(held), order.create_space(0), data, quick=quick)


def _land(timer: Timer, space: SearchSpace[ArchSpec], data: Data, *, quick: bool) -> list[Figure]:
    table = TableLatency(build_table(timer, space, seed=SEED))
    search = gradient.create(
        "proxyless-gradient", space, SEED, **TRAINING, **(SHORT if quick else LONG)
    )

    def predict(spec: ArchSpec) -> float:
        return table.estimate([spec])[0].value

    model = LatencyModel.tabulate(cells_of(space), predict)
    found = []
    device, again = MeasuredLatency(timer), MeasuredLatency(timer, PROTOCOL)
    for share in SHARES[:1] if quick else SHARES:
        target_ms = model.fixed_ms + share * (model.slowest_ms - model.fixed_ms)
        outcome = search.run(
            data, predict, target_ms, measure=lambda spec: device.estimate([spec])[0]
        )
        best = outcome.found[0]
        found.append((share, target_ms, best, outcome.history[-1].expected_ms))
    return [
        _figure(share, target_ms, best.predicted_ms, expected_ms, again.estimate([best.spec])[0])
        for share, target_ms, best, expected_ms in found
    ]


def _figure(
    share: float,
    target_ms: float,
    predicted_ms: float,
    expected_ms: float,
    measured: Estimate | Failure,
) -> Figure:
    what = f"gradient search lands on target, {share:g} of the way from fastest to slowest"
    bar = f"within {BAND:.0%} of the target"
    if isinstance(measured, Failure):
        return Figure(what, measured.reason, BESIDE, bar, met=False)
    off = measured.value / target_ms - 1
    ours = (
        f"asked {1e3 * target_ms:.2f} us, got {1e3 * measured.value:.2f} ({off:+.1%}; by the "
        f"table {predicted_ms / target_ms - 1:+.1%}, mean of the probabilities "
        f"{expected_ms / target_ms - 1:+.1%})"
    )
    return Figure(what, ours, BESIDE, bar, abs(off) <= BAND, off)
