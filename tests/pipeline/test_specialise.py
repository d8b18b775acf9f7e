"""A trained Once-for-all network taken to a device: no training, a verified file, one line."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from models.network import Network
from pipeline.cli.main import main
from pipeline.data import load_data
from pipeline.formats.files import run_file
from pipeline.recipe.recipe import Recipe
from pipeline.store import Store

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny-ofa.toml"
QUICK = ("--candidates", "40", "--measurements", "4")


def add_board(place: Path, name: str) -> None:
    """Make a device: this computer, with a model folder of its own."""
    devices = place / "config" / "devices"
    devices.mkdir(parents=True, exist_ok=True)
    text = f'extends = "local"\ndirectory = "{place / name}"\n'
    (devices / f"{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two boards and a store in which `first` has had its supernet."""
    place = tmp_path_factory.mktemp("ofa")
    for name in ("first", "second"):
        add_board(place, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_CONFIG", str(place / "config"))
        arguments = ["search", str(RECIPE), "--device", "first"]
        assert main([*arguments, "--store", str(place / "store")]) == 0
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(trained / "config"))
    monkeypatch.chdir(tmp_path)
    return trained


def steps(place: Path, store: str = "store") -> Counter[str]:
    """Return how many steps of each kind the store has."""
    with sqlite3.connect(place / store / "store.db") as database:
        query = "select kind from steps where parent is null"
        return Counter(row[0] for row in database.execute(query))


def specialise(place: Path, *arguments: str) -> int:
    return main(["specialise", "--store", str(place / "store"), *QUICK, *arguments])


def test_a_second_device_is_served_without_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = steps(place)
    assert before["supernet"] == 1
    arguments = ("--device", "second", "--target-ratio", "3", "--out", "out")
    assert specialise(place, *arguments) == 0
    line = capsys.readouterr().out.strip()
    model, network = Path("out/tiny-ofa-second.tflite"), Path("out/tiny-ofa-second.npz")
    assert line.startswith(f"{model}: ")
    assert " ms on second (" in line
    assert "no training" in line
    after = steps(place)
    assert after["supernet"] == 1
    assert after["train"] == after["proxy"] == after["finetune"] == 0
    assert after["measure"] > before["measure"]

    # The file is what the line says, for images of the size that the network asks for.
    found = Network.load(network)
    data = load_data(Recipe.load(RECIPE).data, seed=0).at(found.spec.input).validation
    accuracy = float((run_file(model, data.images).argmax(1) == data.labels).mean())
    assert f"validation accuracy {accuracy:.2%}" in line
    with Store.open(place / "store", create=False) as store:
        assert [run.device for run in store.runs()] == ["first", "second"]

    # The same command again measures nothing.
    assert specialise(place, *arguments) == 0
    assert steps(place) == after


def test_a_run_trains_its_finalists_on_where_the_recipe_says_so(place: Path) -> None:
    shutil.copytree(place / "store", "copy")
    assert (
        main(["run", str(RECIPE), "--device", "first", "--store", "copy", "--until", "train"]) == 0
    )
    after = steps(Path(), "copy")
    assert after["finetune"] == Recipe.load(RECIPE).search.finalists
    assert after["supernet"] == 1


def test_a_supernet_file_serves_as_well(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(place / "store", create=False) as store:
        with sqlite3.connect(place / "store" / "store.db") as database:
            query = "select artifacts from steps where kind = 'supernet' and parent is null"
            (text,) = database.execute(query).fetchone()
        sha256 = text.partition(': "')[2].partition('"')[0] or text.split('"')[3]
        Path("net.npz").write_bytes(store.path(sha256).read_bytes())
    empty = ["specialise", "--store", "elsewhere", *QUICK, "--device", "first"]
    wanted = ["--target-ratio", "3", "--from", "net.npz"]
    assert main([*empty, *wanted]) == 2
    assert "name the recipe they were trained by with --recipe" in capsys.readouterr().err
    assert main([*empty, *wanted, "--recipe", str(RECIPE)]) == 0
    assert Path("tiny-ofa-first.tflite").is_file()
    with sqlite3.connect("elsewhere/store.db") as database:
        kinds = {row[0] for row in database.execute("select kind from steps")}
    assert "supernet" not in kinds


def test_a_target_out_of_reach_ends_with_code_4(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert specialise(place, "--device", "first", "--target-ms", "1e-6") == 4
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no candidate meets the target of 1e-06 ms on first: the fastest of 40" in sentence
    assert "found by ofa_evolution" in sentence
    assert not list(Path().glob("*.tflite"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target-ms", "1", "--from", "tiny-9"), "no run 'tiny-9'"),
        (("--target-ms", "-1"), "--target-ms -1 is not a number above 0"),
        (("--target-ms", "1", "--from", "no/net.npz"), "--from no/net.npz: there is no such file"),
        (("--target-ms", "1", "--out", __file__), "cannot be a folder: File exists"),
        (("--target-ms", "1", "--candidates", "0"), "0 is not in the range"),
        (("--target-ms", "nan"), "--target-ms nan is not a number above 0"),
        ((), "give one of --target-ms and --target-ratio"),
        (("--target-ms", "1", "--target-ratio", "1"), "give one of"),
        (("--target-ms", "1", "--recipe", str(RECIPE)), "--recipe is for a supernet's file"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    code = 7 if sentence.startswith("no run") else 2
    assert specialise(place, "--device", "first", *arguments) == code
    assert sentence in capsys.readouterr().err


def test_a_store_without_a_supernet_says_what_trains_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del place
    Store.open("empty").close()
    arguments = ["specialise", "--device", "first", "--target-ms", "1", "--store", "empty"]
    assert main(arguments) == 2
    assert "holds no trained supernet; `edgewright search RECIPE`" in capsys.readouterr().err
