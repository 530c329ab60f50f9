"""How whole trees are saved, restored and unpacked."""

from __future__ import annotations

import io
import tarfile
import zipfile

from sandyard.errors import (
    InvalidManifestPathError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceWriteTypeError,
)
from sandyard.finishing import in_thread
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same

__all__ = ["SUITE"]

SUITE = Suite("trees")
says = SUITE.says


def _tar(*members: tarfile.TarInfo, content: bytes = b"content") -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member in members:
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    made.seek(0)
    return made


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, 0o644
    return member


async def _saved(place: Place) -> dict[str, tarfile.TarInfo]:
    """What an archive of the workspace has of the behaviour's directory."""
    stream = await place.session.persist_workspace()

    def read() -> dict[str, tarfile.TarInfo]:
        with stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            names = {member.name.removeprefix("./"): member for member in archive}
        top = f"{place.directory}/"
        return {name.removeprefix(top): one for name, one in names.items() if name.startswith(top)}

    return await in_thread(read)


@says(Promise.SAVED)
async def saves_tree(place: Place) -> None:
    """The saved workspace is a tar archive with files, directories and links."""
    await place.said("mkdir -p a/empty; echo x > a/x; ln -s x a/link")
    members = await _saved(place)
    same(sorted(members), ["a", "a/empty", "a/link", "a/x"])
    same((members["a/link"].linkname, members["a/x"].size), ("x", 2))


@says(Promise.SAVED)
async def saves_modes(place: Place) -> None:
    """Modes of files and directories are saved."""
    await place.said(
        "mkdir -m 750 d; echo x > d/run; chmod 755 d/run; echo y > d/key; chmod 600 d/key"
    )
    members = await _saved(place)
    same([oct(members[name].mode) for name in ("d", "d/key", "d/run")], ["0o750", "0o600", "0o755"])


@says(Promise.SAVED)
async def saves_hard_links(place: Place) -> None:
    """Two names of one file are saved as one."""
    await place.said("echo x > a; ln a b")
    kinds = sorted(member.islnk() for member in (await _saved(place)).values())
    same(kinds, [False, True])


@says(Promise.SAVED)
async def saves_odd_links(place: Place) -> None:
    """Links that lead nowhere, and absolute ones, are saved as they are."""
    await place.said("ln -s nowhere a; ln -s /usr/bin/env b")
    members = await _saved(place)
    same((members["a"].linkname, members["b"].linkname), ("nowhere", "/usr/bin/env"))


@says(Promise.SAVED, own=True)
async def restores_what_it_saved(place: Place) -> None:
    """A saved workspace is restored by another session: content, modes, links, times."""
    text = "mkdir -p -m 750 d; echo x > d/x; chmod 640 d/x; ln -s x d/l; touch -d @1000000 d/x d"
    show = "cat d/x; stat -c '%n %a %Y' d d/x; readlink d/l"
    async with place.session:
        await place.said(text)
        wanted = await place.said(show)
        stream = await place.session.persist_workspace()
        data = io.BytesIO(await in_thread(stream.read))
        await in_thread(stream.close)
    async with place.make() as other, other:
        await other.hydrate_workspace(data)
        same((await other.exec(show)).stdout.decode(), wanted)


@says(Promise.SAVED, own=True)
async def skips_registered_paths(place: Place) -> None:
    """What is registered to be left out is not saved, nor what is beneath."""
    async with place.session:
        await place.put("kept/a")
        await place.put("left/b")
        place.session.register_persist_workspace_skip_path("left")
        stream = await place.session.persist_workspace()

        def read() -> set[str]:
            with stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                return {member.name.removeprefix("./") for member in archive}

        names = await in_thread(read)
        check("kept/a" in names and not {"left", "left/b"} & names, names)


@says(Promise.ERRORS)
async def skips_no_odd_path(place: Place) -> None:
    """A path that leaves the workspace can't be registered to be left out."""
    for path in ("/etc", "../x"):
        with refused(InvalidManifestPathError):
            place.session.register_persist_workspace_skip_path(path)


@says(Promise.SAVED, own=True)
async def restoring_keeps_others(place: Place) -> None:
    """Restoring leaves other files alone."""
    async with place.session:
        await place.put("other")
        await place.session.hydrate_workspace(_tar(_member("it")))
        same(await place.content("other"), b"content")
        same(await place.content("it"), b"content")


@says(Promise.SAVED)
async def refuses_garbage(place: Place) -> None:
    """What is no archive is refused."""
    with refused(WorkspaceArchiveWriteError):
        await place.session.hydrate_workspace(io.BytesIO(b"no archive at all" * 100))


