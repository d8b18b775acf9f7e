"""bench_compress at a tiny size: networks trained and resumed, figures and their marks."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.graph import GraphBuilder
from models.model import Model
from models.ops import Dense
from pipeline.compress.api import Needs
from pipeline.compress.passes.prune import Prune, PruneOptions
from pipeline.formats.files import run_inputs
from profiles.registry import load_device
from scripts import (
    _compress_bases,
    _compress_guest,
    _compress_latency,
    _compress_sizes,
    bench_compress,
)
from scripts._compress_cuts import Cut, Sizes, write
from scripts._compress_latency import latency_figures
from scripts._compress_rows import NOT_MEASURED, Gain, count, unmeasured
from scripts._compress_sizes import Effort, Sized, size_lines, smallest, table_bytes
from scripts._compress_uniform import Peer, Uniform, first_below
from scripts._import_latency import Ratio
from scripts._pruning_peer import load
from scripts.figures import Figure
from scripts.lab.images import LabError
from scripts.other_models import fetch
from tests import other_models

if TYPE_CHECKING:
    from pathlib import Path

TINY = "32x32x3:same:conv_k3_s2_o8_relu:conv_k3_s2_o8_relu:fc16_relu:fc3"


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of data with a few pictures of three classes, and have one tiny base."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / _compress_bases.CIFAR
    folder.mkdir(parents=True)
    for part, each in (("train", 12), ("test", 4)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for label in ("cat", "dog", "ship"):
                for number in range(each):
                    picture = io.BytesIO()
                    pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
                    Image.fromarray(pixels).save(picture, "JPEG")
                    archive.writestr(f"{label}/{number}.jpg", picture.getvalue())
    monkeypatch.setattr(_compress_bases, "BASES", {"tiny": TINY})
    monkeypatch.setattr(_compress_bases, "VALIDATION", 4)
    monkeypatch.setattr(_compress_bases, "BATCH", 8)
    return tmp_path / "data"


def run(out: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    code = bench_compress.main(["--quick", "--check", "--json", str(out), *more])
    figures: list[dict[str, Any]] = json.loads(out.read_text())["figures"]
    return code, figures


def test_a_base_that_is_not_trained_is_not_measured(
    tmp_path: Path, cifar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--only", "bases", "--data", str(cifar), "--work", str(tmp_path / "work"))
    code, figures = run(tmp_path / "before.json", *given)
    assert (code, [one["ours"] for one in figures][1]) == (0, NOT_MEASURED)
    assert capsys.readouterr().out.endswith("1 met, 0 missed, 1 not measured\n")
    work = ["--data", str(cifar), "--work", str(tmp_path / "work")]
    assert _compress_bases.main([*work, "--epochs", "1"]) == 0
    code, figures = run(tmp_path / "after.json", *given)
    assert (code, figures[1]["beside"]) == (0, "12 test images, 1 epochs")
    assert 0 <= figures[1]["value"] <= 100


@pytest.mark.parametrize(("part", "net"), [("ptq", "mbv2"), ("sizes", "vgg")])
def test_a_bar_that_is_not_measured_fails_the_whole_check(
    tmp_path: Path, part: str, net: str
) -> None:
    given = ["--check", "--only", part, "--net", net, "--work", str(tmp_path)]
    assert bench_compress.main(given) == 1
    assert bench_compress.main([*given, "--quick"]) == 0


def test_a_training_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _compress_bases.load_cifar(cifar)
    whole = _compress_bases.make("tiny", 2, data=data, work=tmp_path / "whole")
    killed = tmp_path / "killed"
    save = _compress_bases.FileCheckpoints.save

    def save_and_die(self: Any, state: Any) -> None:
        save(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_compress_bases.FileCheckpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            _compress_bases.make("tiny", 2, data=data, work=killed)
    assert _compress_bases.find("tiny", killed) is None
    _compress_bases.make("tiny", 2, data=data, work=killed)
    resumed = _compress_bases.find("tiny", killed)
    assert resumed is not None
    assert resumed.network.digest() == whole.network.digest()
    assert [file.name for file in killed.iterdir()] == ["tiny-2.npz"]


def test_the_base_that_was_trained_longest_is_found(tmp_path: Path, cifar: Path) -> None:
    data = _compress_bases.load_cifar(cifar)
    for epochs in (2, 1):
        _compress_bases.make("tiny", epochs, data=data, work=tmp_path / "work")
    found = _compress_bases.find("tiny", tmp_path / "work")
    assert found is not None
    assert found.epochs == 2
    assert _compress_bases.find("tin", tmp_path / "work") is None


def test_a_gain_counts_an_image_once_however_many_seeds() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1, 10_000)) < np.array([0.83, 0.80])[:, None, None]
    one, copied = Gain.of(first, second), Gain.of(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    assert one.points == pytest.approx(100 * (first.mean() - second.mean()))
    assert (copied.low, copied.high) == pytest.approx((one.low, one.high))
    assert (copied.seeds, copied.images) == (3, 10_000)
    # A thousand draws of two shares with this difference: 95 % of intervals hold it.
    rights = rng.random((2, 1000, 1, 500)) < np.array([0.83, 0.80])[:, None, None, None]
    gains = [Gain.of(a, b) for a, b in zip(*rights, strict=True)]
    assert np.mean([gain.low <= 3.0 <= gain.high for gain in gains]) == pytest.approx(
        0.95, abs=0.02
    )


@pytest.mark.parametrize("shapes", [((2, 5), (2, 6)), ((5,), (5,)), ((0, 5), (0, 5))])
def test_a_gain_of_no_pairs_is_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        Gain.of(*(np.zeros(shape, np.bool_) for shape in shapes))


def test_what_is_not_measured_is_neither_met_nor_missed() -> None:
    without = unmeasured("QAT", "no base", ">= 0")
    assert (without.ours, without.met, without.value) == (NOT_MEASURED, None, None)
    figures = [without, Figure("a", "1", met=True), Figure("b", "2", met=False), Figure("c", "3")]
    assert count(figures) == "1 met, 1 missed, 1 not measured"


def test_the_largest_file_that_is_fast_enough_is_found_by_halving() -> None:
    files = [Uniform(8, 0.1 * place, 100 - place, b"") for place in range(9)]
    asked = []

    def time(file: Uniform) -> Ratio:
        asked.append(file)
        return Ratio(0.0, 0.0, file.macs / 100, 0.0, 0.0)

    found = first_below(time, files, 0.955)
    assert found is not None
    assert (found[0].macs, found[1].ratio) == (95, 0.95)
    assert len(asked) <= 4
    assert first_below(time, files, 0.9) is None
    assert first_below(time, [], 0.9) is None


@pytest.mark.parametrize(
    ("ms", "met", "used"), [(0.48, True, True), (0.47, True, False), (0.51, False, True)]
)
def test_a_target_is_met_and_used(ms: float, *, met: bool, used: bool) -> None:
    measured = {"latency_ms": ms, "ci95_ms": [ms, ms], "verdict": "valid"}
    whole = {"latency_ms": 1.0, "verdict": "suspect"}
    told = {"target_ms": 0.5, "measured": measured, "whole": whole, "rounds": [], "measurements": 9}
    figures = list(latency_figures("net", told))
    assert [figure.met for figure in figures] == [met, used]
    assert figures[0].beside == "whole 1.0000, suspect"


def test_networks_are_pruned_trained_and_held_against_a_peer_once(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    _compress_bases.make("tiny", 1, data=_compress_bases.load_cifar(cifar), work=work)
    tiny = Sizes(("tiny",), (0.8,), "quick", 2, 1, 1, None, None)
    monkeypatch.setattr(_compress_latency, "QUICK", tiny)
    monkeypatch.setattr(_compress_latency, "prune_ours", halve)
    monkeypatch.setattr(_compress_latency, "BATCH", 8)
    monkeypatch.setattr(_compress_latency, "LEARNT", 0.0)
    monkeypatch.setattr(_compress_latency, "prune_peer", as_ours)
    given = ("--only", "latency", "--data", str(cifar), "--work", str(work))
    _, figures = run(tmp_path / "out.json", *given)
    ms, used, turns, gain = figures
    assert (ms["what"], ms["met"]) == ("tiny at 80% of its latency: ms", True)
    assert (used["ours"], used["met"]) == ("97.5%", True)
    assert turns["met"] is None
    # The same network, trained alike from the same seed, names the same images rightly.
    assert (gain["ours"], gain["met"]) == ("+0.00 (+0.00 to +0.00)", True)
    assert "12 test images, 1 seeds, 1 epochs of all images" in gain["beside"]
    _, figures = run(tmp_path / "alone.json", *given, "--without-peers")
    assert (figures[-1]["ours"], figures[-1]["met"]) == (NOT_MEASURED, None)
    _, (none,) = run(tmp_path / "none.json", *given[:4], "--work", str(tmp_path / "nothing"))
    assert (none["ours"], none["met"]) == (NOT_MEASURED, None)


def test_a_guest_is_reached_by_the_profile_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Guest:
        def profile_values(self) -> dict[str, Any]:
            return {"extends": "virtual_icount", "address": "127.0.0.1", "port": 2222}

    config = _compress_guest.write_profile(tmp_path / "config", Guest())
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(config))
    profile = load_device(_compress_guest.NAME)
    assert (profile.port, profile.runtime) == (2222, "tflite")


def test_a_guest_that_cannot_run_here_is_not_measured(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_folder: Path) -> None:
        raise LabError("qemu-system-aarch64 not found; install it")

    work = tmp_path / "work"
    _compress_bases.make("tiny", 1, data=_compress_bases.load_cifar(cifar), work=work)
    monkeypatch.setattr(_compress_guest.icount, "running", refused)
    monkeypatch.setattr(_compress_guest, "QUICK", replace(_compress_guest.QUICK, nets=("tiny",)))
    given = ("--only", "guest", "--data", str(cifar), "--work", str(work))
    code, (figure,) = run(tmp_path / "out.json", *given)
    assert (code, figure["ours"], figure["met"]) == (0, NOT_MEASURED, None)
    assert "qemu" in figure["beside"]


def halve(cut: Cut, folder: Path) -> dict[str, Any]:
    """Prune without measuring: what a net of this size takes is mostly the call of the runtime."""
    assert folder.is_dir()
    model = Prune(PruneOptions(ratio=0.5)).apply(cut.net.model, Needs())
    write(model, cut.place / "ours.tflite")
    measured = {"latency_ms": 0.78, "ci95_ms": [0.77, 0.79], "verdict": "valid"}
    whole = {"latency_ms": 1.0, "verdict": "valid"}
    shares = {"target_ms": cut.share, "measured": measured, "whole": whole}
    return {**shares, "rounds": [{}], "measurements": 9}


def as_ours(cut: Cut) -> Peer:
    content = (cut.place / "ours.tflite").read_bytes()
    (cut.place / "peer.tflite").write_bytes(content)
    return Peer("as ours", Ratio(1.0, 1.0, 1.0, 1.0, 1.0))


def test_the_peer_prunes_the_network_that_ours_is() -> None:
    other_models.need("resnet8.tflite")
    source = fetch("resnet8.tflite")
    module, shape, outputs = load(source)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape[1:])).astype(np.float32)
    with torch.no_grad():
        theirs = module(torch.from_numpy(pixels)).numpy()
    (found,) = run_inputs(source, {"input_1": pixels.transpose(0, 2, 3, 1)[:, None]}).values()
    np.testing.assert_allclose(theirs, found.reshape(4, -1), atol=1e-5)
    assert [tuple(layer.weight.shape) for layer in outputs] == [(10, 64)]


def test_sizes_of_all_lines_are_given_and_networks_kept(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compress_sizes, "BATCH", 8)
    data = _compress_bases.load_cifar(cifar)
    base = _compress_bases.make("tiny", 1, data=data, work=tmp_path / "work")
    model = base.network.model()
    found = list(size_lines(model, data, Effort((0.8,), (2,), (2,), 1, 1), tmp_path / "kept"))
    assert [one.line for one in found] == ["float", "pruned", "shared", "both", "both, coded"]
    first, pruned, shared, both, coded = found
    assert first.images == 12
    assert min(pruned.bytes, shared.bytes) > both.bytes
    assert first.bytes > max(pruned.bytes, shared.bytes)
    assert coded.right == both.right
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(kept) == 3
    monkeypatch.setattr(_compress_sizes, "create", None)  # nothing is made again
    assert (
        list(size_lines(model, data, Effort((0.8,), (2,), (2,), 1, 1), tmp_path / "kept")) == found
    )


def test_tables_without_a_coder_are_counted_to_the_byte() -> None:
    model = base_of_one_layer()
    weight = model.weights["d"][0]
    rest = 1000 - 4 * weight.size
    assert table_bytes(model, 1000) == rest + weight.size / 8 + 4 * 30
    assert table_bytes(model, 1000, 5) == rest + weight.size / 8 + 30 * 5 / 8 + 4 * 31


def base_of_one_layer() -> Model:
    builder = GraphBuilder()
    graph = builder.graph(builder.op("dense", "d", [builder.input("x", (1, 10))], Dense(8)))
    weight = np.zeros((8, 10), np.float32)
    weight.reshape(-1)[:30] = np.arange(1, 31)
    return Model(graph, {"d": (weight, np.zeros(8, np.float32))})


def test_the_smallest_that_loses_little_is_taken() -> None:
    found = [
        Sized("both", "a", 300, 0.81, 100),
        Sized("both", "b", 200, 0.80, 100),
        Sized("both", "c", 100, 0.79, 100),
        Sized("shared", "d", 10, 0.9, 100),
    ]
    assert smallest(found, "both", 0.795) == found[1]
    assert smallest(found, "pruned", 0.5) is None
