"""Packed model files: how they are laid out, and how they are unpacked.

A packed file holds another file bit for bit: its weight tensors, each in the smallest coding that
was found for it, and the rest. The encoder is pipeline/coding; this side is made to run on devices:
it needs the standard library and numpy, which every runtime brings. All numbers are little-endian;
a varint is LEB128.

    MAGIC, version u8, bytes of the header u32
    header:  bytes of the file u64, its SHA-256 (32 bytes), number of blocks varint, blocks;
             of a block: name (varint length, UTF-8; empty for the rest), bytes that it skips
             varint, its bytes varint, its stored bytes varint, CRC-32 of those u32
    CRC-32 of everything before, u32
    the stored bytes of each block, one after the other: a piece (pieces.py)

A tensor's block begins so many bytes behind the end of the tensor block before it. The blocks of
the rest fill, in their order, what the tensors leave. No block makes more than BLOCK_BYTES, so that
unpacking needs as much memory for a large file as for one of that size.
"""

MAGIC = b"\x89EWP\r\n\x1a\n"
"""Like that of PNG: a transfer that took it for text has changed it."""

VERSION = 1
BLOCK_BYTES = 1 << 23
SUFFIX = ".ewp"
