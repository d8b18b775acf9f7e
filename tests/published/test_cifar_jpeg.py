"""The published accuracies of MLPerf Tiny's ResNet-8 on CIFAR-10 as JPEG, met to the image.

They say whether pictures are decoded, fed and counted as they should be.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.pictures.values import Values
from pipeline.data.samples import samples
from pipeline.formats.files import describe_file, run_inputs
from pipeline.formats.samples import sample_ends

SHARED = Path(__file__).resolve().parents[3] / "shared"
PICTURES = SHARED / "data" / "cifar10_jpeg" / "test.zip"
MODELS = SHARED / "models" / "mlperf_tiny"
COUNTED = 200  # of each class, the first: the 2,000 images of the published figures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PICTURES.is_file(), reason=f"{PICTURES} is not there"),
    pytest.mark.skipif(not MODELS.is_dir(), reason=f"{MODELS} is not there"),
]


@pytest.mark.parametrize(
    ("name", "values", "accuracy"),
    [
        ("pretrainedResnet.tflite", Values((0.0,), (1.0,)), 0.764),
        # Its codes are pixels, which the file's own scale says.
        ("pretrainedResnet_quant.tflite", None, 0.762),
    ],
)
def test_resnet_8_is_as_accurate_as_is_published(
    name: str, values: Values | None, accuracy: float
) -> None:
    ends = sample_ends(describe_file(MODELS / name))
    if values is not None:
        ends = tuple(replace(end, values=values) for end in ends)
    given = samples(PICTURES, ends)
    assert len(given) == 10_000
    assert given.labels is not None
    outputs = next(iter(run_inputs(MODELS / name, given.whole(ends)).values()))
    right = outputs.reshape(len(given), -1).argmax(1) == given.labels
    first = np.concatenate([np.flatnonzero(given.labels == c)[:COUNTED] for c in range(10)])
    assert right[first].mean() == pytest.approx(accuracy, abs=0.001)
