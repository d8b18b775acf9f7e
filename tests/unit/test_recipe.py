"""Recipes: what is read, what is refused and how, and that docs/recipe.md is complete."""

from __future__ import annotations

import json
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from device_agents.agent.releases import _NAME as _DEVICE_NAME
from device_agents.near_names import nearest_first
from pipeline.cli.main import cli
from pipeline.compress.pass_words import spelled
from pipeline.compress.passes import PASSES
from pipeline.compress.recipe_passes import read_tables
from pipeline.formats import FORMATS
from pipeline.recipe.reader import build
from pipeline.recipe.recipe import QUANTIZERS, Recipe, RecipeError
from pipeline.recipe.sections import RUNTIMES, TrainSection
from pipeline.search.gradient import GRADIENTS
from pipeline.search.space import SPACES
from pipeline.search.strategy import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.recipe.plugins import PluginFolder

ROOT = Path(__file__).parents[2]
SPACE, STRATEGY = SPACES.names()[0], STRATEGIES.names()[0]

MINIMAL = f"""
name = "digits"
[data]
name = "digits"
[target]
baseline = "mobilenet-v2"
[search]
space = "{SPACE}"
strategy = "{STRATEGY}"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "digits.toml"
    file.write_text(MINIMAL)
    return file


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path, overrides)
    assert caught.value.exit_code == 2
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def near(name: str, folder: PluginFolder) -> str:
    """Return the plugins of a folder as a refusal of `name` lists them."""
    return ", ".join(nearest_first(name, folder.names()))


def test_an_exponent_is_of_two_objectives_only(path: Path) -> None:
    assert Recipe.load(path, ["search.exponent=-0.5"]).search.exponent == -0.5
    found = refusal(path, "search.exponent=-0.5", "search.objective=pareto")
    assert "exponent = -0.5 is of the objectives soft and hard; pareto has none" in found


def test_defaults_fill_what_is_not_given(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe.data.split.fractions == (0.6, 0.2, 0.2)
    assert recipe.device.name == "local"
    assert recipe.device.threads is None
    assert recipe.train == TrainSection()


def test_unknown_key_names_file_section_and_nearest_key(path: Path) -> None:
    sentence = refusal(path, "search.candidats=3")
    assert "digits.toml" in sentence
    assert "(with --set search.candidats)" in sentence
    assert (
        "[search] has no option 'candidats'; did you mean 'candidates'? known: candidates,"
        in sentence
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.candidates=0", "[search], option 'candidates': 0 is not a whole number from 1 up"),
        ("search.candidates=2.5", "2.5 is not a whole number"),
        ("search.candidates=many", "'many' is not a whole number"),
        ("search.objective=sofft", "'sofft' is not one of 'soft', 'hard'"),
        (
            "search.proxy.epoch=3",
            "[search.proxy] has no option 'epoch'; did you mean 'epochs'?",
        ),
        ("search.space=mnasent", "no search space 'mnasent' known"),
        ("search.strategy=evolutoin", "no search strategy 'evolutoin' known"),
        ("search.finalists=65", "finalists = 65 is more than candidates = 64"),
        ("search.latency=tabel", "'tabel' is not one of 'measured', 'table'"),
        ("search.table=t.json", "table = 't.json' is not used with latency = 'measured'"),
        ("search.also=[{device='pi', weight=0}]", "[search.also[0]], option 'weight': 0.0 is not"),
        ("search.also=[{latency_ratio=1}]", "[search.also[0]] needs the option 'device'"),
        ("search.also=[{device='pi', ratio=1}]", "[search.also[0]] has no option 'ratio'"),
        ("search.also=['pi']", "[search], option 'also', item 0: 'pi' is not a table of device"),
        ("search.also='pi'", "option 'also': 'pi' is not a list; write [[search.also]]"),
        ("search.table=' '", "[search], option 'table': the text is empty"),
        ("search.strategy_options.a=[inf]", "'strategy_options': inf is not a finite number"),
        ("target.latency_ms=0", "[target], option 'latency_ms': 0.0 is not a number above 0"),
        ("search.space_options=[]", "[search], option 'space_options': [] is not a table"),
        (
            "device.runtime=onx",
            f"no runtime 'onx' known; did you mean 'onnx'? have {near('onx', RUNTIMES)}",
        ),
        ("data.name=digitz", "no data set 'digitz' known; did you mean 'digits'? have digits"),
        ("data.name=", "the text is empty"),
        ("data.options=3", "[data], option 'options': 3 is not a table"),
        ("data.resolution=true", "True is not a whole number"),
        ("data.split.test=0.5", "add up to 1.3; they must add up to 1"),
        ("target.widths=[]", "the list is empty"),
        ("target.widths=[0.5, 0]", "[target], option 'widths': 0.0 is not a number above 0"),
        ("target.latency_ratio=nan", "nan is not a number above 0"),
        ("target.latency_ratio=inf", "inf is not a number above 0"),
        ("target.latency_ratio=-1", "-1.0 is not a number above 0"),
        ("train.learning_rate=nan", "nan is not a number above 0 up to 100"),
        ("train.weight_decay=1.5", "1.5 is not a number from 0 up to 1"),
        ("search.proxy.epochs=0", "[search.proxy], option 'epochs': 0 is not a whole number"),
        (
            "export.formats=['tflit']",
            f"no export format 'tflit' known; did you mean 'tflite'? have {near('tflit', FORMATS)}",
        ),
        ("seed=-1", "-1 is not a whole number from 0"),
        ("name=../x", "name = '../x' is not a name"),
        ("trian.epochs=3", "has no option 'trian'; did you mean 'train'? known: train"),
        ("name.x=3", "'name' is not a section but a value"),
        ("train", "write --set section.key=value"),
        ("=3", "write --set section.key=value"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(path: Path, override: str, expected: str) -> None:
    assert expected in refusal(path, override)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(MINIMAL.replace('baseline = "mobilenet-v2"', ""))
    assert "[target] needs the option 'baseline'" in refusal(file)
    file.write_text("")
    assert "needs the option 'name'" in refusal(file)


def test_a_command_names_the_section_that_it_misses(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('name = "short"\ndata = { name = "digits" }\n')
    recipe = Recipe.load(file)
    assert (recipe.search, recipe.target) == (None, None)
    sentence = r"'short' has no \[search\], which `edgewright run` needs; add \[search\] with a spa"
    with pytest.raises(RecipeError, match=sentence):
        recipe.need_search("run")
    with pytest.raises(RecipeError, match=r"no \[target\], which `edgewright tune` needs; add \[t"):
        recipe.need_target("tune")
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    said = CliRunner().invoke(cli, ["run", str(file)]).exception
    assert isinstance(said, RecipeError)
    assert "no [search], which `edgewright run` needs" in str(said)


def test_recipes_of_before_are_still_the_same(path: Path) -> None:
    """A run is found by its recipe's digest; this one was taken before recipes named a task."""
    path.write_text(
        'name = "digits"\ndata = { name = "digits" }\ntarget = { baseline = "mobilenet-v2" }\n'
        'search = { space = "mnasnet", strategy = "random_search" }\n'
    )
    assert Recipe.load(path).digest() == "f5ba12468c4f3e31"
    assert "task" not in Recipe.load(path).to_json()["data"]
    with pytest.raises(RecipeError, match=r"\[data\], option 'task': no task 'regresion' known"):
        Recipe.load(path, ["data.task=regresion"])


