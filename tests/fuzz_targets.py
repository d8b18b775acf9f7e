"""The readers that are tried with corrupted input (`tests.fuzzing`), each with good files."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
import zlib
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import device_agents.golden
from device_agents import bounded, model_files
from device_agents.agent import wire
from device_agents.agent.runtimes.onnx import read_profile
from device_agents.api import BenchProtocol, Failure, TensorValue
from device_agents.errors import ConfigError, DeviceError
from device_agents.fakes.script import read_script
from device_agents.measure.measuring import run_canary
from device_agents.runner import Device
from device_agents.session import Session
from device_agents.tools import benchmark_proto
from device_agents.tools.figures import read_log
from device_agents.tools.op_profile import parse_profile
from models.lower import lower
from models.model import random_model
from models.network import Network
from models.spec import ArchSpec
from pipeline.cli.commands import _bench_text, _inspection_text
from pipeline.cli.commands._inspection import inspect_model
from pipeline.coding.files import unpack_file
from pipeline.data.sets.idx import Idx
from pipeline.data.sets.npz import Npz
from pipeline.data.splits import check
from pipeline.formats import create
from pipeline.formats.files import run_file
from pipeline.formats.tflite.read import read_tflite
from pipeline.recipe.recipe import Recipe
from profiles.registry import load_device
from profiles.schema import DeviceProfile, profile_from, read_toml
from profiles.table import LatencyTable
from tests.fuzzing import Target, in_bytes, in_members, in_text, in_values, npz
from tests.packed_files import small_packed
from tests.tflite_cases import CASES
from tests.unit.test_benchmark_proto import WHOLE
from tests.unit.test_benchmark_text import PLAIN
from tests.unit.test_table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import OnSent

ROOT = Path(__file__).parents[1]
SPEC = "8x8x1:same:conv_k3_s2_o4:mb_k3_s1_m8_o4_se2-relu-sigmoid_skip:fc3"
QUICK = replace(BenchProtocol.quick(), processes=1, max_processes=1, target_half_width=1.0)


@cache
def targets() -> dict[str, Target]:
    """Return all targets by name."""
    return {
        **_texts(),
        **_arrays(),
        **_models(),
        **{f"answer-{op}": _answer(op) for op in _CALLS},
    }


def _texts() -> dict[str, Target]:
    recipes = [path.read_bytes() for path in sorted((ROOT / "recipes").glob("*.toml"))]
    profiles = [b'extends = "raspberry_pi_4b"\naddress = "pi"\nthreads = 2\ncpus = [2, 3]\n']
    profiles.append(b'transport = "ssh"\nport = 22\ncool_celsius = 50.5\nxnnpack = false\n')
    script = b"seed = 3\n[latency]\nfactor = 2.0\n[[fault]]\nkind = 'hang'\nat_call = 2\n"
    table = json.dumps(TABLE.to_json()).encode()
    spec_json = json.dumps(ArchSpec.parse(SPEC).to_json()).encode()
    deep = (b"a = " + b"[" * 5000, b"a." * 5000 + b"b = 1", b"[" + b"a." * 400 + b"b]\n")
    logs = (PLAIN.encode(), _NCNN, _ORT, _LOGCAT)
    return {
        "recipe": Target(Recipe.load, ".toml", recipes, in_text, deep),
        "profile": Target(_profile, ".toml", profiles, in_text, deep),
        "fake-script": Target(
            lambda path: read_script(str(path)), ".toml", [script], in_text, deep
        ),
        "table": Target(
            LatencyTable.load, ".json", [table], in_values, (b"[" * 10**6, b"[]," * 10**6)
        ),
        "table-text": Target(LatencyTable.load, ".json", [table], in_text),
        "spec": Target(
            lambda path: ArchSpec.parse(path.read_bytes().decode("latin-1")),
            ".txt",
            [SPEC.encode()],
            in_text,
            (b"8x8x1:same:" + b"conv_k3_s1_o8:" * 200_000 + b"fc3", b"9" * 10**6),
        ),
        "spec-json": Target(
            lambda path: ArchSpec.from_json(_json_object(path)), ".json", [spec_json], in_values
        ),
        "log": Target(_log, ".log", logs, in_text, (b"x" * 10**6, PLAIN.encode() * 200)),
        "op-profile": Target(lambda path: parse_profile(_log_text(path)), ".log", logs, in_text),
        "onnx-profile": Target(_onnx_profile, ".json", [_ONNX_PROFILE], in_values),
        "benchmark-result": Target(_result, ".pb", [WHOLE], in_bytes),
    }


def _models() -> dict[str, Target]:
    """Return the readers of model files, which no runtime sees before they have passed."""
    golden = Path(device_agents.golden.__file__).parent
    spec = ArchSpec.parse(SPEC)
    graph = lower(spec)
    model = random_model(graph, np.random.default_rng(0))
    images = np.zeros((2, spec.input[2], *spec.input[:2]), np.float32)
    made = {}
    for name in ("tflite", "onnx"):
        seed = (golden / f"golden.{name}").read_bytes()
        made[f"model-{name}"] = Target(model_files.read, f".{name}", [seed], in_bytes)
        written = create(name).write(model)
        run = partial(run_file, images=images, apart=True)
        made[f"run-{name}"] = Target(run, f".{name}", [written], in_bytes)
        made[f"inspect-{name}"] = Target(_inspect, f".{name}", [seed], in_bytes)
    others = [case.build()[0] for case in CASES.values()]
    made["packed"] = Target(_unpack, ".ewp", [small_packed()[1]], in_bytes)
    made["read-tflite"] = Target(read_tflite, ".tflite", others, in_bytes)
    return made


def _unpack(path: Path) -> object:
    with tempfile.TemporaryFile() as target:
        return unpack_file(path, target)


def _inspect(path: Path) -> object:
    return _inspection_text.lines(str(path), inspect_model(str(path), {}, as_graph=False))


def _arrays() -> dict[str, Target]:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 8, 8), np.uint8)
    labels = np.arange(12) % 3
    data = npz(images=pictures, labels=labels)
    idx = bytes([0, 0, 8, 3]) + struct.pack(">3I", 12, 8, 8) + pictures.tobytes()
    huge = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 20, 32, 32)
    bomb = gzip.compress(huge + bytes(1 << 27), 1)
    return {
        "npz": Target(_npz, ".npz", [data], in_members, (_npz_bomb(), b"PK\x05\x06" + bytes(18))),
        "idx": Target(
            partial(_idx, labels.astype(np.uint8)),
            "",
            [idx, gzip.compress(idx)],
            in_bytes,
            (bomb, huge),
        ),
        "network": Target(Network.load, ".npz", [_network()], in_members),
    }


def _profile(path: Path) -> object:
    values = read_toml(path)
    extended = values.pop("extends", None)
    if extended is not None:
        load_device(extended)
    return profile_from("x", values, source=path)


def _json_object(path: Path) -> dict[str, Any]:
    found = bounded.json_value(bounded.read_text(path, limit_bytes=bounded.JSON_BYTES))
    if not isinstance(found, dict):
        raise ConfigError("no JSON object")
    return found


def _log_text(path: Path) -> str:
    return bounded.read_text(path, limit_bytes=1 << 26, errors="replace")


def _log(path: Path) -> object:
    return [asdict(figure) for figure in read_log(_log_text(path))]


def _onnx_profile(path: Path) -> object:
    try:
        return read_profile(path)
    except ValueError as error:  # what the agent makes a refusal of
        raise DeviceError(str(error)) from error


def _result(path: Path) -> object:
    try:
        return benchmark_proto.parse_result(path.read_bytes())
    except ValueError as error:  # what the reader of a process's output goes on from
        raise DeviceError(str(error)) from error


def _npz(path: Path) -> object:
    return check("npz", Npz(str(path)).load())


def _idx(labels: np.ndarray[Any, Any], path: Path) -> object:
    beside = path.with_name("labels")
    beside.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels)) + labels.tobytes())
    return check("idx", Idx(str(path), str(beside)).load())


def _npz_bomb() -> bytes:
    """Return an .npz of half a megabyte that declares 512 MB of pictures."""
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 19, 32, 32)}
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(512):
                member.write(bytes(1 << 20))
        archive.writestr("labels.npy", zlib.compress(b""))
    return made.getvalue()


def _network() -> bytes:
    import tempfile

    import torch

    from models.build import build

    spec = ArchSpec.parse(SPEC)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        Network(spec, build(spec, generator=generator).eval(), ("made",)).save(path)
        return path.read_bytes()


_NCNN = b"""loop_count = 8
num_threads = 4
powersave = 0
gpu_device = -1
cooling_down = 1
        squeezenet  min =   23.06  max =   23.39  avg =   23.22
 mobilenet_int8  min =   24.85  max =   25.21  avg =   25.04
