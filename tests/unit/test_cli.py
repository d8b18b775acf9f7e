"""The command line: fast help, one sentence per mistake, the right exit code, and real commands.

`main` is called in this process where that shows the same, and as a process where it does not:
imports, pipes, signals.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from device_agents.near_names import nearest_first
from models.number_format import STATIC8
from models.spec import ArchSpec
from pipeline.cli.commands import run as run_command
from pipeline.cli.main import BROKEN_PIPE, cli, main
from pipeline.formats import FORMATS
from pipeline.store import Store
from tests.tiny_models import tflite_conv, with_custom_op

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "digits.toml"
HEAVY = ("torch", "tensorflow", "numpy", "sqlalchemy", "paramiko", "rich", "onnx", "plotly")
SPECIALISE = ("specialise", "--target-ms", "8", "--device")
NO_FORMAT = "device 'fake' has the runtime null, for which no network can be written"
SPEC = "32x32x1:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_skip:fc10"


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with devices of our own: one that answers, one that cannot."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEWRIGHT_STORE", raising=False)
    devices = tmp_path / "config" / "devices"
    devices.mkdir(parents=True)
    (devices / "here.toml").write_text(f'extends = "local"\ndirectory = "{tmp_path / "device"}"\n')
    (devices / "gone.toml").write_text('transport = "ssh"\naddress = "127.0.0.1"\nport = 1\n')
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))


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


def commands_of(*groups: str) -> str:
    """Return the commands of a group of the command line, as a refusal lists them."""
    group, context = cli, click.Context(cli)
    for name in groups:
        group = group.get_command(context, name)
    return ", ".join(group.list_commands(context))


def run_ok(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert main([str(arg) for arg in args]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], code: int, *args: str | Path) -> str:
    """Return the one line that a failing command says."""
    assert main([str(arg) for arg in args]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgewright")]
    notes = [line for line in said if "weights are random" in line]
    assert len(said) == 1 + len(notes)
    return said[-1]


def process(*args: str | Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.cli.main", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command, text=True, env=environment, **options
    )


def every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found is not None
        yield name, found
        if isinstance(found, click.Group):
            for inner in found.commands.values():
                yield f"{name} {inner.name}", inner


COMMANDS = dict(every_command())


# Help


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom pipeline.cli.main import main\ncode = main(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "Exit codes: 0 ok" in done.stdout
    for name in cli.list_commands(click.Context(cli)):
        assert re.search(rf"^  {name} +\S", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_ok(capsys, *name.split(), "--help")
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option) and option.name != "help":
            assert option.help or option.type.name == "choice", option.name
            assert option.opts[0] in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    text = (ROOT / "docs" / "commands" / f"{name.split(maxsplit=1)[0]}.md").read_text()
    assert f"edgewright {name}" in text
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            assert f"`{option.opts[-1]}`" in text, option.opts


def test_every_page_is_of_a_command() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "commands").glob("*.md")}
    assert pages == set(cli.list_commands(click.Context(cli)))


def test_stages_are_those_of_the_run() -> None:
    from pipeline.run.stages import STAGES

    assert run_command.STAGES == STAGES


# Mistakes


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["run", "nosuch.toml"], 2, "no recipe 'nosuch.toml'"),
        (["search", "nosuch.toml"], 2, "no recipe 'nosuch.toml'"),
        (["tune", "nosuch.toml"], 2, "no recipe 'nosuch.toml'"),
        (["run", RECIPE, "--device", "nosuch"], 2, "no device 'nosuch' known"),
        (["search", RECIPE, "--device", "nosuch"], 2, "no device 'nosuch' known"),
        ([*SPECIALISE, "nosuch"], 2, "no device 'nosuch' known"),
        (["lut", "build", "--device", "nosuch"], 2, "no device 'nosuch' known"),
        (["report", "nosuch"], 7, "there is no store"),
        ([*SPECIALISE, "here"], 7, "there is no store"),
        ([*SPECIALISE, "here", "--store", "kept"], 2, "no trained supernet"),
        ([*SPECIALISE, "here", "--store", "kept", "--from", "proxy-1"], 2, "no trained supernet"),
        ([*SPECIALISE, "fake"], 2, NO_FORMAT),
        (["run", RECIPE, "--device", "fake"], 2, NO_FORMAT),
        (["search", RECIPE, "--device", "fake"], 2, NO_FORMAT),
        (["lut", "build", "--device", "fake"], 2, NO_FORMAT),
        (["export", "nosuch.npz", "-o", "."], 2, "no network file nosuch.npz"),
        (["verify", "m.tflite", "--network", "nosuch.npz"], 2, "no network file nosuch.npz"),
    ],
)
def test_what_is_mistyped_is_told_before_torch_is_imported(
    args: list[str | Path], code: int, words: str
) -> None:
    tflite_conv(Path("m.tflite"))
    with Store.open("kept") as store:
        for name, accuracy in (("proxy", "proxy"), ("interrupted", "supernet")):
            recipe = {"search": {"accuracy": accuracy}}
            store.new_run(name, recipe=recipe, digest="", device="here", version="0")
    script = (
        "import sys\nfrom pipeline.cli.main import main\n"
        f"print(main({[str(arg) for arg in args]!r}), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{code} False\n"
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["zo"], 2, f"no command 'zo'; did you mean 'zoo'? have {commands_of()}"),
        (["zoo", "--jsno"], 2, "see `edgewright zoo --help`"),
        (["zoo", "mobilenet-v9"], 2, "no net 'mobilenet-v9' in the zoo; did you mean"),
        (
            ["device", "doktor", "here"],
            2,
            f"no command 'doktor'; did you mean 'doctor'? have {commands_of('device')}",
        ),
        (["lut", "chek"], 2, f"'chek'; did you mean 'check'? have {commands_of('lut')}"),
        (
            ["bench", "a", "b", "--device", "here"],
            2,
            "`edgewright bench` takes one MODEL: run it once",
        ),
        (["device", "add", "a", "b", "c"], 2, "`edgewright device add` takes NAME ADDRESS; see"),
        (["runs", "digits-1"], 2, "`edgewright runs` takes no argument; see"),
        (["bench", "m.tflite"], 2, "Missing option '--device'"),
        (["bench", "m.tflite", "--device", "nowhere"], 2, "no device 'nowhere' known"),
        # Told before anything is connected.
        (["bench", "m.tflite", "--device", "gone"], 2, "no model file 'm.tflite'"),
        (["bench", "m.tflite", "--device", "here"], 2, "no model file 'm.tflite'"),
        (["device", "check", "gone"], 3, "127.0.0.1"),
        (["deploy", "m", "--device", "here", "--name", "a", "--version", "1"], 2, "no model file"),
        (["run", "nothing.toml"], 2, "no recipe 'nothing.toml'"),
        (["run", RECIPE, "--set", "search.candidats=3"], 2, "[search] has no option 'candidats'"),
        (["run", RECIPE, "--device", "pi9"], 2, "no device 'pi9' known"),
        (["run", RECIPE, "--set", "search.strategy=random"], 2, "did you mean 'random_search'?"),
        (["run", RECIPE, "--until", "lunch"], 2, "'search', 'train', 'deploy', 'report'"),
        (["report"], 7, "there is no store in .edgewright; `edgewright run` makes one"),
        (["export", "nothing.npz", "-o", "."], 2, "no network file nothing.npz"),
        (
            ["export", "nothing.keras", "-o", "."],
            2,
            "no Keras file or SavedModel folder nothing.keras",
        ),
        (["export", "config", "-o", "."], 2, "config is a folder without a saved_model.pb"),
        (["export", "32x32x1:same:conv_k3", "-o", "."], 2, "lacks stride, out"),
        (
            ["export", "mobilenet-v2", "-o", ".", "--format", "onxx"],
            2,
            f"have {', '.join(nearest_first('onxx', FORMATS.names()))}",
        ),
        (["export", "mobilenet-v2", "-o", "config/devices/here.toml"], 2, "cannot write"),
        (["verify", "m.tflite", "--network", "n.npz"], 2, "no model file 'm.tflite'"),
    ],
)
def test_mistakes_end_in_one_sentence(
    capsys: pytest.CaptureFixture[str], args: list[str | Path], code: int, expected: str
) -> None:
    assert expected in refusal(capsys, code, *args)


@pytest.mark.parametrize("name", COMMANDS)
def test_h_is_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_ok(capsys, *name.split(), "-h") == run_ok(capsys, *name.split(), "--help")


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_unexpected_goes_to_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> tuple[str, ...]:
        raise RuntimeError("the zoo\nis empty")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("models.zoo.zoo", broken)
    sentence = refusal(capsys, 1, "zoo")
    assert "unexpected RuntimeError: the zoo is empty; this is a bug" in sentence
    log = Path(sentence.rpartition(" ")[2])
    assert "in broken" in log.read_text()


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


# Pipes, full disks, signals


def test_a_closed_pipe_is_quiet() -> None:
    running = process("zoo", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.wait(timeout=60) == BROKEN_PIPE
    assert running.stderr.read() == ""
    running.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        running = process("zoo", stdout=full, stderr=subprocess.PIPE)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert said == "edgewright: the disk is full; free some space and run the command again\n"


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    running = process(
        "run", RECIPE, "--device", "here", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stderr is not None
    said = []
    for line in running.stderr:  # until the run has begun to work; ends if the process ends
        said.append(line)
        if "run digits-1 on here" in line:
            break
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=120)
    running.stderr.close()
    assert running.returncode == 130, "".join(said) + rest
    assert rest.splitlines()[-1] == (
        "edgewright: interrupted; what was finished is stored, the same command goes on from there"
    )
    assert "Traceback" not in rest
    with Store.open(tmp_path / ".edgewright", create=False) as store:
        assert [found.id for found in store.runs()] == ["digits-1"]


# Commands that work


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


def completed(line: str) -> list[str]:
    """Return what bash offers behind a line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli.main import main; main()"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_EDGEWRIGHT_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [found.partition(",")[2] for found in done.stdout.splitlines()]


def test_the_shell_completes_commands_devices_and_nets() -> None:
    assert completed("edgewright repo") == ["report"]
    assert completed("edgewright bench m.tflite --device ") == ["fake", "gone", "here", "local"]
    assert completed("edgewright device doctor he") == ["here"]
    assert completed("edgewright device setup ") == ["gone", "here"]
    assert "mobilenet-v2" in completed("edgewright zoo mobile")
    assert "mnasnet-a1" in completed("edgewright export mnas")
    assert completed("edgewright export ./n") == ["./n"]  # by which the shell offers its files
    with Store.open(".edgewright") as store:
        store.new_run("digits", recipe={}, digest="", device="here", version="0")
    assert completed("edgewright report d") == ["digits-1"]
    assert not any(completed("edgewright report --store elsewhere "))  # no store, no mistake


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