def test_files_that_are_no_recipe(path: Path) -> None:
    assert str(path) in refusal(path.with_name("digts.toml"))  # names the recipe that is there
    path.write_text("name = \n")
    assert "is not TOML that a recipe can be" in refusal(path)
    assert "line 1" in refusal(path)
    path.write_bytes(b"name = '\xff'")
    assert "not UTF-8" in refusal(path)
    assert "cannot read" in refusal(path.parent)


def test_only_recipes_are_offered_for_one_that_is_not_there(path: Path) -> None:
    for name, text in (
        ("recipe.toml", "[tool.ruff]"),
        ("nosuch-device.toml", 'transport = "local"'),
        ("nosuch-at-all.toml", "search = [damaged"),
    ):
        (path.parent / name).write_text(text)
    folder = path.parent / "recipes"
    folder.mkdir()
    (folder / "second.toml").write_text(path.read_text())
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path.parent / "nosuch.toml")
    offered = str(caught.value).partition("; have ")[2].split(", ")
    assert sorted(offered) == sorted([str(path), str(folder / "second.toml")])


def test_overrides_take_toml_values_and_plain_words(path: Path) -> None:
    recipe = Recipe.load(
        path,
        [
            "device.name=pi4",
            "search.candidates=20",
            "target.widths=[0.35, 1]",
            "target.latency_ratio=9e99",
            "search.strategy_options.population = 8",
            'report.path="a b.html"',
        ],
    )
    assert recipe.device.name == "pi4"
    assert recipe.search.candidates == 20
    assert recipe.target.widths == (0.35, 1.0)
    assert recipe.target.latency_ratio == 9e99
    assert recipe.search.strategy_options == {"population": 8}
    assert recipe.report.path == "a b.html"


