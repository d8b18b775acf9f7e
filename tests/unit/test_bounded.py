"""Files and texts from outside are read with bounds: kind, size, depth, and what decoding makes."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents import bounded
from device_agents.agent import bounded_json, store, wire
from device_agents.agent.jobs import canary
from device_agents.errors import AgentError, ConfigError, EdgewrightError
from device_agents.leased import find_model
from device_agents.plain_text import plain
from models.spec import ArchSpec, SpecError
from models.weights_file import refuse_mismatch
from pipeline.cli.main import main
from pipeline.recipe.recipe import Recipe, RecipeError
from tests.unit.test_recipe import MINIMAL

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ('{"a": "[[", "b": ' + "[" * 64 + "]" * 64 + "}", "nested more than 64 deep"),
        ("[" + "[]," * 2_000_000 + "[]]", "more than 2000000 values"),
        ("1" + "0" * 400, "an integer of 401 digits"),
        ("-18446744073709551617", "an integer of 20 digits"),
        ("[1e400]", "a number too large: 1e400"),
        ("[NaN]", "NaN, which is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity, which is no number of JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        (r'["\ud800"]', "half a surrogate pair"),
        (r'["\uDC00"]', "half a surrogate pair"),
        ('["' + "x" * bounded_json.LIMIT_CHARS + '"]', "more than 67108864 characters"),
    ],
)
def test_json_beyond_a_bound_is_refused(text: str, said: str) -> None:
    with pytest.raises(bounded_json.JsonRefused, match=said):
        bounded_json.loads(text)


def test_json_within_the_bounds_is_read() -> None:
    value = {
        "text": 'a "quoted" [bracket] {brace} \\ \U0001f600',
        "deep": [[[{"x": [1, -2, 2**64 - 1, 0.5, 1e-320, None, True]}]]],
        "brackets": "[" * 200,
    }
    assert bounded_json.loads(json.dumps(value)) == value
    assert bounded_json.loads(json.dumps(value, ensure_ascii=False)) == value


def test_an_answer_of_empty_lists_costs_neither_time_nor_memory() -> None:
    """A quarter of a gigabyte of `[],`, as a device may send it: refused long before its end."""
    part = "[]," * (wire.PART_CHARS // 3)
    line = wire.MARK + json.dumps({"id": 1, "part": part}).encode() + b"\n"
    decoder = wire.Decoder()
    before, began_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    taken = 0
    with suppress(wire.Excessive):
        while taken < 256 * 1024 * 1024:
            decoder.feed(line)
            taken += len(part)
    assert taken < 8 * 1024 * 1024
    assert time.process_time() - began_s < 5.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_an_answer_longer_than_its_call_may_have_is_refused() -> None:
    line = wire.MARK + json.dumps({"id": 1, "part": "x" * wire.PART_CHARS}).encode() + b"\n"
    decoder = wire.Decoder(limit_chars=3 * wire.PART_CHARS)
    for _ in range(3):
        assert decoder.feed(line) is None
    with pytest.raises(wire.Excessive, match="more than 393216 characters"):
        decoder.feed(line)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 5000, "nested more than 32 deep"),
        ("a = " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("a." * 100 + "b = 1", "nested more than 32 deep"),
        ("[x]\na = 0x" + "f" * 5000, "x.a is a whole number that 64 bits cannot hold"),
        ("a = 1" + "0" * 5000, "digits"),
        ("a = [{b = 1979-05-27}]", "a.b = 1979-05-27 is a date or time"),
        ("a = " + '"x"' * 400_000, "more than 1048576 characters"),
    ],
)
def test_toml_beyond_a_bound_is_refused(text: str, said: str) -> None:
    with pytest.raises(bounded.Undecodable, match=said):
        bounded.toml(text)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name, said in (
        ("pipe", "it is a pipe or a device"),
        ("endless", "it is a pipe or a device"),
        (".", "it is a folder; name a file"),
        ("none", "there is no such file"),
        ("none/below", "there is no such file"),
        ("x" * 300, "File name too long"),
        ("nul\0", "that is no path"),
    ):
        with pytest.raises(bounded.Unreadable, match=said) as caught:
            bounded.read_bytes(tmp_path / name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


def test_what_an_agent_kept_is_nothing_when_it_has_no_end(tmp_path: Path) -> None:
    """As the canary's best time, releases and answers: read on the device, by every agent."""
    store.write_json(tmp_path / "good", {"a": [1, 2.5]})
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("[" * 100_000)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert store.read_json(tmp_path / "good") == {"a": [1, 2.5]}
    for name in ("link", "endless", "pipe", "deep", "huge", "none", "."):
        assert store.read_json(tmp_path / name) is None
    (tmp_path / "canary.json").symlink_to("/dev/zero")
    found = canary.sing(str(tmp_path), [])
    assert found["idle_ns"] == found["ns"] > 0


def test_a_file_larger_than_its_kind_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no room
    with pytest.raises(bounded.Unreadable, match="more than 1048576 bytes"):
        bounded.read_text(tmp_path / "big", limit_bytes=bounded.TOML_BYTES)
    with pytest.raises(ConfigError, match=r"more than 2147483648 bytes.*give a model file"):
        find_model(tmp_path / "big")
    # A file of /proc says that it has no bytes.
    assert bounded.read_bytes(Path("/proc/self/status")).startswith(b"Name:")
    with pytest.raises(bounded.Unreadable, match="more than 16 bytes"):
        bounded.read_bytes(Path("/proc/self/status"), limit_bytes=16)


