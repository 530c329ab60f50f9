"""Owns what is asked of the readers of archives and patches, whatever bytes they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sandyard.archive.bounds import ArchiveMeter, SandboxArchiveLimits
from sandyard.archive.intake import ByteReader, expanded, memory_source
from sandyard.archive.model import ArchiveError, Kind, Member
from sandyard.archive.naming import NameRules, check_links, check_target
from sandyard.archive.tar_reading import is_tar, read_tar
from sandyard.archive.zip_reading import read_zip
from sandyard.errors import ApplyPatchError
from sandyard.patching import (
    Effort,
    Operation,
    apply_diff,
    apply_hunks,
    parse_envelope,
    parse_unified,
)

__all__ = ["CORPUS", "TARGETS"]

CORPUS: Final = Path(__file__).parents[2] / "fuzz" / "corpus"
"""Directories of inputs, by target: what once was wrong, and what begins a search."""

LIMITS: Final = SandboxArchiveLimits(
    max_input_bytes=1 << 20, max_extracted_bytes=1 << 24, max_members=2_000
)
LATEST_NS: Final = 2**63 - 1
TARGETS: dict[str, Callable[[bytes], None]] = {}
"""The targets; each takes any bytes, and raises only if something is wrong with the library."""


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Names a target after its function."""
    TARGETS[function.__name__] = function
    return function


@target
def tar(data: bytes) -> None:
    """An archive that is refused, or has members that can be made."""
    meter = ArchiveMeter(LIMITS)
    try:
        meter.take(len(data))
        content = expanded(ByteReader(memory_source(memoryview(data))), meter)
        if is_tar(content.peek(512)):
            check_members(read_tar(content), meter)
            content.drain()
    except ArchiveError as error:
        check_refusal(error)
    assert names_in(data, len(data)) == names_in(data, 100), "it depends on how it comes"


def names_in(data: bytes, portion: int) -> list[object]:
    """What an archive that is not compressed has in it, if it comes in such portions."""
    rest = memory_source(memoryview(data))
    source = ByteReader(lambda size: rest(min(size, portion)))
    found: list[object] = []
    try:
        if is_tar(source.peek(512)):
            found.extend(map(facts_of, read_tar(source)))  # what came before an error stays
    except ArchiveError as error:
        found.append(str(error))
    return found


def facts_of(member: Member) -> object:
    """What is to be the same of a member, however it was read."""
    return member.name, member.kind, member.size, member.mode, member.mtime, member.link


@target
def zip(data: bytes) -> None:  # noqa: A001  # targets are named as what they read
    """The same of a zip archive."""
    meter, view = ArchiveMeter(LIMITS), memoryview(data)
    try:
        meter.take(len(data))
        members = read_zip(lambda at, size: view[at : at + size], len(data), meter)
        check_members(members, meter)
    except ArchiveError as error:
        check_refusal(error)


def check_members(members: Iterable[Member], meter: ArchiveMeter) -> None:
    """Each says nothing that no system call takes, and gives the bytes that it promises."""
    rules = NameRules(LIMITS, portable=True)
    links: dict[tuple[bytes, ...], bytes] = {}
    for member in members:
        meter.note(member)
        path = rules.path_of(member.name)
        assert all(name not in {b"", b".", b".."} and b"/" not in name for name in path)
        assert member.size >= 0
        assert member.mode is None or 0 <= member.mode <= 0o7777
        assert member.mtime is None or abs(member.mtime) <= LATEST_NS
        if member.kind is Kind.SYMLINK:
            check_target(member.name, member.link, inside=True)
            links[path] = member.link
        elif member.kind is Kind.FILE:
            check_content(member)
    check_links(links)


def check_content(member: Member) -> None:
    """The pieces of a file are in order, within it, and without a gap unless it has holes."""
    end = given = 0
    for offset, piece in member.pieces():
        assert piece, "a piece of nothing"
        assert offset == end if member.sparse is None else offset >= end
        end, given = offset + len(piece), given + len(piece)
        assert end <= member.size
    expected = member.size
    if member.sparse is not None:
        expected = sum(length for _, length in member.sparse)
    assert given == expected


def check_refusal(error: ArchiveError) -> None:
    """It can be told."""
    assert error.reason
    assert str(error)


@target
def v4a(data: bytes) -> None:
    """A text and a patch for it, with a NUL between them."""
    text, patch = parted(data)
    attempt(lambda: apply_diff(text, patch, effort=Effort()))
    attempt(lambda: apply_diff("", patch, "create"))
    attempt(lambda: apply_all(text, parse_envelope(patch), apply_diff))


@target
def unified(data: bytes) -> None:
    """The same of a unified diff."""
    text, patch = parted(data)
    attempt(lambda: apply_hunks(text, patch, effort=Effort()))
    attempt(lambda: apply_all(text, parse_unified(patch), apply_hunks))


def parted(data: bytes) -> tuple[str, str]:
    """A text, and a patch, as a file and a model might have them."""
    text, _, patch = data.decode("utf-8", "replace").partition("\0")
    return text, patch


def apply_all(text: str, operations: Iterable[Operation], differ: Callable[..., str]) -> None:
    """Applies each operation to the text."""
    for operation in operations:
        assert operation.path is not None
        if operation.kind == "create_file":
            differ("", operation.diff, "create")
        elif operation.kind == "update_file":
            differ(text, operation.diff)


def attempt(call: Callable[[], object]) -> None:
    """Calls something that may refuse what it is given, in words."""
    with suppress(ApplyPatchError):
        call()
