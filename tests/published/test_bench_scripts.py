"""The benchmark scripts that take seconds at tiny sizes, from flags to JSON."""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from scripts import (
    _import_conversion,
    _import_int8,
    _import_models,
    bench_faults,
    bench_import,
    bench_latency_models,
    bench_ofa_bed,
    bench_runtimes,
    bench_search,
)
from scripts._import_conversion import LEFT_OUT, Conversion
from scripts._import_models import error_share
from scripts._import_runs import Done
from scripts.bench_import import Sizes
from scripts.figures import Figure, finish, parser
from scripts.other_models import Unavailable
from tests import other_models
from tests.tiny_models import onnx_conv

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def made(out: Path) -> dict[str, Any]:
    """Return what a script wrote; every number in it is one."""

    def refused(name: str) -> None:
        pytest.fail(f"{name} is no figure")

    content: dict[str, Any] = json.loads(out.read_text(), parse_constant=refused)
    return content


def need(*names: str) -> None:
    for name in names:
        if not (DATA / name).is_file():
            pytest.skip(f"{DATA / name} is not there: it holds published figures")


def test_latency_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("nb201.npz", "fbnet_4000.npz")
    known = ("silver_4114", "pixel3", "samsung_s7")
    monkeypatch.setattr(bench_latency_models, "KNOWN", known)
    monkeypatch.setattr(bench_latency_models, "QUICK_DRAWS", 1)
    out = tmp_path / "figures.json"
    assert bench_latency_models.main(["--quick", "--json", str(out), "--data", str(DATA)]) == 0
    figures = {figure["what"]: figure for figure in made(out)["figures"]}
    for ways in ("samples", "chosen", "samples, no known device", "samples, untrimmed"):
        for n in (5, 10, 20):
            assert figures[f"cells, each known device left out, {n} {ways}"]["value"] > 0.7


def test_ofa_bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*bench_ofa_bed.FILES)
    monkeypatch.setattr(bench_ofa_bed, "QUICK_CALLS", 40)
    out = tmp_path / "figures.json"
    assert bench_ofa_bed.main(["--quick", "--check", "--json", str(out), "--data", str(DATA)]) == 0
    figures = made(out)["figures"]
    assert [figure["met"] for figure in figures] == [True] * 6 + [None] * 2
    assert all(math.isfinite(figure["value"]) for figure in figures)


def test_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("nb201.npz")
    monkeypatch.setattr(bench_search, "PUBLISHED", {"random_search": "89.66 / 89.99 / 90.30"})
    out = tmp_path / "figures.json"
    small = ["--seeds", "1", "--evaluations", "50"]
    assert bench_search.main(["--quick", *small, "--json", str(out), "--data", str(DATA)]) == 0
    figures = made(out)["figures"]
    assert [figure["what"] for figure in figures] == [
        "constrained_gp, 50 evaluations",
        "the search's own choices over the limit",
        "slowest seed, processor time",
        "random_search, 1 seeds",
    ]
    assert figures[0]["value"] > 88.0


def test_runtimes(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert bench_runtimes.main(["--quick", "--check", "--json", str(out)]) == 0
    figures = made(out)["figures"]
    assert {figure["met"] for figure in figures} == {True, None}
    assert len(figures) == 6 * (len(bench_runtimes.RANDOM) + 1)


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_faults, "QUICK", replace(bench_faults.QUICK, devices=2, clients=2, jobs=6)
    )
    monkeypatch.setenv(bench_faults.LEASES_VARIABLE, str(tmp_path))
    out = tmp_path / "figures.json"
    assert bench_faults.main(["--quick", "--check", "--json", str(out)]) == 0
    figures = made(out)
    assert figures["results"] + sum(figures["failures"].values()) == 6


