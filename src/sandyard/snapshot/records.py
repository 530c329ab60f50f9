"""Records: what a store says of one snapshot, and the histories that they stand in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from sandyard.archive.report import ArchiveNote
from sandyard.archive.trees import DIGEST_BYTES
from sandyard.errors import ArgumentError
from sandyard.snapshot.disk import meanwhile
from sandyard.snapshot.sizes import RECORD_BYTES, SESSION_NAME_CHARS, TAGS, WORD_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandyard.errors import OpName
    from sandyard.snapshot.place import Place

__all__ = ["History", "Snapshot", "check_name", "check_words", "file_of"]

_VERSION: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_FILE: Final = re.compile(r"([0-9]{10})-([0-9a-f]{16})\.json", re.ASCII)
_COUNTS: Final = ("files", "directories", "symlinks", "hard_links", "size")
_LISTS: Final = ("skipped", "changed", "dropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One saved state of a workspace.

    Attributes:
        id: its name, 16 hexadecimal digits.
        history: which history it belongs to; of a session, the session's id.
        number: its place there, from 1.
        created: when it was made, in seconds since 1970.
        tree: digest of all that was saved; two snapshots with the same tree are the same.
        parent: id of the snapshot before it; None for the first.
        label: what somebody called it; empty for nothing.
        tags: further words.
        root: what commands knew the workspace as; empty where nobody said.
        files: regular files in it.
        directories: directories.
        symlinks: symbolic links.
        hard_links: further names of files that count once.
        size: bytes of the files together, holes included.
        skipped: what could not be saved, and why; as ``ArchiveReport`` has it.
        changed: files that somebody wrote to while they were read.
        dropped: what is not kept of something that is there.
        unlisted: how many more there are of the last three.
    """

    id: str
    history: str
    number: int
    created: float
    tree: str
    parent: str | None = None
    label: str = ""
    tags: tuple[str, ...] = ()
    root: str = ""
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    hard_links: int = 0
    size: int = 0
    skipped: tuple[ArchiveNote, ...] = ()
    changed: tuple[ArchiveNote, ...] = ()
    dropped: tuple[ArchiveNote, ...] = ()
    unlisted: int = 0

    @property
    def kept(self) -> bool:
        """Whether it has a label or a tag, so that no retention removes it."""
        return bool(self.label or self.tags)

    def encode(self) -> bytes:
        """Return a JSON document and, on a line of its own, its digest."""
        said: dict[str, object] = {"version": _VERSION}
        for field in fields(self):
            said[field.name] = getattr(self, field.name)
        raw = json.dumps(said, sort_keys=True).encode()
        if len(raw) > RECORD_BYTES // 2:  # paths of many kilobytes each
            for name in _LISTS:
                said[name] = ()
            raw = json.dumps(said, sort_keys=True).encode()
        return b"%b\n%b\n" % (raw, hashlib.sha256(raw).hexdigest().encode())

    @classmethod
    def decode(cls, raw: bytes) -> Snapshot:
        """Read a document back.

        Raises:
            ValueError: it is not what was written.
        """
        body, _, digest = raw.rstrip(b"\n").rpartition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("the record of a snapshot is not what was written")
        said = json.loads(body)
        if said.pop("version") != _VERSION:
            raise ValueError("the record of a snapshot is of another version")
        for name in _LISTS:
            said[name] = tuple(ArchiveNote(*note) for note in said[name])
        said["tags"] = tuple(said["tags"])
        if len(bytes.fromhex(said["tree"])) != DIGEST_BYTES:
            raise ValueError("the record of a snapshot names no tree")
        return cls(**said)