"""
_ORT = b"""Setting intra_op_num_threads to 1
Session creation time cost: 0.027 s
Total time cost (including warm-up): 1.2 s
net.onnx,0.01,17000000,40000000,1
net.onnx,0.01,17100000,40000000,2
"""
_LOGCAT = "".join(
    f"05-31 10:38:42.569 22206 22207 I tflite  : {line}\n" for line in PLAIN.splitlines()
).encode()
_ONNX_PROFILE = json.dumps(
    [
        {"cat": "Session", "name": "model_loading", "dur": 12, "args": {}},
        {
            "cat": "Node",
            "name": "conv_kernel_time",
            "dur": 250,
            "args": {"op_name": "Conv", "node_index": "0", "provider": "CPUExecutionProvider"},
        },
    ]
).encode()


class _Time:
    """A clock that stands still but for what is waited."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def pause(self, seconds: float) -> bool:
        self.now_s += seconds
        return False


_NOTHING = b'{"busy_ns": 0, "result": {}}'


class _Answering:
    """A device that answers with given texts: transport and stream in one."""

    home, python, loses_link = "/home/me", "python3", False

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers
        self._calls = wire.Decoder()
        self._lines: list[bytes] = []

    def open(self, _: Sequence[str]) -> _Answering:
        return self

    def put(self, local_path: str, remote_path: str, *, on_sent: OnSent | None = None) -> None:
        del local_path, remote_path, on_sent

    def write(self, data: bytes, *, timeout_s: float) -> None:
        del timeout_s
        for line in data.splitlines(keepends=True):
            call = self._calls.feed(line)
            if call is not None:
                answer = self._answers.get(call["message"]["op"], _NOTHING)
                self._lines += _lines(call["id"], answer)

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        del timeout_s, limit_bytes
        if not self._lines:
            raise DeviceError("the device said nothing more")
        return self._lines.pop(0)

    def stderr_tail(self) -> str:
        return ""

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def _lines(number: int, answer: bytes) -> list[bytes]:
    text = answer.decode("utf-8", "surrogateescape")
    parts = [text[i : i + wire.PART_CHARS] for i in range(0, len(text), wire.PART_CHARS)] or [""]
    lines = [{"id": number, "part": part} for part in parts]
    lines[-1]["end"] = True
    return [wire.MARK + json.dumps(line).encode() + b"\n" for line in lines]