@pytest.mark.slow
def test_import(tmp_path: Path) -> None:
    other_models.need("resnet8-int8.tflite")
    out = tmp_path / "figures.json"
    chosen = ["--only", "models", "--model", "resnet8-int8.tflite", "--model", "nabu.tflite"]
    assert bench_import.main(["--quick", "--check", *chosen, "--json", str(out)]) == 0
    resnet, wakeword = made(out)["conditions"]["models"]
    assert resnet["figures"]["partitions"] == {"expected": 2, "found": 2}
    assert not resnet["faults"]
    assert wakeword["cells"]["convert"] == "refused by name"
    assert "VAR_HANDLE" in wakeword["figures"]["convert"]["said"]
    assert (resnet["cells"]["deploy"], wakeword["cells"]["deploy"]) == ("in use", "in use")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make networks and samples of the import benchmark so small that a part takes seconds."""
    monkeypatch.setattr(bench_import, "QUICK", Sizes((), conversions=1, rounds=1, test_images=4))
    for module in (_import_conversion, _import_int8):
        monkeypatch.setattr(module, "SIZE", 32)
    for name, value in {"_SAMPLES": 4, "_WIDE": 8, "_BLOCKS": 1}.items():
        monkeypatch.setattr(_import_int8, name, value)


def run_part(part: str, out: Path, *more: str) -> list[dict[str, Any]]:
    chosen = ["--quick", "--only", part, "--without-peer", "--json", str(out)]
    assert bench_import.main([*chosen, *more]) == 0
    figures: list[dict[str, Any]] = made(out)["figures"]
    return figures


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_parts_of_import_that_write_their_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, peer = run_part("conversion", tmp_path / "conversion.json")
    assert seconds["value"] > 0
    assert (peer["beside"], peer["met"]) == (LEFT_OUT, None)
    timed, weighed = run_part("ptq", tmp_path / "ptq.json")
    assert timed["value"] > 0
    # What was weighed is not what was asked for, and is told with its own size.
    assert weighed["what"] == "PTQ, ONNX file of 0 MB, peak memory"
    assert (weighed["met"], weighed["value"] > 0) == (False, True)
    source = onnx_conv(tmp_path / "small.onnx")
    monkeypatch.setattr(bench_import, "fetch", lambda _: source)
    (looked,) = run_part("inspection", tmp_path / "inspection.json")
    assert looked["what"] == "inspect, file of 0 MB, cold start, s"
    assert (looked["met"], looked["value"] > 0) == (False, True)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_part_of_import_that_quantises_beside_shipped_files(tmp_path: Path) -> None:
    for name in ("resnet8.tflite", "ds-cnn.tflite"):
        other_models.need(name)
    rng = np.random.default_rng(0)
    (tmp_path / "cifar10_jpeg").mkdir()
    for part in ("train", "test"):
        with zipfile.ZipFile(tmp_path / "cifar10_jpeg" / f"{part}.zip", "w") as archive:
            for label in range(10):
                picture = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(picture, "JPEG")
                archive.writestr(f"{label}/picture.jpg", picture.getvalue())
    figures = run_part("int8", tmp_path / "out.json", "--data", str(tmp_path))
    assert [figure["what"].split(",")[0] for figure in figures] == [
        "int8 ResNet-8",
        "int8 ResNet-8",
        "int8 DS-CNN",
        "int8 DS-CNN",
    ]
    assert all(isinstance(figure["value"], float) for figure in figures), figures


def test_a_part_that_fails_loses_no_figure_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: object) -> Iterator[Figure]:
        yield Figure("first", "1", met=True)
        raise Unavailable("pip cannot fetch it")

    def working(_: object) -> Iterator[Figure]:
        yield Figure("second", "2", met=True)

    out = tmp_path / "out.json"
    parts = {"one": (failing, bench_import.resnet8, working)}
    monkeypatch.setattr(bench_import, "PARTS", parts)
    assert bench_import.main(["--check", "--data", str(tmp_path), "--json", str(out)]) == 1
    figures = made(out)["figures"]
    assert [(figure["what"], figure["met"]) for figure in figures] == [
        ("first", True),
        ("one", False),
        ("one", False),
        ("second", True),
    ]
    assert figures[1]["beside"] == "pip cannot fetch it"
    assert "test.zip is not there" in figures[2]["beside"]


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"can": ["known as a graph"], "cannot": []}, []),
        ({"can": [], "cannot": ["x has ops that are not known here: If at 'a'"]}, []),
        ({"can": [], "cannot": ["it is cut"]}, ["graph: it is cut"]),
        ({"can": [], "cannot": []}, ["graph: it was not read, and nothing says why"]),
    ],
)
def test_a_graph_that_was_not_read_is_a_fault(
    facts: dict[str, Any], fault: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Done(0, json.dumps({**facts, "partitions": None}), "", 1.0, 1.0, 0)
    monkeypatch.setattr(_import_models, "run", lambda *_: done)
    row = _import_models.Row("x")
    assert _import_models._inspect(row, Path("x.onnx"), ()) is not None
    assert row.faults == fault


@pytest.mark.parametrize(("peer", "met"), [(LEFT_OUT, None), ("failed: no such wheel", False)])
def test_a_peer_that_did_not_run_misses_its_bar_unless_it_was_left_out(
    peer: str, *, met: bool | None
) -> None:
    found = Conversion((0.1, 0.2, 0.1), (), peer, None, (1, None))
    ours, beside = bench_import.conversion_figures(found)
    assert ours.met is True
    assert (beside.beside, beside.met) == (peer, met)


@pytest.mark.parametrize(
    ("error", "spread", "share"),
    [(0.0, 0.0, 0.0), (0.5, 2.0, 0.25), (0.5, 0.0, math.inf), (None, 2.0, math.inf)],
)
def test_a_difference_without_a_number_is_no_small_one(
    error: float | None, spread: float, share: float
) -> None:
    assert error_share({"max_abs_error": error, "value_range": spread}) == share


def test_a_value_that_json_cannot_hold_fails_a_run_without_a_file_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figure = Figure("bed, ms", "1.0", met=np.float64(1.0) > 0.5)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match=r"cannot be written as JSON: .*bool"):
        finish(parser("").parse_args([]), [figure])
    assert "bed, ms" in capsys.readouterr().out
