"""What somebody sends takes no more memory, disk, descriptors or patience than was said."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import pytest

from sandyard.archive import SandboxArchiveLimits
from sandyard.archive.bounds import UNLIMITED, ArchiveMeter
from sandyard.archive.intake import ByteReader, memory_source
from sandyard.archive.model import ArchiveError
from sandyard.archive.tar_reading import read_tar
from sandyard.archive.zip_reading import read_zip
from sandyard.errors import WorkspaceArchiveWriteError
from sandyard.file_verbs.matches import MatchReader
from sandyard.workspace import Owner, Workspace, WorkspaceRoot
from sandyard.workspace.extract import hydrate_workspace
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.giving import give_tree
from tests.archive.making import END, header, item, pax, tar_of


def test_a_long_path_hides_no_match() -> None:
    reader = MatchReader()
    reader.feed(b"/" + b"d/" * 5_000 + b"f\0" + b"1:TODO\n")
    reader.feed(b"/ws/a\0" + b"2:TODO\n")
    assert [(match.path, match.line) for match in reader.found][-1] == ("/ws/a", 2)


def listed(count: int, told: int) -> bytes:
    """A zip archive that is nothing but a list, which tells another length."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *(0,) * 16)
    raw = entry * count
    return raw + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, told, told, len(raw), 0, 0)


@pytest.mark.parametrize(
    ("told", "reason"), [(50_000, "member count"), (5, "another length|corrupt")]
)
def test_members_of_a_list_are_counted_first(
    told: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = listed(50_000, told)
    calls = []
    monkeypatch.setattr("sandyard.archive.zip_reading._entry", lambda *_: calls.append(1))
    meter = ArchiveMeter(SandboxArchiveLimits(max_members=100))
    with pytest.raises(ArchiveError, match=reason):
        list(read_zip(lambda at, size: data[at : at + size], len(data), meter))
    assert len(calls) <= 5


def test_headers_for_all_members_are_not_held() -> None:
    told = [(b"comment.%d" % number, b"x" * 100) for number in range(100)]
    data = pax(*told, kind=b"g") + header(b"file") + END
    (member,) = read_tar(ByteReader(memory_source(memoryview(data))))
    assert member.attributes is None
    shared = pax((b"SCHILY.xattr.user.a", b"b"), kind=b"g") + header(b"file") + END
    with pytest.raises(ArchiveError, match="global"):
        list(read_tar(ByteReader(memory_source(memoryview(shared)))))


def test_what_is_passed_over_can_be_stopped(root: WorkspaceRoot) -> None:
    stopped, read = Event(), 0

    class Endless:
        def read(self, size: int) -> bytes:
            nonlocal read
            read += 1
            if read == 1:
                return tar_of(item("file", b"x"))
            if read == 3:
                stopped.set()
            assert read < 10
            return bytes(size)

    with pytest.raises(Abandoned):
        hydrate_workspace(root, Endless(), UNLIMITED, stopped)


async def test_a_spool_keeps_to_the_limit(root: WorkspaceRoot) -> None:
    given = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            assert given < 10
            yield bytes(1_000)

    workspace = Workspace(root)
    limits = SandboxArchiveLimits(max_input_bytes=2_500)
    try:
        with pytest.raises(WorkspaceArchiveWriteError) as caught:
            await workspace.extract("a.tar", pieces(), limits=limits)
    finally:
        await workspace.close()
    assert caught.value.context["limit"] == 2_500


def test_a_wide_tree_takes_few_descriptors(root: WorkspaceRoot, base: Path) -> None:
    for number in range(300):
        (base / f"{number}/deeper").mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        give_tree(root, Owner(os.geteuid(), os.getegid()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
