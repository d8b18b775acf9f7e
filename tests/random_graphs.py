"""Random channels-first networks as readers make them, and their values by the references."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.graph import GraphBuilder, GraphError
from models.model import Input, Model, Output
from models.ops import (
    Arg,
    AvgPool,
    BatchNorm,
    Clip,
    Compare,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    Depthwise,
    Gather,
    L2Norm,
    LayerNorm,
    LeakyRelu,
    Matmul,
    Pad,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Tile,
    Transpose,
    Unary,
    compute,
)
from models.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

Array = np.ndarray[Any, Any]

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)
MOST_VALUES = 3000


def run(model: Model, inputs: Mapping[str, Array]) -> list[Array]:
    """Compute a model's outputs op by op with the numpy references, in the graph's layout."""
    values = dict(inputs)
    constants = {tensor.name for tensor in model.graph.constants}
    values.update({name: model.weights[name][0] for name in constants})
    for op in model.graph.ops:
        own = model.weights[op.name] if op.has_weights else ()
        values[op.name] = compute(op, [*(values[name] for name in op.inputs), *own])
        assert values[op.name].shape == op.out_shape
    return [values[name] for name in model.graph.outputs]


class RandomNetwork:
    """Draws ops on what is there; `rng` decides all, so that a failure can be made small."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.numbers = np.random.default_rng(rng.randrange(2**32))
        self.builder = GraphBuilder()
        self.weights: dict[str, tuple[Array, ...]] = {}
        self.count = 0
        shape = (1, rng.choice([1, 4, 6]), rng.choice([1, 5]), rng.choice([3, 7]))
        if rng.random() < 0.3:
            shape = (shape[0], shape[1], shape[3])
        self.there = [self.builder.input("x", shape)]
        if rng.random() < 0.3:
            self.there.append(self.builder.input("y", shape))

    def model(self, ops: int) -> Model:
        """Return a network of about so many ops."""
        draws = [getattr(self, name) for name in dir(self) if name.startswith("draw_")]
        for _ in range(ops):
            source = self.rng.choice(self.there[-4:])
            kept = self.count, len(self.builder.ops), list(self.there), dict(self.weights)
            try:
                self.rng.choice(draws)(source)
            except (GraphError, NotHereError):
                self.count, length, self.there, self.weights = kept
                del self.builder.ops[length:]
        if not self.builder.ops:
            self.draw_act(self.there[0])
        read = {name for op in self.builder.ops for name in op.inputs}
        last = [op.name for op in self.builder.ops if op.name not in read]
        graph = self.builder.graph(*last)
        inputs = tuple(Input(tensor.name, layout="") for tensor in graph.inputs)
        outputs = tuple(Output(name) for name in last)
        layers = {op.name for op in graph.ops if op.has_weights}
        names = layers | {tensor.name for tensor in graph.constants}
        weights = {name: arrays for name, arrays in self.weights.items() if name in names}
        return Model(graph, weights, inputs=inputs, outputs=outputs)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.shapes[name]

    def op(self, kind: str, inputs: list[str], attributes: Any = None, act: str = "none") -> str:
        self.count += 1
        name = self.builder.op(kind, f"{kind}{self.count}", inputs, attributes, act=act)
        if prod(self.shape(name)) > MOST_VALUES:
            raise NotHereError
        if self.builder.ops[-1].has_weights:
            shape = self.builder.ops[-1].weight_shape
            bias = self.numbers.standard_normal(self.shape(name)[-1])
            scale = prod(shape[1:]) ** -0.5
            weight = self.numbers.standard_normal(shape) * scale
            self.weights[name] = (weight.astype(np.float32), bias.astype(np.float32))
        return name

    def keep(self, name: str) -> None:
        if self.builder.dtypes[name] == "float32":
            self.there.append(name)

    def constant(self, shape: tuple[int, ...], *, positive: bool = False) -> str:
        self.count += 1
        name = self.builder.constant(f"c{self.count}", shape)
        value = self.numbers.standard_normal(shape)
        self.weights[name] = ((abs(value) + 0.5 if positive else value).astype(np.float32),)
        return name

    def need(self, name: str, *ranks: int) -> tuple[int, ...]:
        shape = self.shape(name)
        if len(shape) not in ranks:
            raise NotHereError
        return shape

    def axis(self, name: str) -> int:
        return self.rng.randrange(len(self.need(name, 1, 2, 3, 4, 5)))

    def on_map(self, kind: str, source: str, attributes: Any) -> None:
        self.need(source, 4)
        last = self.op("transpose", [source], Transpose(TO_LAST))
        made = self.op(kind, [last], attributes)
        self.keep(self.op("transpose", [made], Transpose(TO_FIRST)))

    def draw_conv(self, source: str) -> None:
        kernel = self.rng.choice([(1, 1), (3, 3), (1, 2)])
        self.on_map("conv", source, Conv(kernel=kernel, padding=(1, 1, 0, 1), out=6))

    def draw_pointwise(self, source: str) -> None:
        self.on_map("conv", source, Conv(out=self.rng.choice([4, 6])))

    def draw_depthwise(self, source: str) -> None:
        self.on_map("depthwise", source, Depthwise(kernel=(3, 2), padding=(1, 1, 1, 0)))

    def draw_pool(self, source: str) -> None:
        window = {"kernel": (2, 2), "padding": (1, 0, 0, 1)}
        if self.rng.random() < 0.5:
            self.on_map("maxpool", source, Window(**window))  # type: ignore[arg-type]
        else:
            self.on_map("avgpool", source, AvgPool(**window))  # type: ignore[arg-type]

    def draw_resize(self, source: str) -> None:
        self.on_map("resize", source, Resize((4, 3)))

    def draw_shuffle(self, source: str) -> None:
        self.on_map("depthtospace", source, DepthToSpace(2, "CRD"))

    def draw_convolve_sequence(self, source: str) -> None:
        batch, channels, length = self.need(source, 3)
        last = self.op("transpose", [source], Transpose((0, 2, 1)))
        flat = self.op("reshape", [last], Reshape((batch, 1, length, channels)))
        made = self.op("conv", [flat], Conv(kernel=(1, 3), padding=(0, 0, 1, 1), out=6))
        back = self.op("reshape", [made], Reshape((batch, length, 6)))
        self.keep(self.op("transpose", [back], Transpose((0, 2, 1))))

    def draw_batchnorm(self, source: str) -> None:
        shape = self.need(source, 2, 3, 4)
        order = (0, *range(2, len(shape)), 1)
        last = self.op("transpose", [source], Transpose(order))
        parameters = [self.constant(shape[1:2], positive=True) for _ in range(4)]
        made = self.op("batchnorm", [last, *parameters], BatchNorm())
        back = (0, len(shape) - 1, *range(1, len(shape) - 1))
        self.keep(self.op("transpose", [made], Transpose(back)))

    def draw_layernorm(self, source: str) -> None:
        shape = self.need(source, 2, 3, 4)[-1:]
        made = self.op(
            "layernorm", [source, self.constant(shape), self.constant(shape)], LayerNorm()
        )
        self.keep(made)

    def draw_act(self, source: str) -> None:
        act = self.rng.choice(["relu", "sigmoid", "hardswish", "tanh"])
        self.keep(self.op("act", [source], act=act))

    def draw_unary(self, source: str) -> None:
        self.keep(self.op("unary", [source], Unary(self.rng.choice(["abs", "neg", "square"]))))

    def draw_clip(self, source: str) -> None:
        self.keep(self.op("clip", [source], Clip(-0.5, 0.8)))

    def draw_leaky(self, source: str) -> None:
        self.keep(self.op("leakyrelu", [source], LeakyRelu(0.2)))

    def draw_two(self, source: str) -> None:
        shape = self.shape(source)
        others = [name for name in self.there if len(self.shape(name)) == len(shape)]
        inputs = [source, self.rng.choice(others)]
        self.rng.shuffle(inputs)
        self.keep(self.op(self.rng.choice(["add", "mul", "sub", "maximum"]), inputs))

    def draw_with_constant(self, source: str) -> None:
        shape = tuple(n if self.rng.random() < 0.5 else 1 for n in self.shape(source))
        inputs = [source, self.constant(shape)]
        if self.rng.random() < 0.3:
            inputs.reverse()
        self.keep(self.op(self.rng.choice(["add", "mul", "sub"]), inputs))

    def draw_prelu(self, source: str) -> None:
        shape = self.need(source, 2, 3, 4)
        slopes = self.constant(tuple(n if axis == 1 else 1 for axis, n in enumerate(shape)))
        self.keep(self.op("prelu", [source, slopes]))

    def draw_where(self, source: str) -> None:
        above = self.op(
            "compare", [source, self.constant((1,) * len(self.shape(source)))], Compare("less")
        )
        self.keep(self.op("where", [above, source, self.constant((1,) * len(self.shape(source)))]))

    def draw_concat(self, source: str) -> None:
        axis = self.axis(source)
        rest = [n for place, n in enumerate(self.shape(source)) if place != axis]
        others = [
            name
            for name in self.there
            if len(self.shape(name)) == len(self.shape(source))
            and [n for place, n in enumerate(self.shape(name)) if place != axis] == rest
        ]
        self.keep(self.op("concat", [source, self.rng.choice(others)], Concat(axis)))

    def draw_slice(self, source: str) -> None:
        shape, axis = self.shape(source), self.axis(source)
        begin, end = [0] * len(shape), list(shape)
        begin[axis] = self.rng.randrange(shape[axis])
        self.keep(self.op("slice", [source], Slice(tuple(begin), tuple(end), (1,) * len(shape))))

    def draw_pad(self, source: str) -> None:
        margins = [(0, 0)] * len(self.shape(source))
        margins[self.axis(source)] = (1, 2)
        self.keep(self.op("pad", [source], Pad(tuple(margins), 0.5)))

    def draw_tile(self, source: str) -> None:
        repeats = [1] * len(self.shape(source))
        repeats[self.axis(source)] = 2
        self.keep(self.op("tile", [source], Tile(tuple(repeats))))

    def draw_softmax(self, source: str) -> None:
        self.keep(self.op("softmax", [source], Softmax(self.axis(source))))

    def draw_l2norm(self, source: str) -> None:
        self.keep(self.op("l2norm", [source], L2Norm(self.axis(source))))

    def draw_reduce(self, source: str) -> None:
        rank = len(self.need(source, 2, 3, 4, 5))
        axes = tuple(axis for axis in range(1, rank) if self.rng.random() < 0.6) or (1,)
        function = self.rng.choice(["mean", "sum", "max"])
        self.keep(self.op("reduce", [source], Reduce(function, axes, self.rng.random() < 0.5)))

    def draw_argmax(self, source: str) -> None:
        self.op("argmax", [source], Arg("argmax", self.axis(source), self.rng.random() < 0.5))

    def draw_gather(self, source: str) -> None:
        axis = self.axis(source)
        size = self.shape(source)[axis]
        name = self.builder.constant(f"i{self.count}", (3,), "int64")
        self.weights[name] = (self.numbers.integers(0, size, 3),)
        self.keep(self.op("gather", [source, name], Gather(axis)))

    def draw_transpose(self, source: str) -> None:
        order = list(range(len(self.need(source, 2, 3, 4, 5))))
        self.rng.shuffle(order)
        self.keep(self.op("transpose", [source], Transpose(tuple(order))))

    def draw_flatten(self, source: str) -> None:
        shape = self.need(source, 2, 3, 4, 5)
        self.keep(self.op("reshape", [source], Reshape((shape[0], prod(shape[1:])))))

    def draw_flatten_positions(self, source: str) -> None:
        batch, channels, *rest = self.need(source, 4)
        self.keep(self.op("reshape", [source], Reshape((batch, channels, prod(rest)))))

    def draw_split_channels(self, source: str) -> None:
        batch, channels, *rest = self.need(source, 3, 4)
        if channels % 2:
            raise NotHereError
        self.keep(self.op("reshape", [source], Reshape((batch, 2, channels // 2, *rest))))

    def draw_join_channels(self, source: str) -> None:
        batch, groups, channels, *rest = self.need(source, 5)
        self.keep(self.op("reshape", [source], Reshape((batch, groups * channels, *rest))))

    def draw_squeeze(self, source: str) -> None:
        shape = self.shape(source)
        kept = [n for axis, n in enumerate(shape) if n != 1 or axis == 0]
        self.keep(self.op("reshape", [source], Reshape(tuple(kept))))

    def draw_unsqueeze(self, source: str) -> None:
        shape = list(self.need(source, 1, 2, 3))
        shape.insert(self.rng.randrange(len(shape) + 1), 1)
        self.keep(self.op("reshape", [source], Reshape(tuple(shape))))

    def draw_dense(self, source: str) -> None:
        self.need(source, 2, 3)
        self.keep(self.op("dense", [source], Dense(self.rng.choice([4, 24]))))

    def draw_map_of_layer(self, source: str) -> None:
        self.need(source, 2)
        made = self.op("dense", [source], Dense(24))
        if self.rng.random() < 0.5:
            made = self.op("act", [made], act="relu")
        self.keep(self.op("reshape", [made], Reshape((1, 4, 2, 3))))

    def draw_matmul(self, source: str) -> None:
        shape = self.need(source, 3, 4)
        order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        turned = self.op("transpose", [source], Transpose(order))
        pair = [source, turned] if self.rng.random() < 0.5 else [turned, source]
        self.keep(self.op("matmul", pair, Matmul()))


class NotHereError(Exception):
    """The op that was drawn does not fit what it was to read."""
