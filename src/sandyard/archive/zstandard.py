"""The Zstandard library, wherever this Python has it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdCompressor, ZstdDecompressor, ZstdError
    from compression.zstd import compress as zstd_compress
else:
    from backports.zstd import DecompressionParameter, ZstdCompressor, ZstdDecompressor, ZstdError
    from backports.zstd import compress as zstd_compress

__all__ = ["ZstdError", "compress", "compress_pieces", "open_decoder"]


def open_decoder(window_bits: int) -> ZstdDecompressor:
    """Return what decodes one frame.

    Args:
        window_bits: how far a frame may look back, as a power of two; it is held in memory.
    """
    return ZstdDecompressor(options={DecompressionParameter.window_log_max: window_bits})


def compress(data: bytes, level: int) -> bytes:
    """Return some bytes as one frame."""
    return zstd_compress(data, level)


def compress_pieces(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Give what comes in pieces as one frame."""
    encoder = ZstdCompressor(level)
    for piece in pieces:
        if out := encoder.compress(piece):
            yield out
    yield encoder.flush()
