"""What every estimator promises; a new file in pipeline/search/estimate without a maker fails."""

from __future__ import annotations

import json
import math
import pkgutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.runner import Device
from models.cost import cost
from models.lower import lower
from models.number_format import STATIC8
from models.supernet.elastic import ElasticNet
from pipeline.cli.display import Display
from pipeline.data.api import Data, Dataset, Split
from pipeline.measure import untrained
from pipeline.measure.bench import DeviceBench
from pipeline.measure.form import Form
from pipeline.measure.reference import Reference
from pipeline.measure.timer import Timer
from pipeline.recipe.sections import TrainSection
from pipeline.search import estimate as folder
from pipeline.search import space as spaces
from pipeline.search.api import Estimate
from pipeline.search.estimate.counted import CountedLatency
from pipeline.search.estimate.few_shot import FewShotLatency, FewShotModel, LatencyPrior
from pipeline.search.estimate.measured import MeasuredLatency
from pipeline.search.estimate.predicted import PredictedAccuracy
from pipeline.search.estimate.several_devices import SeveralDevicesLatency
from pipeline.search.estimate.supernet import SupernetAccuracy
from pipeline.search.estimate.table import TableLatency
from pipeline.search.estimate.trained import TrainedAccuracy
from pipeline.search.estimators import as_elastic
from pipeline.search.few_shot_fit import features_of
from pipeline.store import Store
from pipeline.store.memo import Memo
from pipeline.train.loop import evaluate, train, use_threads
from profiles.registry import load_device
from profiles.table import LatencyTable, TableEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from models.graph import Graph
    from models.spec import ArchSpec
    from pipeline.search.api import Estimator

SPACE = spaces.create(
    "ofa_mobilenet_v3", input=(12, 12, 1), classes=3, stages=((2, 8), (2, 16)), depths=(1, 2),
    stem=(3, 1, 8), first=0, head=0, feature_mix=0, kernels=(3, 5), resolutions=(8, 12),
)  # fmt: skip
SPECS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(6)]
REFUSED = SPECS[2]
SOURCES = {
    "accuracy": {"trained", "supernet", "predicted"},
    "latency_ms": {"measured", "table", "counted", "predicted"},
}


def images(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.random((count, 1, 12, 12), np.float32), np.arange(count) % 3)


DATA = Data(Dataset("noise", 3, images(24, 0), images(30, 1), images(30, 2)))


def truth_ms(spec: ArchSpec) -> float:
    return 1.0 + 1e-5 * cost(spec).macs


def counted(_stack: ExitStack, _place: Path) -> CountedLatency:
    return CountedLatency.scaled_on(SPECS[0], 2.0)


def measured(stack: ExitStack, place: Path) -> MeasuredLatency:
    profile = load_device("fake")
    device = stack.enter_context(Device.open(profile))
    store = stack.enter_context(Store.open(place / "store"))
    reference = place / "reference.json"
    reference.write_text(json.dumps({"edgewright_null": 1, "latency_ms": 2.0}))

    def encode(_bench: DeviceBench, _form: Form, graph: Graph) -> bytes:
        refused = "no memory" if graph == lower(REFUSED) else None
        latency_ms = 1.0 + 1e-5 * cost(graph).macs
        model = {"edgewright_null": 1, "latency_ms": latency_ms, "load_error": refused}
        return json.dumps(model).encode()

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(untrained, "encode", encode)
    patch.setattr(Form, "suffix", ".json")
    run = store.new_run("contract", recipe={}, digest="", device="fake", version="0")
    bench = DeviceBench(
        device=device, digest=device.digest, profile=profile, memo=Memo(store), run_id=run.id,
        events=stack.enter_context(Display()),
    )  # fmt: skip
    alone = bench.measure({"reference": 1}, lambda: reference, protocol=BenchProtocol.quick())
    assert isinstance(alone, Measurement)
    own = Reference("null", SPECS[0], reference, store.put_file(reference), alone)
    return MeasuredLatency(Timer(bench, Form("null", STATIC8), own))


def several_devices(_stack: ExitStack, _place: Path) -> SeveralDevicesLatency[ArchSpec]:
    both = {name: CountedLatency.scaled_on(SPECS[0], ms) for name, ms in (("a", 2.0), ("b", 3.0))}
    return SeveralDevicesLatency(both, lambda found: max(found.values(), key=lambda e: e.value))


