"""Where the options of each kind of op stand in their table, as the schema numbers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Fields = dict[str, tuple[int, str, Any]]
"""Name -> (field, type, default), types as `device_agents.model_files.flatbuffer` names them."""


def _ints(*names: str) -> Fields:
    return {name: (number, "i32", 0) for number, name in enumerate(names)}


def _flags(*names: str, first: int = 0) -> Fields:
    return {name: (number, "u8", 0) for number, name in enumerate(names, first)}


def _act(number: int = 0) -> Fields:
    return {"act": (number, "i8", 0)}


_STEPS: Fields = {"padding": (0, "i8", 0), "stride_w": (1, "i32", 0), "stride_h": (2, "i32", 0)}
_POOL: Fields = {
    **_STEPS,
    "filter_w": (3, "i32", 0),
    "filter_h": (4, "i32", 0),
    **_act(5),
}
_REDUCER = _flags("keepdims")
_ARG: Fields = {"dtype": (0, "i8", 0)}

FIELDS: Mapping[str, Fields] = {
    "CONV_2D": {
        **_STEPS,
        **_act(3),
        "dilation_w": (4, "i32", 1),
        "dilation_h": (5, "i32", 1),
    },
    "DEPTHWISE_CONV_2D": {
        **_STEPS,
        **_act(4),
        "dilation_w": (5, "i32", 1),
        "dilation_h": (6, "i32", 1),
    },
    "TRANSPOSE_CONV": {**_STEPS, **_act(3)},
    "FULLY_CONNECTED": {**_act(), "weights_format": (1, "i8", 0), "keepdims": (2, "u8", 0)},
    "BATCH_MATMUL": _flags("transpose_a", "transpose_b"),
    "MAX_POOL_2D": _POOL,
    "AVERAGE_POOL_2D": _POOL,
    "L2_POOL_2D": _POOL,
    "ADD": _act(),
    "SUB": _act(),
    "MUL": _act(),
    "DIV": _act(),
    "CONCATENATION": {"axis": (0, "i32", 0), **_act(1)},
    "L2_NORMALIZATION": _act(),
    "SOFTMAX": {"beta": (0, "f32", 0.0)},
    "LEAKY_RELU": {"alpha": (0, "f32", 0.0)},
    "GELU": _flags("approximate"),
    "RESHAPE": {"shape": (0, "i32", 0)},
    "SQUEEZE": {"axes": (0, "i32", 0)},
    "RESIZE_BILINEAR": _flags("align_corners", "half_pixel", first=2),
    "RESIZE_NEAREST_NEIGHBOR": _flags("align_corners", "half_pixel"),
    "STRIDED_SLICE": {
        **_ints("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
        "offset": (5, "u8", 0),
    },
    "PACK": _ints("count", "axis"),
    "UNPACK": _ints("count", "axis"),
    "MIRROR_PAD": {"mode": (0, "i8", 0)},
    "MEAN": _REDUCER,
    "SUM": _REDUCER,
    "REDUCE_MAX": _REDUCER,
    "REDUCE_MIN": _REDUCER,
    "REDUCE_PROD": _REDUCER,
    "REDUCE_ANY": _REDUCER,
    "REDUCE_ALL": _REDUCER,
    "ARG_MAX": _ARG,
    "ARG_MIN": _ARG,
    "GATHER": _ints("axis", "batch_axes"),
    "SPACE_TO_DEPTH": _ints("block"),
    "DEPTH_TO_SPACE": _ints("block"),
    "ONE_HOT": _ints("axis"),
    "SHAPE": {"dtype": (0, "i8", 0)},
}
