"""What every pass promises; a new file in pipeline/compress/passes is tested without a word."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from device_agents.errors import ConfigError
from device_agents.model_files import ModelFile, read
from models.build import build
from models.model import Model
from models.network import Network
from models.spec import ArchSpec
from pipeline.compress.api import Lessons, Needs
from pipeline.compress.chain import BY_FORMAT, apply_passes, plan_quantization, to_model
from pipeline.compress.pass_words import QUANTIZE
from pipeline.compress.passes import PASSES, create
from pipeline.data.tasks.classification import Classification
from pipeline.formats import FORMATS
from pipeline.formats import create as create_format
from pipeline.recipe.recipe import QUANTIZERS

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.compress.api import Pass

LINE = "16x16x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_se4-relu-hardsigmoid_skip:fc5"
KINDS = (Network, Model, ModelFile)


@pytest.fixture(params=PASSES.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def network() -> Network:
    module = build(ArchSpec.parse(LINE), generator=torch.Generator().manual_seed(0))
    return Network(ArchSpec.parse(LINE), module.eval(), ("trained",))


def needs() -> Needs:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 3, 16, 16), np.float32)
    inputs = {"input": images.transpose(0, 2, 3, 1)}
    truths, teachers = rng.integers(5, size=40), (network().model(),)
    return Needs(images, lessons=Lessons(inputs, truths, Classification(), teachers))


def given(step: Pass, folder: Path) -> Any:
    """A network of the kind that a pass takes."""
    if step.takes is Network:
        return network()
    if step.takes is Model:
        return network().model()
    path = folder / "net.tflite"
    path.write_bytes(create_format("tflite").write(network().model()))
    return read(path)


def identity(what: Any) -> tuple[Any, ...]:
    """All that may not change of what a pass is given: weights, formats, history, bytes."""
    if isinstance(what, ModelFile):
        return (what.path.read_bytes(),)
    return what.digest(), what.history


def test_a_pass_is_named_like_its_file(name: str) -> None:
    step = create(name)
    assert step.name == name
    assert step.version >= 1
    assert step.takes in KINDS
    assert not step.quantizes or "scheme" in {field.name for field in fields(step.options)}
    assert PASSES.summary(name).endswith(".")


def test_options_have_defaults_and_are_told(name: str) -> None:
    options = PASSES.load(name).Options
    assert is_dataclass(options)
    assert create(name).options == options()
    for field in fields(options):
        assert field.default is not MISSING or field.default_factory is not MISSING
        assert f"{field.name}:" in (inspect.getdoc(options) or "")
    with pytest.raises(ConfigError, match=f"pass '{name}' has no option 'colour'"):
        create(name, colour="red")
    with pytest.raises(AttributeError):
        setattr(options(), fields(options)[0].name, None)


def test_what_a_pass_gives_is_its_own_and_always_the_same(name: str, tmp_path: Path) -> None:
    step, images = create(name), needs()
    what = given(step, tmp_path)
    before, seen = identity(what), needs().require_images(name)
    first, second = step.apply(what, images), create(name).apply(what, images)
    assert identity(what) == before
    np.testing.assert_array_equal(images.require_images(name), seen)
    assert identity(first) == identity(second)
    assert KINDS.index(type(first)) - KINDS.index(step.takes) in (0, 1)


def test_what_was_done_is_in_the_history(name: str, tmp_path: Path) -> None:
    step = create(name)
    what = given(step, tmp_path)
    found = step.apply(what, needs())
    if isinstance(found, ModelFile):
        return  # a file has no history; that its bytes are others is told by its hash
    assert found.history[: len(what.history)] == what.history
    assert len(found.history) > len(what.history)
    if found.digest() == what.digest():
        assert "nothing" in found.history[-1]


def test_a_chain_takes_it_as_its_only_pass(name: str, tmp_path: Path) -> None:
    step = create(name)
    found = apply_passes(given(step, tmp_path), [step], needs())
    assert identity(found) == identity(step.apply(given(step, tmp_path), needs()))


def test_a_network_becomes_a_model_before_the_first_pass_that_takes_one() -> None:
    found = apply_passes(network(), [create("ptq", images=8)], needs())
    expected = apply_passes(network().model(), [create("ptq", images=8)], needs())
    assert isinstance(found, Model)
    assert identity(found) == identity(expected)
    assert found.history[0] == "trained"
    assert found.history[-1] == "calibrated static8 on 8 images"


def test_no_passes_change_nothing() -> None:
    what = network()
    assert apply_passes(what, [], Needs()) is what
    assert to_model(what).digest() == what.model().digest()


def test_a_pass_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(create_format("tflite").write(network().model()))
    with pytest.raises(ConfigError, match=r"pass 'ptq' takes a Model, .* gives a ModelFile"):
        apply_passes(read(path), [create("ptq")], needs())
    with pytest.raises(ConfigError, match=r"net\.tflite is a file already"):
        to_model(read(path))


def test_a_pass_without_the_images_that_it_needs_says_so() -> None:
    with pytest.raises(ConfigError, match="ptq needs images to calibrate on; give --data RECIPE"):
        apply_passes(network(), [create("ptq")], Needs())
    with pytest.raises(ConfigError, match="ptq, images: 0 is not above 0"):
        create("ptq", images=0)


def test_every_number_format_that_is_written_is_given_by_passes() -> None:
    for name in FORMATS.names():
        for number_format in create_format(name).number_formats:
            passes = plan_quantization(number_format, images=8)
            found = to_model(apply_passes(network(), passes, needs()))
            assert found.number_format == number_format


def test_recipes_know_which_passes_make_codes() -> None:
    quantizing = {name for name in PASSES.names() if create(name).quantizes}
    assert set(QUANTIZERS) == {QUANTIZE if one in BY_FORMAT.values() else one for one in quantizing}
