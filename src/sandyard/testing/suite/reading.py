"""How files are read, described, listed and compared, with nothing but the file API."""

from __future__ import annotations

from sandyard.errors import (
    ArgumentError,
    ExecNonZeroError,
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceReadNotFoundError,
)
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same
from sandyard.types import EntryKind

__all__ = ["SUITE"]

SUITE = Suite("reading")
says = SUITE.says


@says(Promise.FILES)
async def gives_every_byte(place: Place) -> None:
    """A file is read byte for byte."""
    data = bytes(range(256)) * 300
    await place.put("it", data)
    check(await place.content("it") == data, "other bytes")


@says(Promise.FILES)
async def reads_empty_file(place: Place) -> None:
    """An empty file is read as nothing."""
    await place.put("it", b"")
    same(await place.content("it"), b"")


@says(Promise.FILES)
async def takes_absolute_paths(place: Place) -> None:
    """A path may be absolute, in the workspace."""
    path = await place.session.normalize_path(await place.put("it"))
    same(await place.read(path), b"content")


@says(Promise.ERRORS)
async def tells_missing_file(place: Place) -> None:
    """A file that is not there is a WorkspaceReadNotFoundError, which is a FileNotFoundError."""
    with refused(WorkspaceReadNotFoundError) as caught:
        await place.session.read(place.at("missing"))
    check(isinstance(caught[0], FileNotFoundError), caught[0])


@says(Promise.ERRORS)
async def tells_missing_parent(place: Place) -> None:
    """A file in a directory that is not there is missing, too."""
    with refused(WorkspaceReadNotFoundError):
        await place.session.read(place.at("missing/it"))


@says(Promise.ERRORS)
async def refuses_directory(place: Place) -> None:
    """A directory is not read."""
    with refused(WorkspaceArchiveReadError):
        await place.session.read(place.directory)


@says(Promise.WALL)
async def refuses_outside(place: Place) -> None:
    """An absolute path outside of the workspace is not read."""
    with refused(InvalidManifestPathError):
        await place.session.read("/etc/hostname")


@says(Promise.WALL)
async def refuses_above(place: Place) -> None:
    """A path that climbs out of the workspace is not read."""
    with refused(InvalidManifestPathError):
        await place.session.read(f"{place.directory}/../../it")


@says(Promise.WALL)
async def refuses_long_climb(place: Place) -> None:
    """Nor one that climbs further than there are directories."""
    with refused(InvalidManifestPathError):
        await place.session.read("../" * 40 + "etc/hostname")


@says(Promise.FILES)
async def goes_up_inside(place: Place) -> None:
    """A path may go up as long as it stays in the workspace."""
    await place.put("it")
    await place.session.mkdir(place.at("sub"))
    same(await place.content("sub/../it"), b"content")


@says(Promise.FILES)
async def reads_beginning(place: Place) -> None:
    """read_bounded gives the beginning, and no more than was asked for."""
    path = await place.put("it", b"abcdef")
    same(await place.session.read_bounded(path, max_bytes=3), b"abc")
    same(await place.session.read_bounded(path, max_bytes=30), b"abcdef")


@says(Promise.ERRORS)
async def refuses_no_bytes(place: Place) -> None:
    """read_bounded of nothing is refused, as a ValueError too."""
    with refused(ArgumentError) as caught:
        await place.session.read_bounded(await place.put("it"), max_bytes=0)
    check(isinstance(caught[0], ValueError), caught[0])


@says(Promise.FILES)
async def reads_range(place: Place) -> None:
    """read_range gives a part of a file."""
    path = await place.put("it", b"abcdef")
    same(await place.session.read_range(path, offset=2, size=3), b"cde")


@says(Promise.FILES)
async def reads_from_end(place: Place) -> None:
    """A negative offset counts from the end."""
    path = await place.put("it", b"abcdef")
    same(await place.session.read_range(path, offset=-2, size=9), b"ef")


@says(Promise.FILES)
async def reads_beyond_end(place: Place) -> None:
    """Behind the end there is nothing."""
    path = await place.put("it", b"abcdef")
    same(await place.session.read_range(path, offset=9, size=9), b"")


@says(Promise.FILES)
async def reads_in_chunks(place: Place) -> None:
    """read_chunks gives a file in pieces of the size that was asked for."""
    path = await place.put("it", b"abcdefg")
    chunks = [one async for one in place.session.read_chunks(path, chunk_bytes=3)]
    same(chunks, [b"abc", b"def", b"g"])


