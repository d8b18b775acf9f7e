"""Where a store lies, and that no sentence, log or file shows a password."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from device_agents.errors import StoreError
from device_agents.plain_text import hide_passwords
from pipeline.cli.main import cli, main
from pipeline.store import Store
from pipeline.store.leases import open_leases
from pipeline.store.location import database_url
from pipeline.store.run_lock import hold_run

if TYPE_CHECKING:
    from collections.abc import Callable

MALFORMED = [
    "postgresql://ann:geheim@host:port/lab",
    "postgresql://ann:ge:heim@host/lab",
    "postgresql://ann:geheim@s@host/lab",
    "postgresql://ann:geheim/1@host/lab",
    "postgresql://ann:geheim?@host/lab",
    "postgresql://ann:geheim#@host/lab",
    "postgresql://ann:ge heim@host/lab",
    "postgresql://ann:geheim@host:99999999/lab",
    "postgresql:/ann:geheim@host/lab",
    "postgresql:ann:geheim@host/lab",
    "postgres//ann:geheim@host/lab",
    "//ann:geheim@host",
    "ann:geheim@host/lab",
    "host=db user=ann password=geheim",
    "password = geheim",
    "mysql://ann:geheim@host/lab",
    "postgresql+nosuch://ann:geheim@host/lab",
    "postgresql://ann:geheim@127.0.0.1:1/lab",
    "postgresql://127.0.0.1:1/lab?user=ann&password=geheim",
    "postgresql://127.0.0.1:1/lab?sslpassword=geheim",
]


@pytest.mark.parametrize("location", MALFORMED)
@pytest.mark.parametrize("opened", [Store.open, open_leases])
def test_no_sentence_shows_a_password(
    location: str,
    opened: Callable[[str], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as said:
        opened(location)
    for text in (str(said.value), caplog.text, *map(str, tmp_path.rglob("*"))):
        assert not re.search("geheim|heim", text)


def test_good_locations() -> None:
    for folder in (".edgewright", "/data/run@3", "runs:2026", "a=b", "user@host", "C", ""):
        assert database_url(folder) is None
    found = database_url("postgresql://ann:p%40ss@[::1]:5432/lab?host=/run/pg&application_name=x")
    assert found is not None
    assert found.url.password == "p@ss"  # noqa: S105
    assert "p%40ss" not in found.shown
    assert "ann:***@" in found.shown
    assert database_url("sqlite:////data/my lab/store.db") is not None


def test_a_folder_of_any_name_is_a_store(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100% #1"
    with Store.open(folder) as store:
        store.put_bytes(b"x")
    assert (folder / "store.db").is_file()


# In a text nobody can tell where a URL with a blank ends.
@pytest.mark.parametrize("location", [text for text in MALFORMED if " " not in text])
def test_a_crash_keeps_no_password(
    location: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise LookupError(f"no such thing: {location}")

    monkeypatch.setattr(cli, "get_command", lambda *_: broken)
    monkeypatch.setattr(cli, "list_commands", lambda *_: ["broken"])
    monkeypatch.setattr(sys, "argv", ["edgewright", "broken", "--store", location])
    assert main(["broken"]) == 1
    said = capsys.readouterr().err
    log = re.search(r"\S+\.log", said)
    assert log is not None
    kept = Path(log[0]).read_text()
    assert "LookupError: no such thing: " in kept
    for text in (said, kept):
        assert "geheim" not in text
        assert "heim@" not in text


def test_what_is_no_password_stays() -> None:
    for text in (
        "at 10:30 pi@host",
        "ssh://pi@host",
        "see https://example.org/a:b",
        "File x.py, line 3, in f",
    ):
        assert hide_passwords(text) == text


def test_a_read_only_store_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "the lock")

    with Store.open(tmp_path / "store") as store:
        run = store.new_run("net", recipe={}, digest="d", device="board", version="1")
        monkeypatch.setattr(Path, "open", refused)
        with (
            pytest.raises(StoreError, match=r"\.lock cannot be written \(not permitted\); choose"),
            hold_run(store, run),
        ):
            pytest.fail("held without a lock")
