"""Commands that work, and what they say of their results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models.number_format import STATIC8
from models.spec import ArchSpec
from pipeline.cli.commands import run as run_command
from pipeline.cli.main import main
from pipeline.store import Store
from tests.cli_calls import RECIPE, make_workplace, process, refusal, run_ok
from tests.tiny_models import tflite_conv, with_custom_op

SPEC = "32x32x1:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_skip:fc10"


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network file with weights from a seed."""
    import torch

    from models.build import build
    from models.network import Network

    spec = ArchSpec.parse(SPEC)
    path = tmp_path_factory.mktemp("network") / "small.npz"
    module = build(spec, generator=torch.Generator().manual_seed(0))
    Network(spec, module.eval()).save(path)
    return path


def test_zoo_counts_and_cites(capsys: pytest.CaptureFixture[str]) -> None:
    spec = ArchSpec.parse(run_ok(capsys, "zoo", "mobilenet-v2"))
    assert spec.input == (224, 224, 3)
    row = json.loads(run_ok(capsys, "zoo", "mobilenet-v2", "--json"))
    assert row["spec"] == str(spec)
    assert row["published_top1_percent"] == 72.0
    assert len(json.loads(run_ok(capsys, "zoo", "--json"))) > 10
    table = run_ok(capsys, "zoo")
    assert re.search(r"^mobilenet-v2 +3\.50 M +301 M +72 +75 +MnasNet paper", table, re.MULTILINE)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_trained_network_is_exported_verified_and_told_from_another(
    capsys: pytest.CaptureFixture[str], network: Path, tmp_path: Path, format_: str
) -> None:
    out = tmp_path / "out"
    path = Path(run_ok(capsys, "export", network, "-o", out, "--format", format_).strip())
    assert path == out / f"small-float32.{format_}"
    static: list[str | Path] = [
        "export",
        network,
        "-o",
        out,
        "--format",
        format_,
        "--scheme",
        "static8",
    ]
    assert "needs images to calibrate on" in refusal(capsys, 2, *static)
    small = Path(run_ok(capsys, *static, "--data", RECIPE).strip())
    verified: list[str | Path] = ["verify", small, "--network", network, "--data", RECIPE, "--json"]
    found = json.loads(run_ok(capsys, *verified))
    assert found["scheme"] == "static8"
    assert found["sqnr_db"] > 20
    assert "(float32) on 32 images: SQNR 1" in run_ok(capsys, "verify", path, "--network", network)
    other = tmp_path / "other.npz"
    from models.network import Network

    loaded = Network.load(network)
    for weight in loaded.module.parameters():
        weight.data.mul_(1.1)
    loaded.save(other)
    sentence = refusal(capsys, 5, "verify", path, "--network", other)
    assert "does not compute what the network computes" in sentence


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
@pytest.mark.parametrize("scheme", ["float32", "static8"])
def test_what_cannot_be_exported_leaves_no_file(
    capsys: pytest.CaptureFixture[str], network: Path, tmp_path: Path, format_: str, scheme: str
) -> None:
    from models.network import Network

    loaded = Network.load(network)
    loaded.module.get_submodule("blocks.1.project").state_dict()["bn.bias"][2] = float("nan")
    loaded.save(tmp_path / "damaged.npz")
    sentence = refusal(
        capsys,
        5,
        *("export", tmp_path / "damaged.npz", "-o", tmp_path / "out", "--data", RECIPE),
        *("--format", format_, "--scheme", scheme),
    )
    assert "layer 'blocks.1.project' cannot be computed: its bn.bias has 1 of 8 values" in sentence
    assert not (tmp_path / "out").exists()


