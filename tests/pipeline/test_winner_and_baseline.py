"""Choosing the winner and matching the baseline: real files, a real device, accuracies known.

Networks are not trained here. Each is put into the store as trained, with random weights and a last
bias by which it names one class for every image; so its accuracy is that class's share of the
images.
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from rich.console import Console

from device_agents.api import BenchProtocol, Failure
from device_agents.errors import TargetError
from device_agents.runner import Device
from models.build import build
from models.network import Network
from models.number_format import FLOAT32
from pipeline.cli.display import Display
from pipeline.data import Data, Dataset, Split
from pipeline.evaluate.baseline import Baseline, NoBaseline, match_baseline
from pipeline.evaluate.files import Exports
from pipeline.evaluate.finalists import train_finalists
from pipeline.measure.bench import DeviceBench
from pipeline.measure.form import Form
from pipeline.measure.reference import ZooNet, measure_reference
from pipeline.measure.timer import Timer
from pipeline.recipe.sections import TargetSection, TrainSection
from pipeline.search import space as spaces
from pipeline.search.api import Estimate, Trial
from pipeline.search.confirm import Confirmed
from pipeline.search.estimators import AccuracySource
from pipeline.search.stage import SearchOutcome
from pipeline.store import Store
from pipeline.store.memo import Memo
from pipeline.train.remembered import TRAIN, Training
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from models.spec import ArchSpec

INPUT, CLASSES = (16, 16, 1), 5
SHARES = (0.1, 0.2, 0.25, 0.45)
"""Of the images of class 0, 1, …; there are none of the last class."""
SHORT = replace(BenchProtocol.quick(), processes=1, max_processes=1, max_s=0.05, warmup_min_ms=1.0)
TRAINING = Training(TrainSection(epochs=1), seed=0)
FORM = Form("tflite", FLOAT32)
WIDTHS = (0.25, 0.5, 0.75, 1.0)
LAST_BIAS = "dense.0.bias"


def images(count: int) -> Split:
    pixels = np.random.default_rng(count).standard_normal((count, 1, 16, 16), np.float32)
    labels = np.repeat(np.arange(len(SHARES)), np.round(np.array(SHARES) * count).astype(int))
    return Split(pixels, labels.astype(np.int64))


DATA = Data(Dataset("noise", CLASSES, images(40), images(20), images(20)))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    directory = str(tmp_path_factory.mktemp("board") / "device")
    profile = DeviceProfile("here", transport="local", directory=directory, canary=False)
    with Device.open(profile) as opened:
        yield opened


class Place:
    """A run with a store, a device and what was said."""

    def __init__(self, folder: Path, device: Device, stack: ExitStack) -> None:
        self.said = io.StringIO()
        console = Console(file=self.said, width=400)
        store = stack.enter_context(Store.open(folder / "store"))
        events = stack.enter_context(Display(console))
        profile = DeviceProfile("here", transport="local", threads=1)
        bench = DeviceBench(
            device=device, digest=device.digest, profile=profile, memo=Memo(store),
            run_id=store.new_run("tiny", recipe={}, digest="", device="here", version="0").id,
            events=events,
        )  # fmt: skip
        self.to = Exports(folder, bench, DATA, calibration_images=8)

    def trained(self, spec: ArchSpec, names: int | Failure) -> None:
        """Keep a network that names one class for every image, or a training that failed."""
        memo = self.to.bench.memo

        def work() -> tuple[dict[str, Any], dict[str, str]]:
            if isinstance(names, Failure):
                return {"failure": asdict(names)}, {}
            module = build(spec, generator=torch.Generator().manual_seed(0)).eval()
            with torch.no_grad():
                dict(module.named_parameters())[LAST_BIAS][names] += 1e4
            path = self.to.folder / "trained.npz"
            Network(spec, module).save(path)
            kept = {"network": memo.store.put_file(path)}
            return {"accuracy": 0.99, "wall_s": 1.0}, kept  # of the training; not of the file

        memo.once(TRAIN, TRAINING.inputs(spec, DATA), work)
        memo.steps.clear()

    def trainings(self) -> list[str]:
        """Return the specs whose training was asked for, each once, in order."""
        steps = self.to.bench.memo.steps
        return list(dict.fromkeys(str(s.inputs["spec"]) for s in steps if s.kind == TRAIN.name))


@pytest.fixture
def place(tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("quick", "thorough"):
        monkeypatch.setattr(BenchProtocol, name, classmethod(lambda _cls: SHORT))
    with ExitStack() as stack:
        yield Place(tmp_path, device, stack)


# The baseline


def net(width: float) -> ZooNet:
    return ZooNet("mobilenet-v1", width, INPUT, CLASSES)


def matched(
    place: Place, accuracy: float, names: Sequence[int | Failure], tolerance: float = 0.02
) -> Baseline | NoBaseline:
    """Match an accuracy with widths that name the classes of `names`, the narrowest first."""
    widths = WIDTHS[: len(names)]
    for width, what in zip(widths, names, strict=True):
        place.trained(net(width).spec, what)
    target = TargetSection(
        "mobilenet-v1", latency_ratio=0.5, widths=widths[::-1], accuracy_tolerance=tolerance
    )
    reference = measure_reference(
        place.to.bench, net(0.25), form=FORM, protocol=SHORT, folder=place.to.folder
    )
    timer = Timer(place.to.bench, FORM, reference)
    return match_baseline(accuracy, target, training=TRAINING, timer=timer, to=place.to)


def test_the_narrowest_within_the_tolerance_is_taken_and_few_are_trained(place: Place) -> None:
    found = matched(place, 0.26, [1, 2, 3, 3])
    assert isinstance(found, Baseline)
    assert (found.name, found.accuracy) == ("mobilenet-v1 x0.5", 0.25)
    assert found.spec == found.network.spec == net(0.5).spec
    assert found.file.path.name == "baseline-x0.5-float32.tflite"
    # Two at once, whether or not the first would have done; the wider ones are left alone.
    assert place.trainings() == [str(net(width).spec) for width in (0.25, 0.5)]
    assert [row["name"] for row in found.tried] == ["mobilenet-v1 x0.25", "mobilenet-v1 x0.5"]
    assert [row["accuracy_validation"] for row in found.tried] == [0.2, 0.25]
    # In turns with the reference, which is the narrowest: alike, and the wider one is slower.
    narrow, wide = (row["latency_ms"] for row in found.tried)
    assert 0 < narrow < wide


def test_of_two_that_match_the_narrower_counts_not_the_better(place: Place) -> None:
    found = matched(place, 0.2, [1, 3])
    assert (found.name, len(found.tried)) == ("mobilenet-v1 x0.25", 2)


@pytest.mark.parametrize(("tolerance", "name"), [(0.05, "x0.25"), (0.04, "x0.5")])
def test_the_tolerance_is_in_shares_of_all_images(
    place: Place, tolerance: float, name: str
) -> None:
    found = matched(place, 0.25 - 1e-12, [1, 2], tolerance)
    assert found.name == f"mobilenet-v1 {name}"


def test_where_none_comes_near_the_most_accurate_is_the_match(place: Place) -> None:
    found = matched(place, 0.9, [0, 3, 1])
    assert (found.name, found.accuracy) == ("mobilenet-v1 x0.5", 0.45)
    assert len(place.trainings()) == len(found.tried) == 3


def test_a_width_that_fails_is_left_out_and_named(place: Place) -> None:
    diverged = Failure("training diverged in epoch 1")
    found = matched(place, 0.2, [diverged, 1, 3])
    assert found.name == "mobilenet-v1 x0.5"
    assert found.tried[0] == {"name": "mobilenet-v1 x0.25", "failure": diverged.reason}
    assert "mobilenet-v1 x0.25 is left out: training diverged in epoch 1" in place.said.getvalue()
    assert len(place.trainings()) == 2


def test_without_any_width_there_is_no_baseline(place: Place) -> None:
    found = matched(place, 0.2, [Failure("diverged"), Failure("diverged later")])
    assert isinstance(found, NoBaseline)
    assert (found.name, found.reason) == ("mobilenet-v1", "diverged")
    assert [row["failure"] for row in found.tried] == ["diverged", "diverged later"]


# The winner


SPACE = spaces.create("mnasnet", input=INPUT, classes=CLASSES, stages=((2, 8, 1),), head=16)
SPECS = list(dict.fromkeys(SPACE.sample(np.random.default_rng(seed)) for seed in range(20)))[:3]
PROXY = AccuracySource("proxy", TRAINING, None)  # type: ignore[arg-type]  # there is no supernet


def finalist(index: int, latency_ms: float) -> Confirmed:
    first = Estimate(latency_ms, 0.0, "measured")
    trial = Trial(SPECS[index], {"accuracy": Estimate(0.99, 0.0, "trained"), "latency_ms": first})
    return Confirmed(index, trial, Estimate(latency_ms, 0.001, "measured"))


def chosen(
    place: Place, names: Sequence[int | Failure], latencies_ms: Sequence[float]
) -> list[tuple[int, float]]:
    """Return (index, accuracy) of the finalists, the winner first; the target is 1 ms."""
    for spec, what in zip(SPECS, names, strict=False):
        place.trained(spec, what)
    finalists = tuple(finalist(index, ms) for index, ms in enumerate(latencies_ms))
    search = SearchOutcome(SPACE, (), (), finalists, 1.0, 0.0, 0.0)
    found = train_finalists(search, TRAINING, accuracy=PROXY, form=FORM, to=place.to)
    for one in found:
        assert one.network.spec == SPECS[one.index]
        assert one.file.path.name == f"finalist-{one.index}-float32.tflite"
        assert one.accuracy == one.file.accuracy
        assert one.latency_ms == latencies_ms[one.index]
    return [(one.index, one.accuracy) for one in found]


def test_the_winner_is_the_one_whose_own_file_is_most_accurate(place: Place) -> None:
    assert chosen(place, [1, 3, 2], [0.1, 0.9, 0.5]) == [(1, 0.45), (2, 0.25), (0, 0.2)]
    assert set(place.trainings()) == set(map(str, SPECS))


def test_who_only_just_keeps_to_the_target_stands_behind(place: Place) -> None:
    assert chosen(place, [1, 3, 1], [0.5, 0.995, 0.4]) == [(2, 0.2), (0, 0.2), (1, 0.45)]


def test_a_finalist_that_fails_is_dropped_and_the_others_go_on(place: Place) -> None:
    assert chosen(place, [3, Failure("it diverged"), 1], [0.5, 0.4, 0.3]) == [(0, 0.45), (2, 0.2)]
    assert "candidate 1 is dropped: it diverged" in place.said.getvalue()


def test_without_any_finalist_the_first_reason_is_told(place: Place) -> None:
    with pytest.raises(TargetError, match="no finalist could be used: diverged at once"):
        chosen(place, [Failure("diverged at once"), Failure("later")], [0.5, 0.4])