@says(Promise.ERRORS)
async def refuses_text(place: Place) -> None:
    """Text is no archive."""
    with refused(WorkspaceWriteTypeError):
        await place.session.hydrate_workspace(io.StringIO("text"))  # type: ignore[arg-type]  # on purpose


@says(Promise.SAVED)
async def refuses_truncated(place: Place) -> None:
    """An archive that ends too early is refused, and nothing of it is written."""
    whole = _tar(_member("first"), _member("second"), content=b"x" * 9000).getvalue()
    path = place.at("it.tar")
    with refused(WorkspaceArchiveWriteError):
        await place.session.extract(path, io.BytesIO(whole[:14_000]))
    check("first" not in await place.names(), await place.names())


async def _refuses(place: Place, bad: tarfile.TarInfo) -> None:
    with refused(WorkspaceArchiveWriteError):
        await place.session.extract(place.at("it.tar"), _tar(_member("good"), bad))
    check("good" not in await place.names(), await place.names())


@says(Promise.SAVED)
async def unpacks_nothing_above(place: Place) -> None:
    """An archive with a member above its directory is refused whole."""
    await _refuses(place, _member("../conformance-test"))


@says(Promise.SAVED)
async def unpacks_nothing_absolute(place: Place) -> None:
    """An archive with an absolute member is refused whole."""
    await _refuses(place, _member("/etc/conformance-test"))  # not made


@says(Promise.SAVED)
async def unpacks_no_hard_link(place: Place) -> None:
    """An archive with a hard link to what is not in it is refused whole."""
    await _refuses(place, _member("link", tarfile.LNKTYPE, "/etc/passwd"))


@says(Promise.SAVED)
async def unpacks_no_device(place: Place) -> None:
    """An archive with a device is refused whole."""
    await _refuses(place, _member("device", tarfile.CHRTYPE))


@says(Promise.SAVED)
async def unpacks_no_duplicate(place: Place) -> None:
    """An archive that has one file twice is refused whole."""
    await _refuses(place, _member("good"))


@says(Promise.SAVED)
async def unpacks_nothing_through_link(place: Place) -> None:
    """An archive with a member beneath a link of its own is refused whole."""
    archive = _tar(
        _member("good"),
        _member("link", tarfile.SYMTYPE, "/etc"),
        _member("link/test"),
    )
    with refused(WorkspaceArchiveWriteError):
        await place.session.extract(place.at("it.tar"), archive)
    check("good" not in await place.names(), await place.names())


@says(Promise.SAVED)
async def extracts_tar(place: Place) -> None:
    """``extract`` unpacks a tar archive beside it, and keeps it."""
    await place.session.extract(place.at("it.tar"), _tar(_member("a"), _member("b/c")))
    same(sorted(await place.names()), ["a", "b", "it.tar"])
    same(await place.content("b/c"), b"content")


@says(Promise.SAVED)
async def extracts_compressed_tar(place: Place) -> None:
    """``extract`` unpacks what gzip compressed, by its content."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = _member("a")
        member.size = 7
        archive.addfile(member, io.BytesIO(b"content"))
    await place.session.extract(place.at("it.tgz"), io.BytesIO(made.getvalue()))
    same(await place.content("a"), b"content")


@says(Promise.SAVED)
async def extracts_zip(place: Place) -> None:
    """``extract`` unpacks a zip archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b", b"content")
    await place.session.extract(place.at("it.zip"), io.BytesIO(made.getvalue()))
    same(await place.content("a/b"), b"content")


@says(Promise.SAVED)
async def extracts_executables(place: Place) -> None:
    """``extract`` keeps what is executable so."""
    member = _member("run")
    member.mode = 0o755
    script = b"#!/bin/sh\necho ran\n"
    await place.session.extract(place.at("it.tar"), _tar(member, content=script))
    same(await place.said("./run"), "ran\n")


@says(Promise.SAVED)
async def packs_tree(place: Place) -> None:
    """``pack`` gives a tree as a tar archive, which unpack puts elsewhere."""
    await place.put("a/b")
    stream = await place.session.pack(place.at("a"))
    data = io.BytesIO(await in_thread(stream.read))
    await in_thread(stream.close)
    await place.session.mkdir(place.at("z"))
    await place.session.unpack(place.at("z"), data)
    same(await place.content("z/a/b"), b"content")


@says(Promise.ERRORS)
async def packs_no_missing(place: Place) -> None:
    """``pack`` of what is not there is a WorkspaceReadNotFoundError."""
    with refused(WorkspaceReadNotFoundError):
        await place.session.pack(place.at("missing"))
