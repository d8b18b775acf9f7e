"""One sentence per mistake and the right exit code; pipes that close, full disks, signals.

`main` is called in this process where that shows the same, and as a process where it does not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from device_agents.near_names import nearest_first
from pipeline.cli.main import BROKEN_PIPE, cli
from pipeline.formats import FORMATS
from pipeline.store import Store
from tests.cli_calls import RECIPE, ROOT, make_workplace, process, refusal
from tests.tiny_models import tflite_conv

SPECIALISE = ("specialise", "--target-ms", "8", "--device")
NO_FORMAT = "device 'fake' has the runtime null, for which no network can be written"


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)


def commands_of(*groups: str) -> str:
    """Return the commands of a group of the command line, as a refusal lists them."""
    group, context = cli, click.Context(cli)
    for name in groups:
        group = group.get_command(context, name)
    return ", ".join(group.list_commands(context))


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
