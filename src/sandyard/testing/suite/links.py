"""What commands and the file API make of each other's files, and of links and odd things in them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sandyard.errors import (
    InvalidManifestPathError,
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceReadNotFoundError,
)
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same
from sandyard.types import EntryKind

__all__ = ["SUITE"]

SUITE = Suite("links")
says = SUITE.says


@says(Promise.ONE_VIEW)
async def commands_read_written(place: Place) -> None:
    """A command reads what the file API wrote."""
    await place.put("it")
    same(await place.said("cat it"), "content")


@says(Promise.ONE_VIEW)
async def commands_change_written(place: Place) -> None:
    """A command may change, move and remove what the file API wrote."""
    await place.put("a")
    await place.put("b")
    await place.said("echo more >> a && mv a c && rm b && chmod 700 c")
    same((await place.names(), await place.content("c")), (["c"], b"contentmore\n"))


@says(Promise.ONE_VIEW)
async def files_read_made(place: Place) -> None:
    """The file API reads what a command made, private files too."""
    await place.said("umask 077; printf made > it")
    same(await place.content("it"), b"made")


@says(Promise.ONE_VIEW)
async def files_change_made(place: Place) -> None:
    """The file API writes over and removes what a command made."""
    await place.said("echo a > a; mkdir -p d/e; echo b > d/e/b")
    await place.put("a", b"new")
    await place.session.rm(place.at("d"), recursive=True)
    same((await place.names(), await place.said("cat a")), (["a"], "new"))


@says(Promise.ONE_VIEW)
async def paths_are_the_same(place: Place) -> None:
    """The absolute path of a file is the same for commands."""
    path = await place.session.normalize_path(await place.put("it"))
    same((await place.session.exec("cat", str(path), shell=False)).stdout, b"content")


@says(Promise.ONE_VIEW)
async def owner_is_the_same(place: Place) -> None:
    """Files of commands and of the file API have one owner, who runs the commands."""
    await place.put("a")
    await place.said("echo b > b")
    same(
        (await place.said("stat -c %u a b; id -u")).split(), (await place.said("id -u")).split() * 3
    )


@says(Promise.ONE_VIEW)
async def keeps_executable(place: Place) -> None:
    """Writing a program again keeps it executable."""
    await place.put("run", b"#!/bin/sh\necho one\n")
    await place.said("chmod 755 run")
    await place.put("run", b"#!/bin/sh\necho two\n")
    same(await place.said("./run"), "two\n")


@says(Promise.ONE_VIEW)
async def tells_owner_names(place: Place) -> None:
    """``ls`` tells the owner that commands see."""
    await place.put("it")
    (entry,) = await place.session.ls(place.directory)
    same([entry.owner, entry.group], (await place.said("stat -c '%U %G' it")).split())


@says(Promise.FILES)
async def never_shows_half(place: Place) -> None:
    """A command that reads a file while it is written sees the old one or the new one, whole."""
    contents = [letter * 60_000 for letter in (b"a", b"b")]
    await place.put("it", contents[0])
    text = "until [ -e end ]; do cat it > seen; wc -c < seen; tr -d a < seen | wc -c; done"
    reading = asyncio.ensure_future(place.run(text))
    for turn in range(20):
        await place.put("it", contents[turn % 2])
    await place.put("end")
    counts = (await reading).stdout.split()
    odd = set(zip(counts[::2], counts[1::2], strict=True)) - {
        (b"60000", b"0"),
        (b"60000", b"60000"),
    }
    same(odd, set())


@says(Promise.FILES)
async def writes_leave_no_litter(place: Place) -> None:
    """Writing leaves nothing but the file."""
    await place.put("it")
    same(await place.said("find . -mindepth 1"), "./it\n")


@says(Promise.LINKS)
async def reads_through_link(place: Place) -> None:
    """A link in the workspace is read through."""
    await place.put("it")
    await place.said("ln -s it link")
    same(await place.content("link"), b"content")


@says(Promise.LINKS)
async def reads_through_absolute_link(place: Place) -> None:
    """A link with an absolute target in the workspace is read through."""
    await place.put("it")
    await place.said('ln -s "$PWD/it" link')
    same(await place.content("link"), b"content")


@says(Promise.LINKS)
async def reads_no_link_out(place: Place) -> None:
    """A link that leads out is not read, nor one through a directory."""
    await place.said("ln -s /etc/hostname file; ln -s / tree")
    for name in ("file", "tree/etc/hostname"):
        with refused(InvalidManifestPathError):
            await place.content(name)


@says(Promise.LINKS)
async def writes_no_link_out(place: Place) -> None:
    """Nothing is written through a link that leads out."""
    await place.said("ln -s /var/tmp tree; ln -s /var/tmp/conformance-test file")
    for name in ("tree/conformance-test", "file"):
        with refused(SandboxError):
            await place.put(name)


@says(Promise.LINKS)
async def lists_no_link_out(place: Place) -> None:
    """A directory behind a link that leads out is not listed."""
    await place.said("ln -s /etc tree")
    with refused(SandboxError):
        await place.names("tree")


@says(Promise.LINKS)
async def reads_no_loop(place: Place) -> None:
    """A loop of links is an error."""
    await place.said("ln -s b a; ln -s a b")
    with refused(SandboxError):
        await place.content("a")


@says(Promise.LINKS)
async def reads_no_dangling_link(place: Place) -> None:
    """A link that leads nowhere is a missing file."""
    await place.said("ln -s nowhere link")
    with refused(WorkspaceReadNotFoundError):
        await place.content("link")


@says(Promise.LINKS)
async def lists_links(place: Place) -> None:
    """``ls`` tells links as links, those that lead nowhere too."""
    await place.said("ln -s nowhere link; ln -s /etc out")
    listed = await place.session.ls(place.directory)
    same([entry.kind for entry in listed], [EntryKind.SYMLINK] * 2)


@says(Promise.LINKS)
async def lists_no_linked_tree(place: Place) -> None:
    """A recursive listing does not follow links."""
    await place.said("mkdir d; echo x > d/x; ln -s d link; ln -s .. up")
    listed = await place.session.ls(place.directory, recursive=True)
    same([one.path.rpartition("/")[2] for one in listed], ["d", "x", "link", "up"])


@says(Promise.LINKS)
async def describes_links(place: Place) -> None:
    """``stat`` follows a link, or tells of the link itself."""
    await place.put("it", b"four")
    await place.said("ln -s it link")
    session, path = place.session, place.at("link")
    same((await session.stat(path)).kind, EntryKind.FILE)
    entry = await session.stat(path, follow_symlinks=False)
    same((entry.kind, entry.target), (EntryKind.SYMLINK, "it"))


@says(Promise.LINKS)
async def removes_link_alone(place: Place) -> None:
    """``rm`` removes a link, never its target."""
    await place.put("it")
    await place.said("ln -s it link")
    await place.session.rm(place.at("link"))
    same((await place.names(), await place.content("it")), (["it"], b"content"))


@says(Promise.LINKS)
async def removes_dangling_link(place: Place) -> None:
    """``rm`` removes a link that leads nowhere."""
    await place.said("ln -s nowhere link")
    await place.session.rm(place.at("link"))
    same(await place.names(), [])


@says(Promise.LINKS)
async def removes_link_out(place: Place) -> None:
    """``rm`` removes a link that leads out, and nothing there."""
    await place.said("ln -s /etc out")
    await place.session.rm(place.at("out"))
    same(await place.names(), [])


@says(Promise.LINKS)
async def removes_no_linked_tree(place: Place) -> None:
    """A recursive rm does not follow links."""
    await place.said("mkdir d kept; echo x > kept/x; ln -s ../kept d/link")
    await place.session.rm(place.at("d"), recursive=True)
    same((await place.names(), await place.names("kept")), (["kept"], ["x"]))


@says(Promise.LINKS)
async def moves_links(place: Place) -> None:
    """``mv`` moves a link, not its target."""
    await place.put("it")
    await place.said("ln -s it link")
    await place.session.mv(place.at("link"), place.at("other"))
    same(await place.said("readlink other; cat it"), "it\ncontent")


@says(Promise.LINKS)
async def knows_hard_links(place: Place) -> None:
    """Two names of one file are the same file; a link is another unless it is followed."""
    await place.put("a")
    await place.said("ln a b; ln -s a c")
    session = place.session
    a, b, c = (place.at(name) for name in "abc")
    same(await session.same_file(a, b), True)
    same(await session.same_file(a, c), True)
    same(await session.same_file(a, c, follow_symlinks=False), False)


@says(Promise.LINKS)
async def greps_no_linked_tree(place: Place) -> None:
    """Searching does not follow links out."""
    await place.said("ln -s /etc out; echo root: > it")
    found = await place.session.grep("root:", place.directory)
    same([one.path.rpartition("/")[2] for one in found.matches], ["it"])


@says(Promise.ERRORS)
async def reads_no_pipe(place: Place) -> None:
    """A named pipe is refused at once, and blocks nobody."""
    await place.said("mkfifo pipe")
    with refused(WorkspaceArchiveReadError):
        await place.content("pipe")


@says(Promise.FILES)
async def removes_odd_things(place: Place) -> None:
    """``rm`` removes pipes, files without permissions and odd names."""
    await place.said("mkfifo pipe; echo x > locked; chmod 000 locked; mkdir d; echo > 'd/a\nb'")
    for name in ("pipe", "locked", "d"):
        await place.session.rm(place.at(name), recursive=True)
    same(await place.names(), [])


@says(Promise.FILES)
async def holds_through_swaps(place: Place) -> None:
    """While a command swaps a directory for a link that leads out, nothing is read there."""
    await place.said("mkdir d; echo inside > d/hostname; ln -s /etc out")
    text = "until [ -e end ]; do mv d was; mv out d; mv d out; mv was d; done"
    swapping = asyncio.ensure_future(place.run(text))
    seen = set()
    for _ in range(60):
        # There is none, for a moment. How that is told is not what is tried here.
        with suppress(SandboxError, OSError):
            seen.add(await place.content("d/hostname"))
    await place.put("end")
    await swapping
    check(seen <= {b"inside\n"}, seen)
