"""The Zstandard library, wherever this Python has it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

__all__ = ["ZstdError", "open_decoder"]


def open_decoder(window_bits: int) -> ZstdDecompressor:
    """Return what decodes one frame.

    Args:
        window_bits: how far a frame may look back, as a power of two; it is held in memory.
    """
    return ZstdDecompressor(options={DecompressionParameter.window_log_max: window_bits})