def test_a_value_on_the_command_line_cannot_bring_further_keys(path: Path) -> None:
    assert "is not a whole number" in refusal(path, "search.candidates=3\nbatch = 1")


def test_further_devices_are_read_and_survive_json(path: Path) -> None:
    also = "search.also=[{device='pi4', latency_ratio=0.5}, {device='phone', weight=2}]"
    recipe = Recipe.load(path, [also, "search.combine=weighted"])
    assert [(d.device, d.latency_ratio, d.weight) for d in recipe.search.also] == [
        ("pi4", 0.5, 1.0),
        ("phone", 1.0, 2.0),
    ]
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ("{pass='prun'}", "[[compress]] table 1: no pass 'prun' known; did you mean 'prune'?"),
        ("{ratio=0.5}", '[[compress]] table 1: it names no pass; write pass = "prune", say'),
        (
            "{pass='prune'}, {pass='prune', ration=0.5}",
            "[[compress]] table 2: pass 'prune' has no option 'ration'; did you mean 'ratio'?",
        ),
        ("{pass='prune', ratio=2}", "[[compress]] table 1: prune, ratio: 2 is not at least 0"),
        ("{pass='prune', scope=3}", "table 1: pass 'prune', option 'scope': 3 is not one of"),
        ("{pass='prune', max_drop='x'}", "table 1: max_drop = 'x' is no number of points"),
        ("{pass='prune', max_drop=-1}", "table 1: max_drop = -1 is no number of points"),
        ("{pass='quantize', format='static9'}", "[[compress]] table 1: "),
        ("{pass='quantize', format='float32'}", "table 1: quantize leaves numbers as they are"),
        ("{pass='quantize', scheme='static8'}", 'write the number format as format = "static8"'),
        ("{pass='ptq'}", "table 1: no pass 'ptq' known"),
        (
            "{pass='quantize', format='dynamic8'}, {pass='prune'}",
            "[[compress]] table 2: it comes after quantize:dynamic8, and numbers are made smaller",
        ),
    ],
)
def test_tables_of_passes_that_cannot_be_are_named_by_their_number(
    path: Path, tables: str, expected: str
) -> None:
    assert f"{path} (with --set compress): " in refusal(path, f"compress=[{tables}]")
    assert expected in refusal(path, f"compress=[{tables}]")


def test_passes_are_tables_in_order_and_survive_json(path: Path) -> None:
    text = '[[compress]]\npass = "prune"\nratio = 0.25\n[[compress]]\npass = "quantize"\n'
    plain = Recipe.load(path)
    assert plain.compress == ()
    assert "compress" not in plain.to_json()
    path.write_text(path.read_text() + text)
    recipe = Recipe.load(path)
    assert [table["pass"] for table in recipe.compress] == ["prune", "quantize"]
    assert recipe.quantizes
    assert not plain.quantizes
    assert recipe.digest() != plain.digest()
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    planned = read_tables(recipe.compress, "it", images=7, multiple=4)
    assert [one.words for one in planned] == ["prune:ratio=0.25", "quantize:static8"]
    assert (planned[0].one.options.multiple, planned[1].one.options.images) == (4, 7)
    said = refusal(path, "quantize.calibration_images=8")
    assert "the last table of [[compress]] quantises, and [quantize] says how too: drop one" in said
    path.write_text(MINIMAL + '[compress]\npass = "prune"\n')
    assert "is not a list; write [[compress]]" in refusal(path)


def test_a_recipe_knows_which_passes_quantise() -> None:
    quantising = {name for name in PASSES.names() if PASSES.load(name).quantizes}
    assert {*QUANTIZERS} == {"quantize"} | {name for name in quantising if name in spelled()}


def test_a_gradient_search_is_named_like_a_strategy(path: Path) -> None:
    for name in GRADIENTS.names():
        assert Recipe.load(path, [f"search.strategy={name}"]).search.strategy == name