class History:
    """All records of a store. Who reads or adds shares the store's lock.

    Args:
        place: the store.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.broken: list[str] = []

    def names(self) -> list[str]:
        """The histories."""
        try:
            with self._place.opened("history") as top:
                return sorted(name for name in os.listdir(top) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> list[Snapshot]:
        """The snapshots of one history, oldest first; one that can't be read is left out.

        What was left out is in ``broken``, as a path in the store.
        """
        found: list[Snapshot] = []
        with suppress(FileNotFoundError), self._place.opened("history", name) as directory:
            for file in sorted(os.listdir(directory)):
                if not _FILE.fullmatch(file):
                    continue
                try:
                    found.append(self._read(directory, name, file))
                except FileNotFoundError:  # removed meanwhile
                    continue
                except (OSError, ValueError, TypeError, KeyError):
                    self.broken.append(f"history/{name}/{file}")
        return found

    def _read(self, directory: int, name: str, file: str) -> Snapshot:
        snapshot = Snapshot.decode(self._place.read_file(directory, file, RECORD_BYTES))
        if snapshot.history != name or file_of(snapshot) != file:
            raise ValueError("it stands in another's place")
        return snapshot

    def last(self, name: str) -> Snapshot | None:
        """The newest snapshot of a history, or None if it has none.

        Raises:
            OSError: its record can't be read, or is damaged (EUCLEAN): one before it is not what was
                saved last.
        """
        with suppress(FileNotFoundError), self._place.opened("history", name) as directory:
            for file in sorted(filter(_FILE.fullmatch, os.listdir(directory)), reverse=True):
                try:
                    return self._read(directory, name, file)
                except FileNotFoundError:  # removed meanwhile
                    continue
                except (ValueError, TypeError, KeyError) as error:
                    raise OSError(
                        errno.EUCLEAN,
                        f"the record history/{name}/{file} of the newest snapshot is damaged; remove "
                        "that file to go on with the one before",
                    ) from error
        return None

    def at(self, name: str, file: str) -> Snapshot | None:
        """The snapshot of a history whose record has a name; None if there is none, or it is damaged."""
        if not _NAME.fullmatch(name) or not _FILE.fullmatch(file):
            return None
        try:
            with self._place.opened("history", name) as directory:
                return self._read(directory, name, file)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def last_number(self, name: str) -> int:
        """The highest number in a history, of broken records too; 0 if there is none."""
        with suppress(FileNotFoundError), self._place.opened("history", name) as directory:
            numbers = (_FILE.fullmatch(file) for file in os.listdir(directory))
            return max((int(match[1]) for match in numbers if match), default=0)
        return 0

    def all(self) -> Iterator[Snapshot]:
        """Every snapshot of every history."""
        for name in self.names():
            yield from self.read(name)

    def write(self, snapshot: Snapshot, prepare: Callable[[], None] | None = None) -> None:
        """Write a record, or write it anew.

        Args:
            snapshot: what it is of.
            prepare: has all survive that the record speaks of (default: it does already). The
                record's own bytes go to the disk meanwhile; it stands there when both have.

        Raises:
            OSError: it can't be written.
        """
        place = self._place
        with (
            place.opened("history") as top,
            place.opened("history", snapshot.history, make=True) as directory,
        ):
            first = not any(map(_FILE.fullmatch, os.listdir(directory)))
            with place.draft(directory, snapshot.encode()) as draft:

                def settle() -> None:
                    if first:
                        # Before, and whoever made it: where a record is, its directory is known to
                        # survive.
                        place.disk.sync(top)
                    draft.sync()

                if prepare is None:
                    settle()
                else:
                    with meanwhile(settle):
                        prepare()
                draft.publish(file_of(snapshot))
            place.disk.sync(directory)

    def remove(self, snapshot: Snapshot) -> None:
        """Remove a record; its bytes stay until space is reclaimed."""
        with (
            suppress(FileNotFoundError),
            self._place.opened("history", snapshot.history) as directory,
        ):
            self._place.disk.remove(directory, file_of(snapshot))

    def find(self, id: str) -> Snapshot | None:  # noqa: A002  # what it is called everywhere
        """Look for a snapshot by its id, or a beginning of it that no other has.

        Raises:
            LookupError: several begin so.
        """
        found = [each for each in self.all() if each.id.startswith(id)] if id else []
        if len(found) > 1 and all(each.id != id for each in found):
            raise LookupError(", ".join(each.id for each in found))
        return next((each for each in found if each.id == id), found[0] if found else None)


def file_of(snapshot: Snapshot) -> str:
    """Name of a snapshot's record in the directory of its history."""
    return f"{snapshot.number:010d}-{snapshot.id}.json"


def check_name(name: object, op: OpName) -> str:
    """Refuse what can't be the name of a history.

    Raises:
        ArgumentError: it is no single, plain path segment.
    """
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or len(name) > SESSION_NAME_CHARS
        or name.endswith(".")
    ):
        raise ArgumentError(
            "the name of a history, and the id of a snapshot, is made of letters, digits, '-', '_' "
            f"and '.', at most {SESSION_NAME_CHARS}, and begins with no dot",
            op=op,
            argument="id",
            value=name,
        )
    return name


def check_words(label: object, tags: object) -> tuple[str, tuple[str, ...]]:
    """Refuse what can't be a label or tags.

    Raises:
        ArgumentError: they are too long, too many, or not text of one line.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise ArgumentError(
            "tags are a list of words", op="snapshot_persist", argument="tags", value=tags
        )
    given = tuple(tags)
    for argument, word in (("label", label), *(("tags", word) for word in given)):
        if not isinstance(word, str) or len(word) > WORD_CHARS or not _is_line(word):
            raise ArgumentError(
                f"a label or tag is one line of at most {WORD_CHARS} characters",
                op="snapshot_persist",
                argument=argument,
                value=word,
            )
    words = dict.fromkeys(sorted(given) if isinstance(tags, set | frozenset) else given)
    if len(words) > TAGS:
        raise ArgumentError(
            f"a snapshot has at most {TAGS} tags",
            op="snapshot_persist",
            argument="tags",
            value=tags,
        )
    return str(label), tuple(words)


def _is_line(word: str) -> bool:
    return word.isprintable() or not word
