"""Disks that are full or read-only, and files that nobody may change: typed errors, nothing half."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gzip
import io
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from sandyard import Manifest, UnixLocalSandboxClient
from sandyard.errors import SandboxError, WorkspaceArchiveReadError, WorkspaceArchiveWriteError
from sandyard.manifest import File, LocalDir
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.changing import copy
from sandyard.workspace.extract import (
    Extraction,
    extract_archive,
    hydrate_workspace,
    unpack_into,
)
from sandyard.workspace.files import append, make_directory, read, remove, write
from sandyard.workspace.listing import list_directory
from sandyard.workspace.materialize import apply_manifest
from sandyard.workspace.transfer import Errand, download, upload
from tests.archive.making import item, tar_of
from tests.workspace.sample import looks

pytestmark = pytest.mark.root

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, IMMUTABLE = 0x80086601, 0x40086602, 0x10
MS_RDONLY, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 32, 4096, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, flags: int, options: str | None = None) -> None:
    """Mount a tmpfs, or do what the flags say."""
    given = None if options is None else options.encode()
    if LIBC.mount(source.encode(), os.fsencode(target), b"tmpfs", flags, given) != 0:
        pytest.skip(f"mounting is not allowed here: {os.strerror(ctypes.get_errno())}")


@contextmanager
def mounted(target: Path, options: str) -> Iterator[Path]:
    """A file system of its own, with a workspace in it."""
    target.mkdir()
    mount("tmpfs", target, 0, options)
    try:
        (target / "ws").mkdir()
        yield target / "ws"
    finally:
        assert LIBC.umount2(os.fsencode(target), MNT_DETACH) == 0


class Zeros(io.RawIOBase):
    """A stream of a megabyte."""

    def __init__(self) -> None:
        self._left = 1 << 20

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def reason(work: Callable[[], object]) -> object:
    """Why something could not be written."""
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        work()
    return caught.value.context["reason"]


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/big").write_bytes(bytes(1 << 20))
    with mounted(tmp_path / "disk", "size=256k") as base, WorkspaceRoot.open(base) as root:
        write(root, "f", b"old")
        copied = Manifest(entries={"c": LocalDir(src="source")})
        for work in (
            lambda: write(root, "f", bytes(1 << 20)),
            lambda: write(root, "f", Zeros()),
            lambda: write(root, "new", Zeros()),
            lambda: apply_manifest(root, Manifest(entries={"f": File(content="x" * (1 << 20))})),
            lambda: apply_manifest(root, copied, base_dir=str(tmp_path)),
        ):
            assert reason(work) == "no_space"
        with read(root, "f") as reader:
            assert reader.read() == b"old"
        assert sorted(os.listdir(base)) == ["c", "f"]
        assert os.listdir(base / "c") == []
        write(root, "f", b"fits")


NUMBERS = b"".join(b"%d\n" % number for number in range(100_000))
PLAIN = tar_of(item("f", b"new"), item("d/small", b"new"), item("d/z/large", NUMBERS))
PACKED = gzip.compress(PLAIN)
"""Fits where its content does not."""


def test_archives_fill_a_disk(tmp_path: Path) -> None:
    """Wherever it becomes full: in the archive itself, or in what comes out of it."""
    with mounted(tmp_path / "disk", "size=400k") as base, WorkspaceRoot.open(base) as root:
        write(root, "f", b"old")
        write(root, "d/kept", b"kept")
        before = looks(os.fsencode(base))
        for data in (PLAIN, PACKED):
            for work in (
                lambda data=data: extract_archive(root, "d/a", data, Extraction()),
                lambda data=data: extract_archive(root, "d/a", data, Extraction(keep=False)),
                lambda data=data: extract_archive(root, "a", io.BytesIO(data), Extraction()),
                lambda data=data: hydrate_workspace(root, data, None, Event()),
                lambda data=data: unpack_into(root, "d", io.BytesIO(data), None, Event()),
            ):
                assert reason(work) == "no_space"
                assert looks(os.fsencode(base)) == before
        extract_archive(root, "a", tar_of(item("f", b"fits")), Extraction())


def test_copies_fill_a_disk(tmp_path: Path) -> None:
    """A file is there whole or not at all; of a tree, those files that were written before stay."""
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "a").write_bytes(b"new")
    (source / "d/large").write_bytes(NUMBERS)
    with mounted(tmp_path / "disk", "size=400k") as base, WorkspaceRoot.open(base) as root:
        write(root, "d/f", NUMBERS[:300_000])
        before = looks(os.fsencode(base))
        for work in (
            lambda: copy(root, "d/f", "g"),
            lambda: copy(root, "d", "made/below", recursive=True),
            lambda: upload(root, source / "d/large", "d/f", Errand()),
            lambda: upload(root, source / "d/large", "new", Errand()),
        ):
            assert reason(work) == "no_space"
            remove(root, "made", recursive=True)
            assert {path: look[2] for path, look in looks(os.fsencode(base)).items()} == {
                path: look[2] for path, look in before.items()
            }
        assert reason(lambda: upload(root, source, "tree", Errand())) == "no_space"
        assert sorted(str(path.relative_to(base)) for path in base.rglob("*")) == [
            "d", "d/f", "tree", "tree/a", "tree/d",
        ]  # fmt: skip
        with pytest.raises(WorkspaceArchiveWriteError, match="only the first") as caught:
            append(root, "log", NUMBERS)
        assert caught.value.context["written"] == (base / "log").stat().st_size > 0


def test_downloads_fill_a_disk(tmp_path: Path, root: WorkspaceRoot, base: Path) -> None:
    (base / "d").mkdir()
    (base / "a").write_bytes(b"new")
    (base / "d/large").write_bytes(NUMBERS)
    with mounted(tmp_path / "disk", "size=256k") as small:
        (small / "old").write_bytes(b"old")
        for path, destination in (("d/large", "old"), ("d/large", "new"), (".", "tree")):
            with pytest.raises(WorkspaceArchiveReadError) as caught:
                download(root, path, small / destination, Errand())
            assert caught.value.context["reason"] == "no_space"
            assert caught.value.context["destination"] == str(small / destination)
        assert (small / "old").read_bytes() == b"old"
        assert sorted(str(path.relative_to(small)) for path in small.rglob("*")) == [
            "old", "tree", "tree/a", "tree/d",
        ]  # fmt: skip


def test_no_inode_is_left(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "nr_inodes=5") as base, WorkspaceRoot.open(base) as root:
        write(root, "f", b"old")
        make_directory(root, "d")
        while len(os.listdir(base / "d")) < 1:
            write(root, "d/f", b"")
        assert reason(lambda: write(root, "f", b"new")) == "no_space"
        assert reason(lambda: write(root, "new", b"new")) == "no_space"
        assert reason(lambda: make_directory(root, "new")) == "no_space"
        assert sorted(os.listdir(base)) == ["d", "f"]
        remove(root, "d", recursive=True)
        write(root, "f", b"new")


def test_a_disk_becomes_read_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m") as base, WorkspaceRoot.open(base) as root:
        write(root, "d/f", b"old")
        mount("tmpfs", disk, MS_REMOUNT | MS_RDONLY)
        for work in (
            lambda: write(root, "d/f", b"new"),
            lambda: write(root, "new/f", b"new"),
            lambda: make_directory(root, "new"),
            lambda: remove(root, "d/f"),
            lambda: remove(root, "d", recursive=True),
            lambda: apply_manifest(root, Manifest(entries={"f": File(content="x")})),
        ):
            assert reason(work) == "read_only"
        with read(root, "d/f") as reader:
            assert reader.read() == b"old"
        assert len(list_directory(root, "d")) == 1


def test_delete_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m"):
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with WorkspaceRoot.create_private() as root:
            write(root, "d/f", b"old")
            mount("tmpfs", disk, MS_REMOUNT | MS_RDONLY)
            assert not root.delete()
            assert Path(root.path, "d/f").read_bytes() == b"old"
            mount("tmpfs", disk, MS_REMOUNT)
            assert root.delete()
            assert not Path(root.path).exists()


def test_a_read_only_bind_mount(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/f").write_bytes(b"old")
    (base / "d").mkdir()
    mount(str(tmp_path / "shared"), base / "d", MS_BIND)
    try:
        mount("none", base / "d", MS_REMOUNT | MS_BIND | MS_RDONLY)
        assert reason(lambda: write(root, "d/f", b"new")) == "read_only"
        assert reason(lambda: remove(root, "d/f")) == "read_only"
        assert reason(lambda: remove(root, "d", recursive=True)) == "busy"
    finally:
        assert LIBC.umount2(os.fsencode(base / "d"), MNT_DETACH) == 0
    assert (tmp_path / "shared/f").read_bytes() == b"old"


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """The file can't be changed in the block, as after ``chattr +i``."""
    opened = os.open(path, os.O_RDONLY)
    try:
        try:
            before = struct.unpack("l", fcntl.ioctl(opened, FS_IOC_GETFLAGS, bytes(8)))[0]
            fcntl.ioctl(opened, FS_IOC_SETFLAGS, struct.pack("l", before | IMMUTABLE))
        except OSError as error:
            pytest.skip(f"this file system has no immutable files: {error}")
        try:
            yield
        finally:
            fcntl.ioctl(opened, FS_IOC_SETFLAGS, struct.pack("l", before))
    finally:
        os.close(opened)


