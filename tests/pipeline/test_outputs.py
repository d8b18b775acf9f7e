"""A run's files: verified before they are named, and made again where another form is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from device_agents.errors import VerificationError
from device_agents.golden import Golden
from models.build import build
from models.lower import lower
from models.network import Network
from models.number_format import FLOAT32, STATIC8
from models.spec import ArchSpec
from pipeline.data import Data, load_dataset
from pipeline.evaluate.files import EXPORT, Exports, export
from pipeline.formats import limits
from pipeline.measure.bench import DeviceBench
from pipeline.measure.form import Form
from pipeline.store import Store
from pipeline.store.memo import Memo
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

DATA = Data(load_dataset("digits", {}, resolution=16, fractions=(0.6, 0.2, 0.2), seed=0))
SPEC = ArchSpec.parse("16x16x1:same:conv_k3_s2_o8_relu:fc10")


class Board:
    """A device that has but an opinion of its kernels."""

    def __init__(self, *, saturates: bool) -> None:
        self.verdict = Golden("onnx", "onnxruntime 1.32", saturates=saturates)

    def golden(self, **_: Any) -> Golden:
        return self.verdict


def exports(place: Path, store: Store, run_id: str, *, saturates: bool) -> Exports:
    device, nobody = cast("Any", Board(saturates=saturates)), cast("Any", None)
    bench = DeviceBench(
        device=device, digest=f"saturates: {saturates}",
        profile=DeviceProfile("board", "local", "/nowhere"), memo=Memo(store), run_id=run_id,
        events=nobody,
    )  # fmt: skip
    folder = place / run_id
    folder.mkdir(exist_ok=True)
    return Exports(folder, bench, DATA, calibration_images=64)


def exported(to: Exports) -> int:
    """Return how many different exports were asked for."""
    return len({step.key for step in to.bench.memo.steps if step.kind == "export"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def network() -> Network:
    return Network(SPEC, build(SPEC, generator=torch.Generator().manual_seed(0)).eval())


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_file_that_fails_verification_gets_no_name(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    to, form = exports(tmp_path, store, "tiny-1", saturates=True), Form(format_, STATIC8)
    with monkeypatch.context() as strict:
        strict.setitem(limits.LIMITS, STATIC8, limits.Limits(200.0, 1.0))
        with pytest.raises(VerificationError, match="int8 costs this network too much"):
            export(network(), "winner", form=form, to=to)
    assert list(to.folder.iterdir()) == []
    file = export(network(), "winner", form=form, to=to)
    assert [file.path] == list(to.folder.iterdir())
    assert file.verification.integers is not None


def test_a_file_is_made_once_for_each_form_that_devices_need(tmp_path: Path, store: Store) -> None:
    to, form = exports(tmp_path, store, "tiny-1", saturates=True), Form("onnx", STATIC8)
    files = [export(network(), "winner", form=form, to=to) for _ in range(2)]
    assert exported(to) == 1
    assert files[0] == files[1]
    assert files[0].verification.integers is not None
    # The same store, another run, on a device whose kernels are exact.
    exact = exports(tmp_path, store, "tiny-2", saturates=False)
    signed = export(network(), "winner", form=form, to=exact)
    assert signed.sha256 != files[0].sha256
    again = export(network(), "winner", form=form, to=to)
    assert again.sha256 == files[0].sha256
    assert exported(to) == exported(exact) == 1
    plain = export(network(), "winner", form=Form("onnx", FLOAT32), to=to)
    assert plain.verification.integers is None


def test_an_export_is_known_by_what_stores_of_before_know_it_by(
    tmp_path: Path, store: Store
) -> None:
    to, made = exports(tmp_path, store, "tiny-1", saturates=True), network()
    known = {"network": made.digest(), "data": DATA.digest}
    for form, inputs in (
        (Form("tflite", FLOAT32), {"calibration_images": 0, "int8_form": ""}),
        (
            Form("tflite", STATIC8),
            {"calibration_images": 64, "int8_form": "s8s8, one scale for a dense layer"},
        ),
        (Form("onnx", STATIC8), {"calibration_images": 64, "int8_form": "uint8 * uint8"}),
    ):
        scheme = "static8" if inputs["calibration_images"] else "float32"
        keyed = {**known, "format": form.runtime, "scheme": scheme, **inputs}
        assert not to.bench.memo.remembers(EXPORT, keyed)
        export(made, "winner", form=form, to=to)
        assert to.bench.memo.remembers(EXPORT, keyed)


def test_an_export_lowers_its_network_once(tmp_path: Path, store: Store) -> None:
    to, made, count = exports(tmp_path, store, "tiny-1", saturates=True), network(), 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is lower.__code__

    sys.setprofile(watch)
    try:
        export(made, "winner", form=Form("tflite", STATIC8), to=to)
    finally:
        sys.setprofile(None)
    assert count == 1
