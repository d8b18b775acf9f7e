"""Help of the command line: fast, complete, and documented; and what the shell completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from pipeline.cli.commands import run as run_command
from pipeline.cli.main import cli, main
from pipeline.store import Store
from tests.cli_calls import ROOT, make_workplace, run_ok

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAVY = ("torch", "tensorflow", "numpy", "sqlalchemy", "paramiko", "rich", "onnx", "plotly")


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)


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


@pytest.mark.parametrize("name", COMMANDS)
def test_h_is_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_ok(capsys, *name.split(), "-h") == run_ok(capsys, *name.split(), "--help")


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


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
