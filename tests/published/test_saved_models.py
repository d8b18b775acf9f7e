"""The SavedModel of MLPerf Tiny's DS-CNN, which holds the state of an optimiser that is gone."""

from __future__ import annotations

from models.model import Model
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model
from tests.other_models import need


def test_a_saved_model_with_the_state_of_an_old_optimiser_is_read() -> None:
    found = read_model(str(need("ds-cnn")), ReadOptions())
    assert isinstance(found, Model)
    kinds = [op.kind for op in found.graph.ops]
    assert kinds.count("conv") == 5
    assert kinds.count("depthwise") == 4
    assert found.graph.shape(found.graph.outputs[0]) == (1, 12)