def table(_stack: ExitStack, _place: Path) -> TableLatency:
    ops = {op.key: op for spec in SPECS for op in lower(spec).ops}
    entry = TableEntry(0.01, 0.001, 10)
    return TableLatency(
        LatencyTable(
            device="board", device_digest="", runtime="tflite", runtime_version="1", threads=1,
            scheme="static8", when="", overhead=entry, entries=dict.fromkeys(ops, entry),
        )
    )  # fmt: skip


def few_shot(_stack: ExitStack, _place: Path) -> FewShotLatency[ArchSpec]:
    rng = np.random.default_rng(7)
    pool = [SPACE.sample(rng) for _ in range(40)]
    values = np.array([truth_ms(spec) for spec in pool[:8]])
    prior = LatencyPrior.counted(features_of(SPACE, pool))
    model = FewShotModel(prior, features_of(SPACE, pool[:8]), values)
    return FewShotLatency(model, lambda specs: features_of(SPACE, specs))


def trained(_stack: ExitStack, _place: Path) -> TrainedAccuracy:
    use_threads(1)

    def once(spec: ArchSpec) -> float | Failure:
        rate = 1e30 if spec == REFUSED else 0.1
        found = train(spec, DATA, TrainSection(epochs=1, batch_size=8, learning_rate=rate), seed=0)
        return found if isinstance(found, Failure) else found.accuracy

    return TrainedAccuracy(once, 30)


def supernet(_stack: ExitStack, _place: Path) -> SupernetAccuracy:
    net = ElasticNet(as_elastic(SPACE).full, generator=torch.Generator().manual_seed(0))

    def extracted(spec: ArchSpec) -> float | Failure:
        if spec == REFUSED:
            return Failure("its outputs are not numbers")
        return evaluate(net.extract(spec).module, DATA.at(spec.input).validation, DATA.task)

    return SupernetAccuracy(extracted, 30)


def predicted(_stack: ExitStack, _place: Path) -> PredictedAccuracy:
    rng = np.random.default_rng(3)
    specs = [SPACE.sample(rng) for _ in range(30)]
    values = [0.5 + 1e-7 * cost(spec).macs for spec in specs]
    return PredictedAccuracy.fit(SPACE.features, specs, values, rng=rng)


MAKERS = {
    maker.__name__: maker
    for maker in (
        counted, few_shot, measured, predicted, several_devices, supernet, table, trained,
    )
}  # fmt: skip
FILES = [m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")]


@pytest.fixture(params=FILES)
def make(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Estimator[ArchSpec]]]:
    """Return what makes the estimator of a file."""
    assert request.param in MAKERS, f"no maker for pipeline/search/estimate/{request.param}.py"
    with ExitStack() as stack:
        yield lambda: MAKERS[request.param](stack, tmp_path)


def plain(found: Sequence[Estimate | Failure]) -> list[object]:
    """Return estimates to nine digits: the order of sums is not the estimators' to promise."""
    return [
        one if isinstance(one, Failure) else (float(f"{one.value:.9g}"), one.source)
        for one in found
    ]


def test_every_maker_is_of_a_file() -> None:
    assert set(MAKERS) == set(FILES)


def test_one_estimate_or_failure_for_each_spec_in_order(
    make: Callable[[], Estimator[ArchSpec]],
) -> None:
    estimator = make()
    found = estimator.estimate(SPECS)
    assert len(found) == len(SPECS)
    assert estimator.estimate([]) == []
    for index in (5, 2, 0):
        assert plain(estimator.estimate([SPECS[index]])) == plain([found[index]])


def test_estimates_are_numbers_with_an_error_and_a_source(
    make: Callable[[], Estimator[ArchSpec]],
) -> None:
    estimator = make()
    assert estimator.metric in SOURCES
    known = [one for one in estimator.estimate(SPECS) if isinstance(one, Estimate)]
    assert len(known) >= len(SPECS) - 1
    for one in known:
        assert math.isfinite(one.value)
        assert math.isfinite(one.stderr)
        assert one.stderr >= 0
        assert one.source in SOURCES[estimator.metric]
        assert one.value > 0 if estimator.metric == "latency_ms" else 0 <= one.value <= 1


def test_made_again_it_says_the_same(make: Callable[[], Estimator[ArchSpec]]) -> None:
    assert plain(make().estimate(SPECS[:3])) == plain(make().estimate(SPECS[:3]))


@pytest.mark.parametrize("name", ["measured", "trained", "supernet"])
def test_a_failed_candidate_is_a_value_in_its_place(name: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        found = MAKERS[name](stack, tmp_path).estimate(SPECS[1:4])
    assert [isinstance(one, Failure) for one in found] == [False, True, False]
