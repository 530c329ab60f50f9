"""The numbers of the snapshot room, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BUFFER_BYTES",
    "COMPRESSION_LEVEL",
    "DEAD_SHARE",
    "DICT_AFTER",
    "DICT_OBJECTS",
    "FEW_PACKS",
    "HASTEN_BYTES",
    "LOCK_PAUSE_S",
    "LOCK_WAIT_S",
    "OPEN_PACKS",
    "PACK_BYTES",
    "PACK_OBJECTS",
    "RECORD_BYTES",
    "SESSION_NAME_CHARS",
    "SMALL_PACK_BYTES",
    "TAGS",
    "UNTOLD_PACKS",
    "WORD_CHARS",
]

BUFFER_BYTES: Final = 512 * 1024
"""Bytes of small files that are gathered for one write: past this its own cost no longer shows."""

HASTEN_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a pack that set out for the disk together while more is gathered: what is left at its end is
soon there."""

PACK_BYTES: Final = 256 * 1024 * 1024
"""Bytes after which a save begins another pack: what is rewritten at once when space is reclaimed. A
larger file makes a larger one."""

SMALL_PACK_BYTES: Final = 16 * 1024 * 1024
"""Packs below this are joined by ``compact``: each costs a look at every save."""

DEAD_SHARE: Final = 0.3
"""The part of a pack that nobody needs, from which on ``prune`` writes the rest anew: what is read and
written stays in proportion to what is gained."""

OPEN_PACKS: Final = 16
"""Packs that one reader holds open; opened again, one costs microseconds."""

PACK_OBJECTS: Final = 16 * 1024
"""Objects after which a save begins another pack: what is held of them while it is written takes some
4 MB."""

FEW_PACKS: Final = 8
DICT_AFTER: Final = 128
DICT_OBJECTS: Final = 50_000
"""With more packs than the first, after so many searches, and with at most so many objects, the
beginnings of digests are put into one dictionary, of some 5 MB: a search in each list is slower."""

UNTOLD_PACKS: Final = 16
"""Packs that a summary need not speak of: the list of each is read by every program that opens the store,
in some 50 us, and writing the summary takes milliseconds."""

COMPRESSION_LEVEL: Final = 3
"""Of zstd; its own default: a third of the size at some 300 MB/s."""

LOCK_WAIT_S: Final = 30.0
LOCK_PAUSE_S: Final = 0.01
"""How long, and how often, a lock is tried. It is held alone only while files are removed, for
milliseconds; a save or a restore may share it for minutes."""

RECORD_BYTES: Final = 4 * 1024 * 1024
"""Largest record of one snapshot: its notes are at most 3,000 paths, cut to this when written."""

SESSION_NAME_CHARS: Final = 128
"""Longest name of a history: of a directory, with room for what is added to it."""

WORD_CHARS: Final = 200
TAGS: Final = 32
"""Longest label or tag, and how many tags one snapshot has: one line of a list."""