@says(Promise.FILES)
async def describes_file(place: Place) -> None:
    """``stat`` tells kind, size and the absolute path of a file."""
    path = await place.put("it", b"abc")
    entry = await place.session.stat(path)
    same((entry.kind, entry.size, entry.is_dir()), (EntryKind.FILE, 3, False))
    same(entry.path, str(await place.session.normalize_path(path)))


@says(Promise.FILES)
async def describes_directory(place: Place) -> None:
    """``stat`` tells that a directory is one."""
    entry = await place.session.stat(place.directory)
    same((entry.kind, entry.is_dir()), (EntryKind.DIRECTORY, True))


@says(Promise.ERRORS)
async def describes_nothing(place: Place) -> None:
    """``stat`` of nothing is a WorkspaceReadNotFoundError."""
    with refused(WorkspaceReadNotFoundError):
        await place.session.stat(place.at("missing"))


@says(Promise.FILES)
async def tells_what_exists(place: Place) -> None:
    """``exists`` tells files, directories and nothing apart."""
    path = await place.put("it")
    session = place.session
    same(await session.exists(path), True)
    same(await session.exists(place.directory), True)
    same(await session.exists(place.at("missing")), False)


@says(Promise.FILES)
async def tells_same_file(place: Place) -> None:
    """same_file tells one file from another, and knows none that is missing."""
    left, right = await place.put("left"), await place.put("right")
    session = place.session
    same(await session.same_file(left, f"./{left}"), True)
    same(await session.same_file(left, right), False)
    same(await session.same_file(left, place.at("missing")), False)


@says(Promise.FILES)
async def resolves_paths(place: Place) -> None:
    """normalize_path gives the absolute path, without dots."""
    root = await place.session.normalize_path(".")
    check(root.is_absolute(), root)
    same(await place.session.normalize_path(place.at("a/../b/./c")), root / place.at("b/c"))


@says(Promise.WALL)
async def resolves_none_outside(place: Place) -> None:
    """normalize_path refuses what is outside."""
    for path in ("/etc", "..", f"{place.directory}/../../x"):
        with refused(InvalidManifestPathError):
            await place.session.normalize_path(path)


@says(Promise.FILES)
async def lists_sorted(place: Place) -> None:
    """``ls`` lists files and directories, hidden ones too, sorted."""
    for name in ("b", ".hidden", "a", "C"):
        await place.put(name)
    await place.session.mkdir(place.at("d"))
    same(await place.names(), [".hidden", "C", "a", "b", "d"])


@says(Promise.FILES)
async def lists_kinds(place: Place) -> None:
    """``ls`` tells the kinds and sizes of what it lists."""
    await place.put("file", b"four")
    await place.session.mkdir(place.at("sub"))
    listed = await place.session.ls(place.directory)
    same([entry.kind for entry in listed], [EntryKind.FILE, EntryKind.DIRECTORY])
    same(listed[0].size, 4)


@says(Promise.FILES)
async def lists_absolute_paths(place: Place) -> None:
    """``ls`` gives absolute paths, as commands see them."""
    path = await place.session.normalize_path(await place.put("it"))
    same([entry.path for entry in await place.session.ls(place.directory)], [str(path)])


@says(Promise.FILES)
async def lists_recursively(place: Place) -> None:
    """With recursive ls lists all beneath."""
    await place.put("a/b/c")
    listed = await place.session.ls(place.directory, recursive=True)
    top = str(await place.session.normalize_path(place.directory))
    same([entry.path.removeprefix(top) for entry in listed], ["/a", "/a/b", "/a/b/c"])


@says(Promise.FILES)
async def lists_nothing(place: Place) -> None:
    """An empty directory is listed as nothing."""
    same(await place.session.ls(place.directory), [])


@says(Promise.ERRORS)
async def lists_no_file(place: Place) -> None:
    """A file is not listed as a directory."""
    path = await place.put("it")
    with refused(ExecNonZeroError):
        await place.session.ls(path)


@says(Promise.ERRORS)
async def lists_no_missing(place: Place) -> None:
    """A directory that is not there is not listed."""
    with refused(ExecNonZeroError):
        await place.session.ls(place.at("missing"))


@says(Promise.FILES)
async def lists_odd_names(place: Place) -> None:
    """Names with spaces, newlines and dashes are listed as they are."""
    names = [" lead", "-rf", "a b", "line\nfeed", "ü"]
    for name in names:
        await place.put(name)
    same(await place.names(), names)