def test_proxy_training_is_the_training_with_the_proxy_keys(path: Path) -> None:
    sets = ["search.proxy.epochs=2", "train.label_smoothing=0.1", "train.augment=1"]
    recipe = Recipe.load(path, sets)
    proxy = recipe.need_search("run").proxy.instead_of(recipe.train)
    assert (proxy.epochs, proxy.label_smoothing, proxy.augment) == (2, 0.1, 0.0)
    assert recipe.train.epochs == TrainSection().epochs


def test_digest_changes_with_any_value_and_only_then(path: Path) -> None:
    digest = Recipe.load(path).digest()
    assert Recipe.load(path).digest() == digest
    assert Recipe.load(path, ["train.epochs=30"]).digest() == digest  # the default, spelt out
    assert Recipe.load(path, ["train.epochs=31"]).digest() != digest
    assert Recipe.load(path, ["seed=1"]).digest() != digest


def test_where_the_page_goes_makes_no_other_run(path: Path) -> None:
    moved = Recipe.load(path, ["report.path=elsewhere.html"])
    assert moved.digest() == Recipe.load(path).digest()
    assert moved.to_json()["report"] == {"path": "elsewhere.html"}


def test_a_release_of_the_longest_name_fits_on_a_device(path: Path) -> None:
    longest = "a" * 48
    assert Recipe.load(path, [f"name={longest}"]).name == longest
    assert _DEVICE_NAME.fullmatch(f"{longest}-99999-0123abcd")
    assert "use up to 48 letters" in refusal(path, f"name={longest}a")


def _values(option: Field[Any], hint: Any) -> st.SearchStrategy[Any]:
    """Return values that a key allows, drawn from its own type and bounds."""
    rule, args = option.metadata, typing.get_args(hint)
    if type(None) in args:
        (inner,) = [arg for arg in args if arg is not type(None)]
        return st.none() | _values(option, inner)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(args)
    if rule.get("plugin") and hint is str:
        module, _, folder = rule["plugin"].partition(":")
        return st.sampled_from(getattr(import_module(module), folder).names())
    if hint is int:
        return st.integers(rule.get("low", 0), rule.get("high", 10**6))
    if hint is float:
        low = rule.get("low", rule.get("above", 0.0))
        return st.floats(low, rule["high"], exclude_min="above" in rule, allow_nan=False)
    return st.just(option.default if option.default is not MISSING else "digits")


@st.composite
def _sections(draw: st.DrawFn, cls: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {
        option.name: draw(_values(option, hints[option.name]))
        for option in fields(cls)
        if not is_dataclass(hints[option.name]) and option.default is not MISSING
    }


@given(_sections(TrainSection), st.data())
def test_any_allowed_value_survives_json(train: dict[str, Any], data: st.DataObject) -> None:
    hints = typing.get_type_hints(Recipe)
    names = ("device", "quantize", "export", "report")
    tables = {name: data.draw(_sections(hints[name])) for name in names}
    tables = {
        name: {key: value for key, value in table.items() if value is not None}
        for name, table in tables.items()
    }
    for key in ("max_drop", "float_layers"):  # go with a [model], in place of [search]
        tables["quantize"].pop(key, None)
    base = {
        "name": "digits",
        "data": {"name": "digits"},
        "target": {"baseline": "mobilenet-v2", "latency_ratio": 0.55},
        "search": {"space": SPACE, "strategy": STRATEGY},
    }
    recipe = build(Recipe, {**base, "train": train, **tables}, "test")
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert again.digest() == recipe.digest()


def _keys(cls: type[Any], section: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for option in fields(cls):
        name = f"{section}.{option.name}" if section else option.name
        hint = hints[option.name]
        listed = [arg for arg in typing.get_args(hint) if is_dataclass(arg)]
        inner = hint if is_dataclass(hint) else next(iter(listed), None)
        if type(None) in typing.get_args(hint):  # a section that may be left out
            listed = []
        if inner is None or listed:
            yield name
        if inner is not None:
            yield from _keys(typing.cast("type[Any]", inner), name)


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "recipe.md").read_text()
    missing = [key for key in _keys(Recipe) if f"| `{key}` |" not in text]
    assert not missing


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda f: f.stem)
def test_shipped_recipes_are_read(file: Path) -> None:
    assert Recipe.load(file).name
