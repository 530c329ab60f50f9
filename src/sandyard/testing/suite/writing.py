"""How files are written, made, removed, moved and copied, with nothing but the file API."""

from __future__ import annotations

import asyncio
import io

from sandyard.errors import (
    ExecNonZeroError,
    InvalidManifestPathError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceWriteTypeError,
)
from sandyard.finishing import in_thread
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same

__all__ = ["SUITE"]

SUITE = Suite("writing")
says = SUITE.says


class _Failing(io.RawIOBase):
    """A source that breaks after its first bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._begun:
            raise OSError(5, "the source is gone")
        self._begun = True
        return b"new"


@says(Promise.FILES)
async def writes_bytes(place: Place) -> None:
    """Bytes are written."""
    await place.put("it", b"a\0b")
    same(await place.content("it"), b"a\0b")


@says(Promise.FILES)
async def writes_streams(place: Place) -> None:
    """A binary stream is written from where it stands."""
    stream = io.BytesIO(b"skip content")
    stream.seek(5)
    await place.session.write(place.at("it"), stream)
    same(await place.content("it"), b"content")


@says(Promise.FILES)
async def writes_buffers(place: Place) -> None:
    """Byte arrays and views of memory are written."""
    await place.session.write(place.at("a"), bytearray(b"array"))
    await place.session.write(place.at("b"), memoryview(b"view"))
    same((await place.content("a"), await place.content("b")), (b"array", b"view"))


@says(Promise.FILES)
async def makes_parents(place: Place) -> None:
    """Missing parents are made."""
    await place.put("a/b/c")
    same(await place.content("a/b/c"), b"content")


@says(Promise.FILES)
async def replaces_whole(place: Place) -> None:
    """A file that exists is replaced, whatever its length was."""
    await place.put("it", b"a long content")
    await place.put("it", b"short")
    same(await place.content("it"), b"short")


@says(Promise.FILES)
async def keeps_open_readers(place: Place) -> None:
    """Who has a file open reads the old content to its end."""
    path = await place.put("it", b"old content")
    file = await place.session.read(path)
    try:
        await place.put("it", b"new")
        same(await in_thread(file.read), b"old content")
    finally:
        file.close()


@says(Promise.FILES)
async def keeps_old_on_failure(place: Place) -> None:
    """A source that fails leaves the old file as it was, and no other."""
    await place.put("it", b"old")
    with refused(Exception):
        await place.session.write(place.at("it"), _Failing())
    same((await place.content("it"), await place.names()), (b"old", ["it"]))


@says(Promise.ERRORS)
async def refuses_text(place: Place) -> None:
    """Text is refused, and the file stays as it was."""
    path = await place.put("it", b"old")
    with refused(WorkspaceWriteTypeError) as caught:
        await place.session.write(path, io.StringIO("new"))
    check(isinstance(caught[0], TypeError), caught[0])
    same(await place.content("it"), b"old")


@says(Promise.ERRORS)
async def refuses_directory(place: Place) -> None:
    """A directory is not written over."""
    with refused(WorkspaceArchiveWriteError):
        await place.session.write(place.directory, b"x")


@says(Promise.ERRORS)
async def refuses_file_parent(place: Place) -> None:
    """Beneath a file nothing is written."""
    await place.put("it")
    with refused(WorkspaceArchiveWriteError):
        await place.put("it/below")


@says(Promise.WALL)
async def refuses_outside(place: Place) -> None:
    """Outside of the workspace nothing is written."""
    for path in ("/etc/conformance-test", "../conformance-test"):
        with refused(InvalidManifestPathError):
            await place.session.write(path, b"x")


@says(Promise.FILES)
async def serialises_writers(place: Place) -> None:
    """Of several that write one file at once, one wins whole."""
    contents = [bytes([65 + n]) * 50_000 for n in range(8)]
    await asyncio.gather(*(place.put("it", content) for content in contents))
    check(await place.content("it") in contents, "a mixture")
    same(await place.names(), ["it"])


@says(Promise.FILES)
async def appends(place: Place) -> None:
    """``append`` adds to the end, and writes what is not there."""
    for data in (b"one ", b"two"):
        await place.session.append(place.at("it"), data)
    same(await place.content("it"), b"one two")


@says(Promise.FILES)
async def makes_directory(place: Place) -> None:
    """``mkdir`` makes a directory, and leaves one alone that exists."""
    await place.session.mkdir(place.at("sub"))
    await place.put("sub/it")
    await place.session.mkdir(place.at("sub"))
    same(await place.names("sub"), ["it"])


@says(Promise.FILES)
async def makes_all_above(place: Place) -> None:
    """With parents mkdir makes what is missing above."""
    await place.session.mkdir(place.at("a/b/c"), parents=True)
    same(await place.names("a/b"), ["c"])


@says(Promise.ERRORS)
async def makes_none_above(place: Place) -> None:
    """Without parents mkdir makes nothing in a directory that is missing."""
    with refused(WorkspaceArchiveWriteError):
        await place.session.mkdir(place.at("a/b"))
    same(await place.names(), [])


@says(Promise.ERRORS)
async def makes_none_over_file(place: Place) -> None:
    """``mkdir`` does not replace a file."""
    path = await place.put("it")
    with refused(WorkspaceArchiveWriteError):
        await place.session.mkdir(path)
    same(await place.content("it"), b"content")


@says(Promise.FILES)
async def removes_file(place: Place) -> None:
    """``rm`` removes a file, and no other."""
    await place.put("keep")
    await place.session.rm(await place.put("it"))
    same(await place.names(), ["keep"])


@says(Promise.FILES)
async def removes_tree(place: Place) -> None:
    """With recursive rm removes a tree."""
    await place.put("a/b/c")
    await place.session.rm(place.at("a"), recursive=True)
    same(await place.names(), [])


@says(Promise.ERRORS)
async def removes_no_full_directory(place: Place) -> None:
    """Without recursive rm removes no directory that holds something."""
    await place.put("a/b")
    with refused(WorkspaceArchiveWriteError):
        await place.session.rm(place.at("a"))
    same(await place.names("a"), ["b"])


@says(Promise.ERRORS)
async def removes_no_missing(place: Place) -> None:
    """Removing what is not there fails; with recursive it is as asked already."""
    with refused(ExecNonZeroError):
        await place.session.rm(place.at("missing"))
    await place.session.rm(place.at("missing"), recursive=True)


@says(Promise.FILES, own=True)
async def removes_no_root(place: Place) -> None:
    """The workspace itself is not removed."""
    async with place.session:
        await place.put("kept")
        with refused(WorkspaceArchiveWriteError):
            await place.session.rm(".", recursive=True)
        same(await place.content("kept"), b"content")


@says(Promise.WALL)
async def removes_none_outside(place: Place) -> None:
    """Outside of the workspace nothing is removed."""
    with refused(InvalidManifestPathError):
        await place.session.rm("/tmp/conformance-test", recursive=True)  # noqa: S108  # not made


@says(Promise.FILES)
async def moves_file(place: Place) -> None:
    """``mv`` renames a file."""
    await place.session.mv(await place.put("a"), place.at("b"))
    same((await place.names(), await place.content("b")), (["b"], b"content"))


@says(Promise.FILES)
async def moves_over_file(place: Place) -> None:
    """``mv`` replaces a file that is there."""
    await place.put("b", b"old")
    await place.session.mv(await place.put("a", b"new"), place.at("b"))
    same((await place.names(), await place.content("b")), (["b"], b"new"))


@says(Promise.FILES)
async def moves_directory(place: Place) -> None:
    """``mv`` renames a directory with all that is in it."""
    await place.put("a/b/c")
    await place.session.mv(place.at("a"), place.at("z"))
    same((await place.names(), await place.content("z/b/c")), (["z"], b"content"))


@says(Promise.ERRORS)
async def moves_over_no_directory(place: Place) -> None:
    """``mv`` replaces no directory."""
    path = await place.put("a")
    await place.put("d/kept")
    with refused(ExecNonZeroError):
        await place.session.mv(path, place.at("d"))
    same((await place.names(), await place.names("d")), (["a", "d"], ["kept"]))


@says(Promise.ERRORS)
async def moves_no_missing(place: Place) -> None:
    """``mv`` of what is not there fails, and makes nothing."""
    with refused(ExecNonZeroError):
        await place.session.mv(place.at("missing"), place.at("b"))
    same(await place.names(), [])


@says(Promise.WALL)
async def moves_none_outside(place: Place) -> None:
    """``mv`` takes nothing out of the workspace."""
    path = await place.put("a")
    with refused(InvalidManifestPathError):
        await place.session.mv(path, "../conformance-test")
    same(await place.names(), ["a"])


@says(Promise.FILES)
async def copies_file(place: Place) -> None:
    """``copy`` makes another file of the same content."""
    path = await place.put("a")
    await place.session.copy(path, place.at("b"))
    await place.put("a", b"changed")
    same(await place.content("b"), b"content")


@says(Promise.FILES)
async def copies_tree(place: Place) -> None:
    """With recursive copy copies a tree, empty directories too."""
    await place.put("a/b/c")
    await place.session.mkdir(place.at("a/empty"))
    await place.session.copy(place.at("a"), place.at("z"), recursive=True)
    same((await place.names("z"), await place.content("z/b/c")), (["b", "empty"], b"content"))


@says(Promise.ERRORS)
async def copies_no_directory(place: Place) -> None:
    """Without recursive no directory is copied."""
    await place.put("a/b")
    with refused(WorkspaceArchiveWriteError):
        await place.session.copy(place.at("a"), place.at("z"))
    same(await place.names(), ["a"])


@says(Promise.ERRORS)
async def copies_no_missing(place: Place) -> None:
    """``copy`` of what is not there is refused, and makes nothing."""
    with refused(WorkspaceArchiveWriteError, WorkspaceReadNotFoundError):
        await place.session.copy(place.at("missing"), place.at("b"))
    same(await place.names(), [])


@says(Promise.FILES)
async def sets_mode(place: Place) -> None:
    """``chmod`` sets the permission bits, and stat tells them."""
    path = await place.put("it")
    await place.session.chmod(path, 0o640)
    same((await place.session.stat(path)).permissions.to_mode(), 0o640)


@says(Promise.FILES)
async def keeps_mode(place: Place) -> None:
    """Writing a file keeps its mode."""
    path = await place.put("it")
    await place.session.chmod(path, 0o754)
    await place.put("it", b"new")
    same((await place.session.stat(path)).permissions.to_mode(), 0o754)


@says(Promise.FILES)
async def writes_plain_files(place: Place) -> None:
    """A new file is not executable."""
    path = await place.put("it")
    (entry,) = await place.session.ls(place.directory)
    same(entry.permissions.to_mode() & 0o111, 0)
    same(entry.path, str(await place.session.normalize_path(path)))
