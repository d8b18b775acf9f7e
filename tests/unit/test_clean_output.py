"""What a device or a file says steers no terminal and no page: colours, bells, markup, floods."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.table import Table

import pipeline.cli.commands
from pipeline.cli.commands._recipe_run import _log_to
from pipeline.cli.display import Display
from pipeline.cli.main import main
from pipeline.cli.options import echo, print_json
from pipeline.cli.terminal import CleanConsole, brief
from pipeline.report.markup import esc, plot_text
from pipeline.report.tables import Column, table
from pipeline.report.templating import parts

if TYPE_CHECKING:
    from collections.abc import Iterable

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mpi\u202e[red]\x07:warning: " + "x" * 100_000
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def drawn(terminal: bool, *what: object) -> str:  # noqa: FBT001 - both ways of one thing
    out = io.StringIO()
    CleanConsole(file=out, force_terminal=terminal, width=200).print(*what)
    return out.getvalue()


def without_styles(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_and_lines_are_clean(terminal: bool) -> None:  # noqa: FBT001
    rows = Table("device", "state")
    rows.add_row(EVIL, "held", style="bold")
    for said in (drawn(terminal, rows), drawn(terminal, EVIL)):
        assert not STEERING.search(without_styles(said))
        assert "pi [red] :warning:" in re.sub(r"\s+", " ", said)
        assert len(said) < 12_000


def test_printed_lines_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"first\n{EVIL}")
    first, second, end = capsys.readouterr().out.split("\n")
    assert (first, end) == ("first", "")
    assert second.startswith("pi [red] :warning: x")
    assert len(second) == 1 << 14


def test_json_is_clean_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({EVIL: [EVIL, float("nan"), float("inf"), 1.5, None, {"a": (1, "\ud800")}]})
    said = capsys.readouterr().out
    assert not STEERING.search(said)

    def refused(name: str) -> float:
        raise AssertionError(name)

    ((key, values),) = json.loads(said, parse_constant=refused).items()
    assert (len(key), len(values[0])) == (4000, 1 << 16)
    assert values[1:] == [None, None, 1.5, None, {"a": [1, " "]}]


def test_progress_and_warnings_are_clean() -> None:
    for terminal in (False, True):
        out = io.StringIO()
        display = Display(console=CleanConsole(file=out, force_terminal=terminal, width=200))
        with display, display.task(EVIL, 1) as task, _log_to(display, verbose=False):
            task.advance(EVIL)
            logging.getLogger("edgewright.x").warning("waiting: %s", EVIL)
        said = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "")
        assert not STEERING.search(said)
        assert "[red]" in said
        assert len(said) < 20_000
    assert brief(EVIL).plain.startswith("pi [red]")
    assert not brief(EVIL).spans


def test_the_report_is_clean() -> None:
    pages: Iterable[str] = (
        esc(EVIL),
        plot_text(EVIL),
        table([Column("device", str)], [EVIL]),
        parts.definitions([("model", EVIL)]),
    )
    for page in pages:
        assert not STEERING.search(page)
        assert "[red]" in page
        assert len(page) < 5000
    assert esc("4.5\N{NO-BREAK SPACE}ms <b>") == "4.5\N{NO-BREAK SPACE}ms &lt;b&gt;"


def test_a_profile_that_holds_escapes_is_shown_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path))
    (tmp_path / "devices").mkdir()
    profile = tmp_path / "devices" / "evil.toml"
    profile.write_text(
        'transport = "ssh"\naddress = "[red]pi\\u001b[31m"\ndescription = "a\\u0007b\\u202ec[/x]"\n'
    )
    (tmp_path / "devices" / "bad.toml").write_text('"\\u001b[31m" = 1\n')
    for command in (["device", "list"], ["device", "show", "evil"], ["device", "show", "bad"]):
        main(command)
        out, err = capfd.readouterr()
        assert not STEERING.search(out + err)
    assert "[red]" not in err


def test_commands_print_nothing_past_the_cleaning() -> None:
    folder = Path(pipeline.cli.commands.__path__[0])
    past = re.compile(r"click\.s?echo\(|rich\.console import Console\b|\bprint\(|TextColumn\(")
    ours = re.compile(r"\b_print\(|console\(\)\.print\(|out\.print\(")
    files = sorted(folder.glob("*.py"))
    found = [path.name for path in files if past.search(ours.sub("", path.read_text()))]
    assert files
    assert found == []
