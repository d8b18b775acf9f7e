"""A run's files: verified before they are named, and made again where another form is needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from device_agents.errors import VerificationError
from device_agents.golden import Golden
from models.build import build
from models.network import Network
from models.number_format import STATIC8
from models.spec import ArchSpec
from pipeline.data import load_dataset
from pipeline.evaluate.files import export
from pipeline.formats import verify
from pipeline.measure.context import Workshop
from pipeline.recipe.recipe import Recipe
from pipeline.store import Store
from pipeline.store.run_folder import folder

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = ArchSpec.parse("16x16x1:same:conv_k3_s2_o8_relu:fc10")


class Run(Workshop):
    """A context with the real store, memory and data, and a device's verdict on its kernels."""

    run = SimpleNamespace(id="tiny-1")
    profile = SimpleNamespace(threads=1)
    device_digest = "board"
    golden = Golden("onnx", "onnxruntime 1.32", saturates=True)

    @property
    def device(self) -> Any:
        return SimpleNamespace(golden=lambda **_: self.golden)

    def done(self, kind: str) -> int:
        """Return how many different steps of a kind were asked for."""
        return len({step.key for step in self.steps if step.kind == kind})


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Any]:
    data = load_dataset("digits", {}, resolution=16, fractions=(0.6, 0.2, 0.2), seed=0)
    recipe = Recipe.load(Path(__file__).parents[1] / "recipes" / "tiny.toml")
    with Store.open(tmp_path / "store") as store:
        yield Run(recipe=recipe, dataset=data, dataset_digest=data.digest(), store=store)


def network() -> Network:
    return Network(SPEC, build(SPEC, generator=torch.Generator().manual_seed(0)).eval())


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_file_that_fails_verification_gets_no_name(
    ctx: Any, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    with monkeypatch.context() as strict:
        strict.setitem(verify.LIMITS, STATIC8, verify.Limits(200.0, 1.0))
        with pytest.raises(VerificationError, match="int8 costs this network too much"):
            export(ctx, network(), "winner", format_, "static8")
    assert list(folder(ctx).iterdir()) == []
    file = export(ctx, network(), "winner", format_, "static8")
    assert [file.path] == list(folder(ctx).iterdir())
    assert file.verification.integers is not None


def test_a_file_is_made_once_for_each_form_that_devices_need(
    ctx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [export(ctx, network(), "winner", "onnx", "static8") for _ in range(2)]
    assert ctx.done("export") == 1
    assert files[0] == files[1]
    assert files[0].verification.integers is not None
    # The same store, another run, on a device whose kernels are exact.
    monkeypatch.setattr(Run, "golden", Golden("onnx", "onnxruntime 1.32"))
    monkeypatch.setattr(Run, "run", SimpleNamespace(id="tiny-2"))
    signed = export(ctx, network(), "winner", "onnx", "static8")
    assert signed.sha256 != files[0].sha256
    assert ctx.done("export") == 2
    assert export(ctx, network(), "winner", "onnx", "float32").verification.integers is None