def test_files_that_nobody_may_change(root: WorkspaceRoot, base: Path) -> None:
    write(root, "d/f", b"old")
    with immutable(base / "d/f"):
        assert reason(lambda: write(root, "d/f", b"new")) == "permission_denied"
        assert reason(lambda: remove(root, "d/f")) == "permission_denied"
        assert reason(lambda: remove(root, "d", recursive=True)) == "permission_denied"
        assert os.listdir(base / "d") == ["f"]
    with immutable(base / "d"):
        assert reason(lambda: write(root, "d/new", b"new")) == "permission_denied"
        assert reason(lambda: write(root, "d/f", b"new")) == "permission_denied"
        assert reason(lambda: make_directory(root, "d/new")) == "permission_denied"
    assert (base / "d/f").read_bytes() == b"old"


async def test_a_session_whose_disk_turns(tmp_path: Path) -> None:
    """The sandbox stands on the same disk; each side says what it can't do, and both end well."""
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m") as base:
        client = UnixLocalSandboxClient()
        session = await client.create(manifest=Manifest(root=str(base)))
        async with session:
            await session.write("f", b"old")
            mount("tmpfs", disk, MS_REMOUNT | MS_RDONLY)
            said = await session.exec("cat f; echo new > f")
            assert said.stdout == b"old"
            assert b"Read-only" in said.stderr
            with pytest.raises(WorkspaceArchiveWriteError, match="read-only"):
                await session.write("f", b"new")
            mount("tmpfs", disk, MS_REMOUNT)
            await session.write("f", b"new")
            with pytest.raises(WorkspaceArchiveWriteError, match="full"):
                await session.write("big", bytes(1 << 21))
        await client.delete(session)
        assert sorted(os.listdir(base)) == ["f"]


async def test_a_session_whose_root_goes(tmp_path: Path) -> None:
    """Renamed, the directory is still the session's; removed, every call says so."""
    base, moved = tmp_path / "ws", tmp_path / "moved"
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(root=str(base)))
    async with session:
        base.rename(moved)
        base.mkdir()
        (base / "impostor").touch()
        await session.write("f", b"x")
        assert (await session.exec("cat f")).stdout == b"x"
        assert os.listdir(moved) == ["f"]
        assert [entry.path for entry in await session.ls(".")] == [f"{base}/f"]
        await asyncio.to_thread(shutil.rmtree, moved)
        for work in (session.ls("."), session.read("f"), session.write("f", b"")):
            with pytest.raises(SandboxError) as caught:
                await work
            assert caught.value.code == "workspace_root_not_found"
    await client.delete(session)
    assert os.listdir(base) == ["impostor"]
