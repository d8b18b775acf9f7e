"""Modules of torch as users name them: read in a process of their own, or refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import ConfigError
from models.model import Model
from pipeline.formats.api import ReadOptions, Unsupported
from pipeline.formats.source import read_model
from pipeline.formats.torch import names_module, pt2
from pipeline.formats.torch.read import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NETS = """
import os
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
    def forward(self, image):
        return self.fc(self.bn(self.conv(image)).relu().mean((2, 3)))

class Sized(nn.Module):
    def __init__(self, classes, *, width):
        super().__init__()

class Two(nn.Module):
    def forward(self, left, right, scale=None):
        return left @ right

def ready(): return Net()
net = Net()
Pair = Two
class inside:
    net = net
def empty(): raise RuntimeError("no weights here")
def number(): return 3
def branches():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x
    return Branches()
def top():
    class Top(nn.Module):
        def forward(self, x):
            return x.topk(2, 1).values
    return Top()
def dies(): os.abort()
def hoards(): return torch.zeros(1 << 36)
def waits():
    import time
    time.sleep(60)
"""
IMAGE = ReadOptions(shapes={"": (1, 3, 8, 10)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("user")
    (place / "nets.py").write_text(NETS)
    script = (
        "import sys, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import nets\n"
        "folder = sys.argv[1]\n"
        "net = nets.net.eval()\n"
        "torch.save(net.state_dict(), f'{folder}/weights.pt')\n"
        "torch.save(net, f'{folder}/whole.pt')\n"
        "torch.save(torch.zeros(2), f'{folder}/tensor.pt')\n"
        "torch.jit.trace(net, torch.zeros(1, 3, 8, 10)).save(f'{folder}/script.pt')\n"
        "image = torch.zeros(2, 3, 8, 10)\n"
        "torch.export.save(torch.export.export(net, (image[:1],)), f'{folder}/fixed.pt2')\n"
        "many = torch.export.Dim('many', min=1, max=64)\n"
        "high = torch.export.Dim('high', min=4, max=64)\n"
        "open_ = torch.export.export(net, (image,), dynamic_shapes={'image': {0: many, 2: high}})\n"
        "torch.export.save(open_, f'{folder}/open.pt2')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(place)], check=True)
    return place


def made(found: Model | Unsupported) -> Model:
    assert isinstance(found, Model)
    return found


def test_code_is_told_from_files() -> None:
    for source in ("nets:Net", "a.b.c:make", "dir/nets.py:Net", "nets.py:inside.net"):
        assert names_module(source)
    for source in ("nets.py", "C:", "net.onnx", "a:b:1", "a b:c", ":x", "x:"):
        assert not names_module(source), source


def test_a_function_a_class_and_an_instance_are_read(folder: Path) -> None:
    weights = ReadOptions(IMAGE.shapes, weights=folder / "weights.pt")
    model = made(read_model(f"{folder}/nets.py:Net", weights))
    assert [op.name for op in model.graph.ops if op.has_weights] == ["conv", "fc"]
    assert model.inputs[0].name == "image"
    named = ReadOptions(shapes={"image": (1, 3, 12, 9)})
    assert made(read_model(f"{folder}/nets.py:ready", named)).graph.image_shape == (12, 9, 3)
    assert made(read_model(f"{folder}/nets.py:inside.net", IMAGE)).graph.image_shape == (8, 10, 3)


def test_code_may_have_modules_of_our_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text(NETS)
    (tmp_path / "pipeline.py").write_text("from models import Net\n")
    monkeypatch.chdir(tmp_path)
    for source in ("pipeline.py:Net", "models:Net"):
        assert made(read_model(source, IMAGE)).graph.output.out_shape == (1, 5)


def test_a_module_on_the_path_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert made(read_model("nets:net", IMAGE)).graph.output.out_shape == (1, 5)


def test_a_program_of_torch_export_is_read(folder: Path) -> None:
    fixed = made(read_model(f"{folder}/fixed.pt2", ReadOptions()))
    assert fixed.graph.image_shape == (8, 10, 3)
    opened = ReadOptions(shapes={"image": (1, 3, 16, 10)})
    assert made(read_model(f"{folder}/open.pt2", opened)).graph.image_shape == (16, 10, 3)
    with pytest.raises(ConfigError, match=r"leaves dimensions of its input 'image' open"):
        read(f"{folder}/open.pt2", ReadOptions())
    with pytest.raises(ConfigError, match=r"exported for image of shape \(1, 3, 8, 10\), not"):
        read(f"{folder}/fixed.pt2", ReadOptions(shapes={"image": (1, 3, 9, 10)}))


def test_a_pickle_is_not_read_unless_it_is_trusted(folder: Path) -> None:
    for name in ("whole.pt", "weights.pt", "script.pt"):
        with pytest.raises(ConfigError) as refusal:
            read(f"{folder}/{name}", IMAGE)
        said = str(refusal.value)
        assert "is a pickle, which runs whatever code it holds" in said
        assert f"--weights {folder}/{name}" in said
        assert "--trust" in said


def test_a_trusted_pickle_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # where its class is found
    trusted = ReadOptions(IMAGE.shapes, trust=True)
    assert made(read(f"{folder}/whole.pt", trusted)).graph.output.out_shape == (1, 5)
    with pytest.raises(ConfigError, match=r"script\.pt is TorchScript"):
        read(f"{folder}/script.pt", trusted)
    with pytest.raises(ConfigError, match=r"holds a Tensor, not a module"):
        read(f"{folder}/tensor.pt", trusted)


def test_more_than_weights_is_not_taken_for_weights(folder: Path) -> None:
    whole = ReadOptions(IMAGE.shapes, weights=folder / "whole.pt")
    with pytest.raises(ConfigError, match=r"whole\.pt is not a file of weights alone"):
        read(f"{folder}/nets.py:Net", whole)
    with pytest.raises(ConfigError, match=r"the weights .*weights\.pt are not .*nets\.py:Two's"):
        read(f"{folder}/nets.py:Two", ReadOptions(weights=folder / "weights.pt"))
    with pytest.raises(ConfigError, match=r"no weights file .*none\.pt"):
        read(f"{folder}/nets.py:Net", ReadOptions(weights=folder / "none.pt"))


BAD: dict[str, tuple[ReadOptions, str]] = {
    "nets.py:Missing": (IMAGE, r"nets\.py has no 'Missing'; it has .*Net"),
    "nets.py:Sized": (IMAGE, r"Sized needs the arguments classes, width; write a function"),
    "nets.py:number": (IMAGE, r"number gives a int, not a torch\.nn\.Module"),
    "nets.py:empty": (IMAGE, r"calling .*empty fails: RuntimeError: no weights here"),
    "nets.py:Net": (ReadOptions(), r"takes image, and no shape of 'image' is given"),
    "nets.py:net": (ReadOptions({"pixels": (1, 3, 8, 8)}), r"no input 'pixels'; its inputs: image"),
    "nets.py:ready": (ReadOptions({"": (1, 2, 8, 8)}), r"fails on inputs of these shapes.*image"),
    "nets.py:Two": (
        ReadOptions({"left": (1, 2, 3)}),
        r"takes left, right, and no shape of 'right'",
    ),
    "nets.py:Pair": (ReadOptions({"": (1, 2, 3)}), r"of an only input; .*Pair takes left, right"),
    "nets.py:branches": (IMAGE, r"torch\.export cannot capture .*branches"),
    "nets.py:dies": (IMAGE, r"the process that read .*dies died with SIGABRT"),
    "nets.py:hoards": (IMAGE, r"calling .*hoards fails: RuntimeError"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_sentence(folder: Path, name: str) -> None:
    options, expected = BAD[name]
    with pytest.raises(ConfigError, match=expected) as refusal:
        read(f"{folder}/{name}", options)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 700


def test_code_that_cannot_be_imported_is_one_sentence(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(ConfigError, match=r"importing .*broken\.py fails: ModuleNotFoundError"):
        read(f"{folder}/broken.py:Net", IMAGE)
    with pytest.raises(ConfigError, match=r"no file .*none\.py"):
        read(f"{folder}/none.py:Net", IMAGE)


def test_unknown_ops_come_out_of_the_process(folder: Path) -> None:
    found = read(f"{folder}/nets.py:top", IMAGE)
    assert isinstance(found, Unsupported)
    assert [(op.kind, op.place) for op in found.ops] == [("topk", "topk")]


def test_code_that_does_not_end_is_ended(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"waits was not read within 8 s"):
        read(f"{folder}/nets.py:waits", IMAGE, timeout_s=8)


def with_member(source: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """Copy an archive; a member that ends with `name` is changed, or added."""
    found = False
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith(name):
                found, content = True, change(content)
            new.writestr(item.filename, content)
        if not found:
            new.writestr(f"{root}/{name}", change(b""))
    return target


def test_a_program_that_holds_code_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    pt2.check(folder / "open.pt2")
    library = with_member(
        folder / "open.pt2", tmp_path / "a.pt2", "data/aotinductor/model/x.so", lambda _: b"x"
    )
    with pytest.raises(ConfigError, match=r"holds a compiled library, which runs as code"):
        read(str(library), IMAGE)
    pickled = with_member(
        folder / "open.pt2", tmp_path / "b.pt2", "data/constants/opaque_obj_0", lambda _: b"x"
    )
    with pytest.raises(ConfigError, match=r"holds a pickled object"):
        read(str(pickled), IMAGE)

    def evil(content: bytes) -> bytes:
        assert b'"expr_str"' in content
        before, _, after = content.partition(b'"expr_str": "')
        return before + b'"expr_str": "__import__(\'os\').getpid()+' + after

    expression = with_member(folder / "open.pt2", tmp_path / "c.pt2", "models/model.json", evil)
    with pytest.raises(ConfigError, match=r"holds the expression"):
        read(str(expression), IMAGE)
    (tmp_path / "d.pt2").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ConfigError, match=r"d\.pt2 is not a readable \.pt2 archive"):
        read(str(tmp_path / "d.pt2"), IMAGE)


def test_no_more_of_a_program_is_read_than_is_allowed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pt2, "_PROGRAM_LIMIT_BYTES", 1 << 20)
    long = with_member(
        folder / "open.pt2", tmp_path / "long.pt2", ".json", lambda text: text + b" " * (2 << 20)
    )
    with pytest.raises(ConfigError, match="holds a program of more than 1 MiB of text"):
        pt2.check(long)
