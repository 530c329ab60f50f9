"""What a shell is told of paths in sessions, ``SESSION:PATH``, for it to complete them."""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from sandyard import SandboxError
from sandyard.cli.reaching import found_client, session_names

__all__ = ["completing_places", "joined_words", "place_words", "places_or_files"]

_ASKING = "_SANDYARD_COMPLETE"


def place_words(incomplete: str) -> list[str]:
    """The sessions, or the paths in one, that begin so; it says no errors.

    Directories end with a slash. Names that a terminal would not show as they are, are left out.
    """
    name, colon, path = incomplete.partition(":")
    if not colon:
        return [f"{found}:" for found in session_names(incomplete)]
    try:
        return [f"{name}:{found}" for found in asyncio.run(_listed(name, path))]
    except SandboxError:
        return []


def places_or_files(incomplete: str) -> list[str]:
    """The same where files of this machine are meant as well: the shell itself completes those."""
    return place_words(incomplete) if incomplete else []


async def _listed(session: str, path: str) -> list[str]:
    client = await found_client()
    if client is None:
        return []
    directory, last = posixpath.split(path)
    entries = await client.session(session).ls(directory or ".")
    found = []
    for entry in entries:
        name = posixpath.basename(entry.path)
        hidden = name.startswith(".") and not last.startswith(".")
        if name.startswith(last) and name.isprintable() and not hidden:
            whole = posixpath.join(directory, name)
            found.append(f"{whole}/" if entry.is_dir() else whole)
    return found


def joined_words(words: list[str], at: int) -> tuple[list[str], int]:
    """The words of a command line as they were typed.

    bash takes a colon for the end of a word, so that ``web:src`` comes as three.

    Args:
        words: as bash has them.
        at: the place of the one that is completed.

    Returns:
        The words, and its place in them.
    """
    joined: list[str] = []
    place = at
    for number, word in enumerate(words):
        glued = word == ":" or (number > 0 and words[number - 1] == ":")
        if glued and len(joined) > 1:
            joined[-1] += word
            place -= number <= at
        else:
            joined.append(word)
    return joined, place


@contextmanager
def completing_places() -> Iterator[None]:
    """Let bash be answered in its own words, where it asks in the block for one with a colon."""
    words, at = os.environ.get("COMP_WORDS", "").split(" "), os.environ.get("COMP_CWORD", "")
    if os.environ.get(_ASKING) != "complete_bash" or not at.isdigit() or ":" not in words:
        yield
        return
    joined, place = joined_words(words, int(at))
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = " ".join(joined), str(place)
    typed = joined[place] if place < len(joined) else ""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        # What stands before the last colon is a word of its own for bash, and stays.
        kept = typed.rpartition(":")[0]
        skipped = len(kept) + 1 if ":" in typed else 0
        for line in filter(None, said.getvalue().splitlines()):
            sys.stdout.write(f"{line[skipped:]}\n")
