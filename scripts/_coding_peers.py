"""What other coders make of bytes: run by the Python of an environment that holds them.

Given a folder, reads each FILE.bin of it, and prints as JSON, by FILE and coder, bytes, once
they have been decoded and compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import constriction
import numpy as np
import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable

LEVEL = 19
# Its table of 256 probabilities, each of 24 bits, is no part of its output.
TABLE_BYTES = 3 * 256


def zstd(content: bytes) -> tuple[int, Callable[[], bytes]]:
    """Return the bytes that zstd makes, and its decoder."""
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(content)
    return len(packed), lambda: zstandard.ZstdDecompressor().decompress(packed)


def ans(content: bytes) -> tuple[int, Callable[[], bytes]]:
    """Return the bytes that constriction's ANS coder makes with their table, and its decoder."""
    symbols = np.frombuffer(content, np.uint8).astype(np.int32)
    counts = np.bincount(symbols, minlength=256)
    model = constriction.stream.model.Categorical(
        (counts / counts.sum()).astype(np.float32), perfect=False
    )
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols, model)
    packed = coder.get_compressed()

    def decode() -> bytes:
        back = constriction.stream.stack.AnsCoder(packed).decode(model, len(symbols))
        return bytes(back.astype(np.uint8))

    return packed.nbytes + TABLE_BYTES, decode


def main() -> None:
    """Print the figures."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.bin")):
        content, found[path.stem] = path.read_bytes(), {}
        for name, coder in (("zstd", zstd), ("constriction", ans)):
            found[path.stem][name], decode = coder(content)
            if decode() != content:
                raise SystemExit(f"{name} does not give back {path.name}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