_CALLS: dict[str, Callable[[Device, Path], object]] = {
    "hello": lambda device, model: (device.hello, device.digest, device.measure(model, QUICK)),
    "prepare": lambda device, _: device.prepare("null"),
    "sensors": lambda device, _: device.sensors(),
    "has": lambda device, model: device.measure(model, QUICK),
    "canary": lambda device, _: run_canary(device._session, device._description),
    "bench": lambda device, model: device.measure(model, QUICK, reference=model),
    "profile": lambda device, model: device.per_op(model),
    "memory": lambda device, model: device.memory(model),
    "sustain": lambda device, model: device.sustain(model, 2.0),
    "run": lambda device, model: device.infer(
        model, [TensorValue("float32", (1, 1, 4), bytes(16))]
    ),
    "stage": lambda device, model: _deploy(device, model, "v1"),
    "activate": lambda device, model: _deploy(device, model, "v1"),
    "releases": lambda device, _: device.releases.list_all(),
    "rollback": lambda device, _: device.releases.rollback("net"),
}


def _deploy(device: Device, model: Path, version: str) -> str:
    return device.releases.deploy(model, "net", version, check=lambda _runs: None)


# What the null runtime, and a board with a temperature, cannot tell.
_BY_HAND = {
    "canary": b'{"busy_ns": 1000, "result": {"ns": 1000000, "idle_ns": 900000}}',
    "profile": json.dumps(
        {
            "busy_ns": 1000,
            "result": {
                "package": "onnxruntime",
                "version": "1",
                "inputs": [[{"name": "in", "dtype": "float32", "shape": [1, 4]}]],
                "ops": [
                    {"name": "a", "kind": "Conv", "where": "CPU", "samples_ns": [5000, 6000]},
                    {"name": "b", "kind": "Gemm", "where": "CPU", "samples_ns": [700, 800]},
                ],
            },
        }
    ).encode(),
}


@cache
def _model() -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="ew-fuzz-")) / "null.json"
    path.write_text('{"edgewright_null": 1, "latency_ms": 5.0}')
    return path


@cache
def _good_answers() -> dict[str, bytes]:
    """Return what the real agent answers on a simulated board, by op."""
    told: dict[str, bytes] = {}
    real = Session._exchange

    def recorded(session: Session, stream: Any, op: str, timeout_s: float, args: Any) -> Any:
        result = real(session, stream, op, timeout_s, args)
        told[op] = json.dumps({"busy_ns": 1000, "result": result}).encode()
        return result

    profile = DeviceProfile("fuzzed", transport="fake", runtime="null")
    Session._exchange = recorded  # type: ignore[method-assign]
    try:
        with Device.open(profile) as device:
            _deploy(device, _model(), "v0")
            for call in _CALLS.values():
                found = call(device, _model())
                assert not isinstance(found, Failure) or "null runtime" in found.reason, found
    finally:
        Session._exchange = real  # type: ignore[method-assign]
    return {op: told.get(op) or _BY_HAND[op] for op in _CALLS}


def _answer(op: str) -> Target:
    good = _good_answers()

    def read(path: Path) -> object:
        time = _Time()
        transport: Any = _Answering({**good, op: path.read_bytes()})
        profile = DeviceProfile("fuzzed", transport="fake", runtime="null")
        session = Session("fuzzed", lambda: transport, clock=time, pause=time.pause)
        with Device(profile, session) as device:
            found = _CALLS[op](device, _model())
        for one in found if isinstance(found, tuple) else (found,):
            if isinstance(one, Failure):
                raise DeviceError(f"{one.reason} {one.detail}")
            if hasattr(one, "to_json"):
                json.dumps(one.to_json(), allow_nan=False)
        if op in ("bench", "profile", "memory", "sustain"):
            _bench_text.lines(found)
        return found

    nested = b'{"busy_ns": 1, "result": ' + b"[" * 10**6
    many = b'{"busy_ns": 1, "result": {"a": [' + b"[]," * (10**6 * 3) + b"[]]}}"
    return Target(read, ".json", [good[op]], in_values, (nested, many))