@pytest.mark.parametrize(
    "given",
    [
        *("/dev/zero", "/dev/stdin", "/", "x" * 5000, "a/" * 3000, "~nobody-here/x"),
        *("\udcff.toml", "\x1b[31m.toml"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("run", "{}"),
        ("bench", "{}", "--device", "local"),
        ("export", "{}", "-o", "out"),
        ("verify", "x.tflite", "--network", "{}"),
        ("verify", "{}", "--network", "x.npz"),
        ("read-log", "{}"),
        ("lut", "show", "{}"),
        ("specialise", "--from", "{}", "--device", "local", "--target-ms", "1", "--out", "out"),
        ("deploy", "{}", "--device", "fake", "--name", "x", "--version", "1"),
        ("report", "{}"),
    ],
    ids=lambda command: command[0] if command[-1] != "x.npz" else "verify-model",
)
def test_any_path_ends_in_a_sentence(
    command: tuple[str, ...],
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main([word.replace("{}", given) for word in command])
    said = capfd.readouterr().err
    assert code in (2, 3, 7), said
    assert "unexpected" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("accuracy_tolerance = 1" + "0" * 400, "64 bits cannot hold"),
        ("accuracy_tolerance = 1e400", "inf is not a number from 0 up to 1"),
        ("widths = [0x" + "f" * 400 + "]", "64 bits cannot hold"),
    ],
)
def test_numbers_that_nothing_holds_are_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(MINIMAL.replace("[target]", f"[target]\n{line}"))
    with pytest.raises(RecipeError, match=said):
        Recipe.load(path)
    with pytest.raises(RecipeError, match=said):
        Recipe.load(tmp_path / "r.toml", [f"target.{line.replace(' ', '')}"])


def test_numbers_of_a_plugin_are_finite(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(MINIMAL + "[search.strategy_options]\nx = [1, {y = nan}]\n")
    with pytest.raises(RecipeError, match=r"'strategy_options': nan is not a finite number"):
        Recipe.load(path)


@pytest.mark.parametrize(
    "option",
    [
        *(("--threads", "9" * 400), ("--priority", "9" * 400), ("--priority", str(2**63))),
        *(("--sustained", "9" * 400 + "h"), ("--min-delegated", "nan"), ("--device", "x" * 5000)),
        *(("--store", "x" * 5000), ("--store", "/dev/null"), ("--input-shape", "9x" * 4000)),
    ],
    ids=lambda option: f"{option[0]} {option[1][:9]}",
)
def test_options_that_nothing_holds_are_refused(
    option: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.json"
    model.write_text('{"edgewright_null": 1, "latency_ms": 5.0}')
    code = 7 if option[0] == "--store" else 2
    assert main(["bench", str(model), "--device", "fake", *option]) == code
    said = capfd.readouterr().err
    assert said.startswith("edgewright: ")
    assert "this is a bug" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("8x8x1:same:" + "conv_k3_s1_o1:" * 1001 + "fc3", "1001 blocks and 1 dense layers"),
        ("8x8x1:same:" + "conv_k3_s1_o8:" * 9000 + "fc3", "has 126014 characters"),
        ("999999x999999x3:same:conv_k3_s2_o16:fc10", "a tensor of .* values"),
        ("32x32x1:same:conv_k999999_s1_o999999:fc10", "weights; at most"),
        ("32x32x1:same:conv_k1_s1_o8:fc999999:fc999999", "weights; at most"),
    ],
)
def test_networks_that_nothing_holds_are_refused(line: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ArchSpec.parse(line)


def test_weights_that_are_too_few_are_refused_before_memory_is_taken() -> None:
    spec = ArchSpec.parse("32x32x1:same:conv_k1_s1_o9000:conv_k1_s1_o9000:fc10")
    with pytest.raises(ConfigError, match="3 weights are not the 81099000"):
        refuse_mismatch(spec, {"a": np.zeros(3)})


def test_the_count_of_weights_is_that_of_the_module() -> None:
    from models.build import build

    spec = ArchSpec.parse(
        "8x8x3:same:conv_k3_s2_o8_se2-relu-sigmoid:ds_k3_s1_o8:mb_k5_s1_m24_o8_se6-relu-sigmoid:"
        "mb_k3_s1_o16:fc7:fc3"
    )
    held = {
        name: tensor.numel()
        for name, tensor in build(spec).state_dict().items()
        if name.endswith("weight") and tensor.dim() > 1
    }
    assert spec.weights == sum(held.values())


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[31;1mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("a\x07b\x08c\rd\x9be", "a b c d e"),
        ("\u202eright to left\u2069", " right to left "),
        ("zero\u200bwidth\ufeff", "zero width "),
        ("two\nlines\tand\u2028more", "two\nlines and more"),
        ("half \ud800 pair", "half   pair"),
        ("4\N{NO-BREAK SPACE}ms, 65 \N{DEGREE SIGN}C, \N{CJK UNIFIED IDEOGRAPH-4E2D}", None),
        (None, "None"),
    ],
)
def test_text_is_cleaned(said: object, shown: str | None) -> None:
    assert plain(said) == (said if shown is None else shown)


def test_text_is_cut_in_the_middle() -> None:
    found = plain("begin" + "x" * 100_000 + "end", limit=100)
    assert found.startswith("beginx")
    assert found.endswith("xend")
    assert len(found) == 100


@pytest.mark.parametrize("make", [ConfigError, lambda text: AgentError(text, detail=text)])
def test_every_error_is_a_clean_sentence(make: Callable[[str], EdgewrightError]) -> None:
    error = make("device \x1b[2J" + "x" * 100_000)
    assert str(error).startswith("device x")
    assert len(str(error)) <= 4000
    assert len(getattr(error, "detail", "")) <= 8192


def test_no_reader_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.toml")
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(RecipeError, match="it is a pipe"):
            Recipe.load(tmp_path / "r.toml")
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    assert ended.wait(30)