def test_a_file_that_fails_verification_gets_no_name(
    capsys: pytest.CaptureFixture[str], network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.formats import limits

    there = Path("out/small-static8.tflite")
    there.parent.mkdir()
    there.write_bytes(b"an older one")
    monkeypatch.setitem(limits.LIMITS, STATIC8, limits.Limits(200.0, 1.0))
    args = ["export", network, "-o", "out", "--scheme", "static8", "--data", RECIPE]
    assert "the file is right and int8 costs this network too much" in refusal(capsys, 5, *args)
    assert [path.name for path in there.parent.iterdir()] == [there.name]
    assert there.read_bytes() == b"an older one"


def test_signed_weights_are_for_int8_onnx(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refusal(capsys, 2, "export", SPEC, "-o", "out", "--signed-weights")
    assert "--signed-weights is for --format onnx --scheme static8, not tflite float32" in sentence


def test_a_spec_is_exported_timed_recorded_and_deployed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = []
    for scheme in ("float32", "static8"):
        args: list[str | Path] = ["export", SPEC, "-o", tmp_path / "out", "--scheme", scheme]
        files.append(Path(run_ok(capsys, *args).strip()))
    bench = ["bench", files[0], "--device", "here", "--protocol", "quick", "--store", "kept"]
    code = main([*map(str, bench), "--reference", str(files[1]), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (3 if found["verdict"] == "invalid" else 0)
    assert found["median_ms"] > 0
    assert found["ratio"] > 0
    with Store.open("kept", create=False) as store:
        (stored,) = store.measurements(device="here")
    assert stored.median_ms == found["median_ms"]
    deploy: list[str | Path] = [
        "deploy",
        files[1],
        "--device",
        "here",
        "--name",
        "digits",
        "--version",
        "1",
    ]
    there = Path(run_ok(capsys, *deploy).strip())
    assert there.read_bytes() == files[1].read_bytes()
    assert tmp_path / "device" in there.parents


def test_bench_prints_figures_with_their_conditions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = run_ok(capsys, "export", SPEC, "-o", tmp_path, "--format", "onnx").strip()
    main(["bench", file, "--device", "here", "--protocol", "quick"])
    text = capsys.readouterr().out
    figures = r"^median: \d+\.\d{4} ms \(95 % interval .*samples in [3-6] processes\)$"
    assert re.search(figures, text, re.MULTILINE)
    assert re.search(r"^conditions: here, onnx \(onnxruntime .*protocol quick$", text, re.MULTILINE)
    assert re.search(r"^verdict: (valid|suspect|invalid)", text, re.MULTILINE)


def test_a_model_that_the_device_refuses_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    odd = with_custom_op(tflite_conv(tmp_path / "m.tflite"), tmp_path / "odd.tflite", "Acme")
    said = refusal(capsys, 3, "bench", odd, "--device", "here", "--protocol", "quick")
    assert "odd.tflite cannot be timed on here" in said
    assert "the tflite runtime refuses the model: it has the custom op Acme, which this" in said
    assert "INFO" not in said


def test_devices_are_listed_with_the_broken_ones_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config" / "devices" / "bad.toml").write_text("adress = 'x'\n")
    assert main(["device", "list", "--json"]) == 0
    out, err = capsys.readouterr()
    assert {"here", "gone", "local"} <= {device["name"] for device in json.loads(out)}
    assert "has no option 'adress'; did you mean 'address'?" in err
    assert re.search(r"^here +local ", run_ok(capsys, "device", "list"), re.MULTILINE)


def test_own_devices_come_first_and_templates_on_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def names(*options: str) -> list[str]:
        return [row["name"] for row in json.loads(run_ok(capsys, "device", "list", *options))]

    assert names("--json") == ["gone", "here", "fake", "local"]
    everything = names("--json", "--templates")
    assert everything[:4] == ["gone", "here", "fake", "local"]
    assert "raspberry_pi_4b" in everything[4:]
    text = run_ok(capsys, "device", "list")
    assert f"{len(everything) - 4} profiles to extend are not shown; --templates" in text


def test_a_device_tells_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run_ok(capsys, "device", "check", "here", "--json"))
    assert facts["cpu_count"] == os.cpu_count()
    assert facts["sensors"]["uptime_s"] > 0
    text = run_ok(capsys, "device", "check", "here")
    assert f"cpu_count: {os.cpu_count()}\n" in text
    assert "sensors.uptime_s: " in text


def test_reports_are_written_from_the_store(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tests.pipeline.report_fixture import make_result

    with Store.open("kept") as store:
        made = store.new_run("digits", recipe={}, digest="", device="here", version="0")
        sentence = refusal(capsys, 7, "report", "digits-1", "--store", "kept")
        assert "run 'digits-1' has no finished result" in sentence
        store.add_result(replace(make_result(candidates=8), run_id=made.id))
    written = run_ok(capsys, "report", "digits-1", "--store", "kept").strip()
    assert written == "digits-1.html"
    page = tmp_path / "page.html"
    assert run_ok(capsys, "report", "digits-1", "-o", page, "--store", "kept").strip() == str(page)
    assert page.read_text().startswith("<!doctype html>")
    assert page.read_bytes() == (tmp_path / "digits-1.html").read_bytes()
    assert "digits-1" in page.read_text()
    assert "no run 'digits-7'" in refusal(capsys, 7, "report", "digits-7", "--store", "kept")


def test_runs_are_listed_with_what_came_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.pipeline.report_fixture import make_result

    with Store.open("kept") as store:
        assert "no run yet" in run_ok(capsys, "runs", "--store", "kept")
        made = [
            store.new_run("digits", recipe={}, digest="", device="here", version="0")
            for _ in range(2)
        ]
        result = replace(make_result(candidates=8), run_id=made[0].id)
        store.add_result(result)
    rows = json.loads(run_ok(capsys, "runs", "--store", "kept", "--json"))
    assert [row["run"] for row in rows] == ["digits-2", "digits-1"]
    assert [row["finished"] for row in rows] == [False, True]
    assert rows[1]["ratio"] == result.comparison.ratio
    assert rows[1]["target_met"] == result.comparison.met
    listed = run_ok(capsys, "runs", "--store", "kept")
    lines = listed.splitlines()
    assert lines[1].startswith("digits-2")
    assert "not finished: the same `edgewright run` goes on with it" in lines[1]
    assert f"{result.comparison.ratio:.2f} of {result.baseline_name}, target" in lines[2]
    # A report without a name lists them too, and writes nothing.
    assert run_ok(capsys, "report", "--store", "kept").startswith(listed)
    for outcome in ("not told apart", "no comparison", "learnt nothing"):
        with Store.open("kept") as store:
            other = replace(result.comparison, outcome=outcome)
            store.add_result(replace(result, comparison=other))
        last = run_ok(capsys, "runs", "--store", "kept").splitlines()[2]
        assert last.rstrip().endswith(outcome)
        assert "target" not in last
    assert not list(Path().glob("*.html"))
    assert "needs the RUN to write" in refusal(capsys, 2, "report", "--store", "kept", "-o", "x")


@pytest.mark.slow
def test_keras_and_saved_models_are_exported(tmp_path: Path) -> None:
    script = (
        "import tensorflow as tf\n"
        "l = tf.keras.layers\n"
        "m = tf.keras.Sequential([tf.keras.Input((28, 28, 1)), l.Conv2D(4, 3),"
        " l.GlobalAveragePooling2D(), l.Dense(10)])\n"
        "m.save('small.keras')\nm.export('saved')\n"
        "x = tf.keras.Input((6,))\n"
        "tf.keras.Model(x, tf.keras.ops.top_k(x, 2)[0]).save('best.keras')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, capture_output=True)
    static = ("--scheme", "static8", "--data", RECIPE)
    for source, options, name, said in (
        ("small.keras", ("--format", "onnx"), "small-float32.onnx", "compared with its source on"),
        ("saved", static, "saved-static8.tflite", "compared with its source on"),
        # What our graph cannot say is TensorFlow's own file.
        ("best.keras", (), "best-float32.tflite", "verified on"),
    ):
        running = process(
            "export", source, "-o", ".", *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = running.communicate(timeout=300)
        assert running.returncode == 0, err
        assert out == f"{name}\n"
        assert said in err
        if name.endswith(".tflite"):
            assert (tmp_path / name).read_bytes()[4:8] == b"TFL3"


def test_a_missed_target_is_said_and_has_its_own_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from device_agents.errors import TargetError
    from pipeline.run.stages import Outcome
    from tests.pipeline.report_fixture import make_result

    result = make_result(candidates=8)
    for outcome, words in (
        ("missed", "misses its target"),
        ("no comparison", "has nothing to hold its winner against"),
        ("learnt nothing", "learnt nothing: look at images and labels"),
    ):
        other = replace(result, comparison=replace(result.comparison, outcome=outcome))
        with pytest.raises(TargetError, match=words) as caught:
            run_command._print(Outcome("digits-1", None, other, Path("report.html")), "report")
        assert caught.value.exit_code == 4
        said = capsys.readouterr().out
        assert result.comparison.sentence in said
        assert "report: report.html" in said


def test_what_the_images_cannot_tell_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.run.stages import Outcome
    from tests.pipeline.report_fixture import make_result

    result = make_result(candidates=8)
    for outcome in ("met", "not told apart"):
        comparison = replace(result.comparison, outcome=outcome, cautions=("Mind the gap.",))
        done = replace(result, comparison=comparison)
        run_command._print(Outcome("digits-1", None, done, Path("report.html")), "report")
        assert "Mind the gap.\nreport: report.html" in capsys.readouterr().out
