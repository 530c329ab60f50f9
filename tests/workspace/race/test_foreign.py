"""A workspace of somebody else's, given to root: nothing in it is done with root's powers."""

from __future__ import annotations

import ctypes
import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sandyard import Manifest, UnixLocalSandboxClient
from sandyard.errors import SandboxError
from sandyard.manifest import Dir, File, LocalDir
from sandyard.workspace import Owner, WorkspaceRoot
from sandyard.workspace.acting import acting_as
from sandyard.workspace.files import make_directory, read, remove, write
from sandyard.workspace.listing import list_directory
from sandyard.workspace.materialize import apply_manifest
from tests.workspace.race.arena import Arena, running
from tests.workspace.race.watch import describe_tree

pytestmark = pytest.mark.root

UID, GID = 12345, 23456
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def foreign(raced: WorkspaceRoot, arena: Arena) -> WorkspaceRoot:
    """A workspace of another user's, in which root has left things."""
    (arena.base / "closed").mkdir(mode=0o700)
    (arena.base / "closed/f").write_bytes(b"root's")
    (arena.base / "mine").write_bytes(b"root's")
    (arena.base / "mine").chmod(0o600)
    (arena.base / "sticky").mkdir()
    (arena.base / "sticky/f").write_bytes(b"root's")
    (arena.base / "sticky").chmod(0o1777)
    (arena.base / "shut").touch(0o000)
    os.chown(arena.base / "shut", UID, GID)
    os.chown(arena.base, UID, GID)
    return raced


REFUSED: dict[str, Callable[[WorkspaceRoot], object]] = {
    "read": lambda root: read(root, "mine"),
    "read a file that is shut": lambda root: read(root, "shut"),
    "read below": lambda root: read(root, "closed/f"),
    "ls": lambda root: list_directory(root, "closed"),
    "write": lambda root: write(root, "mine", b"evil"),
    "write below": lambda root: write(root, "closed/new/f", b"evil"),
    "write in sticky": lambda root: write(root, "sticky/f", b"evil"),
    "mkdir": lambda root: make_directory(root, "closed/new"),
    "rm below": lambda root: remove(root, "closed/f"),
    "rm in sticky": lambda root: remove(root, "sticky/f"),
    "rm -r": lambda root: remove(root, "closed", recursive=True),
    "apply": lambda root: apply_manifest(root, Manifest(entries={"mine": File(content="evil")})),
    "apply below": lambda root: apply_manifest(root, Manifest(entries={"closed": Dir()})),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_roots_stays_roots(foreign: WorkspaceRoot, arena: Arena, what: str) -> None:
    before = describe_tree(arena.base)
    with pytest.raises(SandboxError) as caught:
        REFUSED[what](foreign)
    assert caught.value.context["reason"] == "permission_denied"
    assert describe_tree(arena.base) == before


def test_sources_are_read_as_root(foreign: WorkspaceRoot, arena: Arena) -> None:
    source = arena.base.parent / "source"
    (source / "hidden").write_bytes(b"x")
    (source / "hidden").chmod(0o600)
    (source / "link").symlink_to("hidden")
    source.chmod(0o700)
    apply_manifest(
        foreign, Manifest(entries={"c": LocalDir(src="source")}), base_dir=str(source.parent)
    )
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (arena.base / "c").rglob("*")}
    assert owners == {(UID, GID)}
    assert (arena.base / "c/hidden").read_bytes() == b"x"


def test_streams_are_read_as_root(foreign: WorkspaceRoot, arena: Arena) -> None:
    class Late(io.RawIOBase):
        """A stream that opens what it reads when it is read."""

        def __init__(self) -> None:
            self._left = 3

        def read(self, size: int = -1) -> bytes:
            self._left -= 1
            return (arena.base / "mine").read_bytes()[:size] if self._left else b""

    write(foreign, "copy", Late())
    assert (arena.base / "copy").read_bytes() == b"root's" * 2
    assert (arena.base / "copy").stat().st_uid == UID


def test_a_directory_that_was_swapped_in_is_not_given_away(
    foreign: WorkspaceRoot, arena: Arena
) -> None:
    """Between the making of a directory and what follows, its owner may move another there."""
    (arena.base / "d").mkdir()
    (arena.base / "d/kept").mkdir(mode=0o700)
    os.chown(arena.base / "d", UID, GID)
    before = (arena.base / "d/kept").stat()
    words = [str(arena.attacker), "gifts", str(arena.base), str(arena.outside), "", str(UID)]
    with running([*words]):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            with suppress(SandboxError):
                make_directory(foreign, "d/new")
    now = next(
        path.stat() for path in (arena.base / "d").iterdir() if path.stat().st_ino == before.st_ino
    )
    assert (now.st_uid, now.st_mode) == (before.st_uid, before.st_mode)


def test_identity_is_taken_for_a_moment_only(tmp_path: Path) -> None:
    groups, dumpable = os.getgroups(), LIBC.prctl(3)
    with acting_as(Owner(UID, GID)), acting_as(Owner(UID, GID)):
        assert os.getgroups() == [GID]
        with pytest.raises(PermissionError):
            (tmp_path / "f").touch()
    with pytest.raises(KeyError), acting_as(Owner(UID, GID)):
        raise KeyError
    (tmp_path / "f").touch()
    assert (tmp_path / "f").stat().st_uid == 0
    assert (os.getgroups(), LIBC.prctl(3)) == (groups, dumpable)


async def test_commands_own_what_the_api_writes(foreign: WorkspaceRoot, arena: Arena) -> None:
    client = UnixLocalSandboxClient()
    manifest = Manifest(root=str(arena.base), entries={"m/f": File(content="x")})
    session = await client.create(manifest=manifest)
    async with session:
        await session.write("w/f", b"x")
        await session.mkdir("k")
        told = await session.exec(
            "stat -c '%U:%G' m m/f w w/f k; echo y >> w/f; echo y >> m/f; rmdir k"
        )
        assert told.stdout.decode().split() == ["agent:agent"] * 5
        assert told.stderr == b""
        await session.exec("echo z > made; mkdir -p deep/er; touch deep/er/f; chmod 500 deep")
        await session.write("made", b"again")
        await session.rm("deep", recursive=True)
        denied = await session.exec("cat mine closed/f shut")
        assert denied.stdout == b""
        with pytest.raises(SandboxError):
            await session.read("mine")
    assert foreign.owner == Owner(UID, GID)
    assert (arena.base / "made").stat().st_uid == UID
