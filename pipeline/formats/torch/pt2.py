"""What a .pt2 archive holds beside the program: whether loading it runs code of its own.

torch.export.load unpickles parts of an archive, opens compiled libraries that lie in it, and
has the sizes of a program evaluated as expressions. None of that is needed for a plain program.
No torch.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from device_agents.bounded import ZIP_ERRORS
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAM_LIMIT_BYTES = 512 << 20
_CODE = (
    (re.compile(r"(^|/)data/aotinductor/"), "a compiled library"),
    (re.compile(r"(^|/)data/constants/(custom|opaque)_obj_"), "a pickled object"),
)
_PROGRAM = re.compile(r"(^|/)(models/[^/]+\.json|serialized_exported_program\.json)$")
_SYMBOL = re.compile(r"[a-z_]\w*")
_NAMES = re.compile(
    r"[suz]f?\d+|(Python|Clean)?(Mod|Div|FloorDiv|CeilDiv)|Add|Mul|Max|Min|Pow|PowByNatural|Where|Abs"
    r"|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|oo|int_oo|Symbol|Integer|Rational|ToFloat|TruncToInt"
    r"|CeilToInt|FloorToInt|RoundToInt|IntTrueDiv|FloatTrueDiv|ModularIndexing|Identity"
    r"|OpaqueUnaryFn_\w+"
)
_ARITHMETIC = (
    *(ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.keyword),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def check(path: Path) -> None:
    """Refuse an archive that holds code.

    Raises:
        ConfigError: it does, or it is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist()]
            programs = [name for name in names if _PROGRAM.search(name)]
            for pattern, what in _CODE:
                if any(pattern.search(name) for name in names):
                    raise ConfigError(_refusal(path, what))
            if not programs:
                raise ConfigError(f"{path} holds no program of torch.export; save one with it")
            for name in programs:
                # What the archive says of its sizes is not believed.
                with archive.open(name) as file:
                    text = file.read(_PROGRAM_LIMIT_BYTES + 1)
                if len(text) > _PROGRAM_LIMIT_BYTES:
                    limit = _PROGRAM_LIMIT_BYTES >> 20
                    raise ConfigError(f"{path} holds a program of more than {limit} MiB of text")
                for expression in _expressions(json.loads(text)):
                    if not _is_size(expression):
                        raise ConfigError(_refusal(path, f"the expression {expression[:80]!r}"))
    except FileNotFoundError:
        raise ConfigError(f"no file {path}") from None
    except ZIP_ERRORS as error:
        raise ConfigError(
            f"{path} is not a readable .pt2 archive ({error}); save it again by torch.export.save"
        ) from error


def _refusal(path: Path, what: str) -> str:
    return (
        f"{path} holds {what}, which runs as code when it is loaded; if you trust whoever made "
        "it, give --trust, else name the module itself (file.py:callable)"
    )


def _expressions(value: Any) -> Iterator[str]:
    """Yield every text that torch has evaluated when it loads a program."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "expr_str" and isinstance(each, str):
                yield each
            else:
                yield from _expressions(each)
    elif isinstance(value, list):
        for each in value:
            yield from _expressions(each)


def _is_size(expression: str) -> bool:
    """Tell whether a text is numbers, names of sizes and arithmetic, and nothing else."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name):
                return False
        elif isinstance(node, ast.Name):
            if not _NAMES.fullmatch(node.id):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not _SYMBOL.fullmatch(node.value):
                return False
        elif not isinstance(node, _ARITHMETIC):
            return False
    return True
