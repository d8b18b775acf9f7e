"""Captures a module by torch.export, in evaluation mode, and takes its ops apart as far as we need.

Only torch.export sees what a module does with its inputs; `torch.fx.symbolic_trace` would take
control flow for what it was at one time, or fail on it.
"""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from device_agents.errors import ConfigError
from device_agents.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn
    from torch.export import ExportedProgram

    from models.ops import Shape


@dataclass(frozen=True, slots=True)
class Captured:
    """A program of torch.export, and inputs that it was captured with.

    Attributes:
        program: in the ops that `decompose` leaves.
        inputs: its tensors, in the order of the program's inputs.
        outputs: what the module gives of them: all tensors, flattened.
    """

    program: ExportedProgram
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]

    @property
    def has_halves(self) -> bool:
        """Tell whether something is computed in half precision, which the graph does not have."""
        halves = (torch.float16, torch.bfloat16)
        return any(
            isinstance(meta := node.meta.get("val"), torch.Tensor) and meta.dtype in halves
            for node in self.program.graph.nodes
        )


_WHOLE = (
    *("linear", "matmul", "scaled_dot_product_attention", "instance_norm"),
    *("hardswish", "silu", "hardsigmoid", "mish", "softplus", "gelu", "leaky_relu", "elu"),
    *("log_sigmoid", "prelu", "rsub", "softmax", "log_softmax"),
    *("chunk", "split", "stack", "unbind", "roll"),
    *("pad", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    *("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d"),
    *("_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d"),
    *("upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
"""Ops that our graph says better than torch's core would."""

_TRIES = 9
_DTYPES = (torch.float32, torch.int64, torch.bool)


def capture(module: nn.Module, shapes: Mapping[str, Shape], name: str) -> Captured:
    """Return the program of a module.

    Args:
        module: in any mode; it is put into evaluation mode.
        shapes: of its inputs by the names of forward's arguments; under ``""`` that of the only
            one.
        name: of the module, for sentences.

    Raises:
        ConfigError: a shape is missing or of no input, the module fails on such inputs, or
            torch.export cannot capture it.
    """
    module = _prepare(module, name)
    inputs = _inputs(module, _named(module, shapes, name), name)
    outputs = _run(module, (), _copies(inputs))
    try:
        with torch.no_grad():
            program = torch.export.export(module, *_arguments(module, inputs), strict=False)
    except Exception as error:
        raise ConfigError(
            f"torch.export cannot capture {name}: {_first_line(error)}; what depends on values, "
            "such as an `if` over a tensor, must be written without (torch.where, torch.cond)"
        ) from error
    return Captured(decompose(program), tuple(inputs.values()), _tensors(outputs, program))


def recapture(program: ExportedProgram, shapes: Mapping[str, Shape], name: str) -> Captured:
    """Return a saved program at whole shapes.

    Raises:
        ConfigError: as `capture`; or a shape that the program was not exported for.
    """
    tensors = {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    }
    _refuse_unknown(shapes, list(tensors), name)
    if "" in shapes:
        shapes = {next(iter(tensors)): shapes[""]}
    open_ = [key for key, meta in tensors.items() if not _whole(meta)]
    for key, meta in tensors.items():
        if key in open_ and key not in shapes:
            shown = "x".join(str(size) for size in meta.shape)
            raise ConfigError(
                f"{name} leaves dimensions of its input {key!r} open ({shown}); give "
                f"--input-shape {key}=SIZES, whole sizes with an x between them"
            )
        if key in shapes and key not in open_ and shapes[key] != tuple(meta.shape):
            raise ConfigError(
                f"{name} was exported for {key} of shape {tuple(meta.shape)}, not "
                f"{shapes[key]}; export it again with that shape, or with open dimensions"
            )
    inputs = tuple(
        _drawn(shapes.get(key, tuple(meta.shape)), meta.dtype) for key, meta in tensors.items()
    )
    args, kwargs = program.call_spec.in_spec.unflatten(list(inputs))
    module = program.module(check_guards=False)
    try:
        copies = program.call_spec.in_spec.unflatten([each.clone() for each in inputs])
        outputs = _tensors(_run(module, *copies), program)
        if open_:
            with torch.no_grad():
                program = torch.export.export(module, args, kwargs, strict=False)
    except Exception as error:
        raise ConfigError(f"{name} fails at these shapes: {_first_line(error)}") from error
    return Captured(decompose(program), inputs, outputs)


def _whole(meta: torch.Tensor) -> bool:
    return all(isinstance(size, int) for size in meta.shape)


def _run(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        return module(*args, **kwargs)


def _arguments(
    module: nn.Module, inputs: dict[str, torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return inputs as forward takes them: by place where they are its first, else by name."""
    parameters = inspect.signature(module.forward).parameters.values()
    first = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][: len(inputs)]
    return (tuple(inputs.values()), {}) if first == list(inputs) else ((), inputs)


def _copies(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what a module may compute with in place."""
    return {name: value.clone() for name, value in inputs.items()}


def _tensors(given: Any, program: ExportedProgram) -> tuple[torch.Tensor, ...]:
    """Return the tensors of what a module gives, in the program's order."""
    flat = program.call_spec.out_spec.flatten_up_to(given)
    tensors = (each for each in flat if isinstance(each, torch.Tensor))
    return tuple(each.float() if each.is_floating_point() else each for each in tensors)


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Return a program in torch's core ops and those that our graph says better."""
    table: Any = torch.export.default_decompositions()
    for op in list(table.keys()):
        if op.name().partition("::")[2].partition(".")[0] in _WHOLE:
            table.pop(op)
    with torch.no_grad():
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _prepare(module: nn.Module, name: str) -> nn.Module:
    """Return a module in evaluation mode and float32, which networks are read in.

    Other number formats are chosen when a network is written; weights of fewer bits keep their
    values.
    """
    for path, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.device.type != "cpu":
            raise ConfigError(
                f"{name} holds {path!r} on {tensor.device}; return the module with .cpu()"
            )
    return module.eval().float()


def _named(module: nn.Module, shapes: Mapping[str, Shape], name: str) -> dict[str, Shape]:
    """Return the shape of each input by the names of forward's arguments."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in named if p.default is p.empty]
    known = [p.name for p in named]
    _refuse_unknown(shapes, known, name)
    if "" in shapes:
        if len(needed) > 1:
            raise ConfigError(
                f"a shape without a name is that of an only input; {name} takes "
                f"{', '.join(needed)}: write --input-shape {needed[0]}=…"
            )
        shapes = {known[0]: shapes[""], **{k: v for k, v in shapes.items() if k}}
    if missing := [each for each in needed if each not in shapes]:
        raise ConfigError(
            f"{name} takes {', '.join(needed)}, and no shape of {missing[0]!r} is given; give "
            f"--input-shape {missing[0]}=SIZES, whole sizes with an x between them"
        )
    return {each: tuple(shapes[each]) for each in known if each in shapes}


def _refuse_unknown(shapes: Mapping[str, Shape], known: Sequence[str], name: str) -> None:
    if not known:
        raise ConfigError(f"{name} takes no input")
    if "" in shapes and len(shapes) > 1:
        raise ConfigError(
            f"a shape without a name is that of an only input; {name} takes {', '.join(known)}"
        )
    if unknown := [each for each in shapes if each and each not in known]:
        raise ConfigError(f"{name} has no input {unknown[0]!r}; its inputs: {', '.join(known)}")


def _inputs(module: nn.Module, shapes: Mapping[str, Shape], name: str) -> dict[str, torch.Tensor]:
    """Return inputs on which a module runs: floats, or integers where it takes no floats.

    A module does not say the types of its inputs; the first that it runs on are taken.
    """
    said = Exception("it was not run")
    for place, dtypes in enumerate(itertools.islice(_combinations(len(shapes)), _TRIES)):
        inputs = {
            key: _drawn(shape, dtype)
            for (key, shape), dtype in zip(shapes.items(), dtypes, strict=True)
        }
        try:
            _run(module, (), _copies(inputs))
        except Exception as error:  # noqa: BLE001  # of a module that may hold anything
            said = said if place else error
        else:
            return inputs
    shown = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
    raise ConfigError(
        f"{name} fails on inputs of these shapes ({shown}): {type(said).__name__}: "
        f"{_first_line(said)}; is --input-shape what it takes?"
    )


def _combinations(count: int) -> Iterator[tuple[torch.dtype, ...]]:
    """Yield types of `count` inputs: all floats, all integers, then those with the most floats.

    Beside the tokens of a text its mask is integers, too, though floats would do.
    """
    every = itertools.product(_DTYPES, repeat=count)

    def place(dtypes: tuple[torch.dtype, ...]) -> tuple[bool, int]:
        return len(set(dtypes)) > 1 or torch.bool in dtypes, sum(map(_DTYPES.index, dtypes))

    return iter(sorted(every, key=place))


def _drawn(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return random numbers; integers are 0 and 1, which any table has."""
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator, dtype=dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(dtype)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return plain(lines[0] if lines else type(error).__name__, limit=300)
