"""How files are found, searched, watched and patched, with nothing but the file API."""

from __future__ import annotations

from sandyard.errors import ApplyPatchError, ApplyPatchFileNotFoundError, SandboxError
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same

__all__ = ["SUITE"]

SUITE = Suite("searching")
says = SUITE.says


def _patch(*lines: str) -> str:
    return "\n".join(("*** Begin Patch", *lines, "*** End Patch", ""))


@says(Promise.FILES)
async def globs_names(place: Place) -> None:
    """``glob`` gives what a pattern matches, relative and sorted."""
    for name in ("b.py", "a.py", "c.txt", "sub/d.py"):
        await place.put(name)
    same(await place.session.glob("*.py", path=place.directory), ["a.py", "b.py"])


@says(Promise.FILES)
async def globs_deep(place: Place) -> None:
    """'**' reaches all directories beneath."""
    for name in ("a.py", "sub/deep/d.py"):
        await place.put(name)
    same(await place.session.glob("**/*.py", path=place.directory), ["a.py", "sub/deep/d.py"])


@says(Promise.FILES)
async def globs_nothing(place: Place) -> None:
    """A pattern that matches nothing gives nothing."""
    same(await place.session.glob("*.none", path=place.directory), [])


@says(Promise.FILES)
async def greps_lines(place: Place) -> None:
    """``grep`` gives path, number and text of the lines that match."""
    await place.put("a", b"one\ntwo a.b\n")
    path = str(await place.session.normalize_path(place.at("a")))
    found = await place.session.grep("a.b", place.directory)
    same([(one.path, one.line, one.text) for one in found.matches], [(path, 2, "two a.b")])


@says(Promise.FILES)
async def greps_literally(place: Place) -> None:
    """The pattern is text unless another syntax is asked for."""
    await place.put("a", b"axb\n")
    same((await place.session.grep("a.b", place.directory)).matches, ())
    found = await place.session.grep("a.b", place.directory, syntax="extended")
    same(len(found.matches), 1)


@says(Promise.FILES)
async def greps_bounded(place: Place) -> None:
    """``grep`` gives at most so many matches, and tells that there are more."""
    await place.put("a", b"x\n" * 9)
    found = await place.session.grep("x", place.directory, max_matches=4)
    same((len(found.matches), found.truncated), (4, True))


@says(Promise.FILES)
async def greps_chosen_files(place: Place) -> None:
    """include= chooses the files by name, ignore_case= forgets about capitals."""
    for name in ("a.py", "b.txt"):
        await place.put(name, b"Word\n")
    found = await place.session.grep("word", place.directory, include="*.py", ignore_case=True)
    check([one.path.rpartition("/")[2] for one in found.matches] == ["a.py"], found)


@says(Promise.FILES)
async def watches_changes(place: Place) -> None:
    """A watch tells what is made, by its absolute path."""
    path = str(await place.session.normalize_path(place.at("it")))
    async with place.session.watch(place.directory) as watch:
        await place.put("it")
        async for changes in watch:
            if path in {change.path for change in changes}:
                break


@says(Promise.FILES)
async def patches_new_file(place: Place) -> None:
    """A patch adds a file."""
    path = place.at("new/it")
    same(await place.session.apply_patch(_patch(f"*** Add File: {path}", "+a", "+b")), "Done!")
    same((await place.content("new/it")).rstrip(b"\n"), b"a\nb")


@says(Promise.FILES)
async def patches_lines(place: Place) -> None:
    """A patch changes the lines that it names, and no others."""
    path = await place.put("it", b"a\nb\nc\n")
    await place.session.apply_patch(_patch(f"*** Update File: {path}", "@@", " a", "-b", "+B"))
    same(await place.content("it"), b"a\nB\nc\n")


@says(Promise.FILES)
async def patches_away(place: Place) -> None:
    """A patch deletes a file."""
    path = await place.put("it")
    await place.session.apply_patch(_patch(f"*** Delete File: {path}"))
    same(await place.names(), [])


@says(Promise.FILES)
async def patches_names(place: Place) -> None:
    """A patch moves a file while it changes it."""
    path = await place.put("a", b"x\n")
    move = _patch(f"*** Update File: {path}", f"*** Move to: {place.at('b')}", "@@", "-x", "+y")
    await place.session.apply_patch(move)
    same((await place.names(), await place.content("b")), (["b"], b"y\n"))


@says(Promise.ERRORS)
async def patches_what_fits(place: Place) -> None:
    """A patch that does not fit is refused, and nothing is changed."""
    path = await place.put("it", b"a\n")
    with refused(ApplyPatchError):
        await place.session.apply_patch(_patch(f"*** Update File: {path}", "@@", "-z", "+y"))
    same(await place.content("it"), b"a\n")


@says(Promise.FILES)
async def patches_all_or_nothing(place: Place) -> None:
    """Where one part of a patch does not fit, the others are not carried out either."""
    path = await place.put("it", b"a\n")
    both = (f"*** Add File: {place.at('new')}", "+n", f"*** Update File: {path}", "@@", "-z", "+y")
    with refused(ApplyPatchError):
        await place.session.apply_patch(_patch(*both))
    same((await place.names(), await place.content("it")), (["it"], b"a\n"))


@says(Promise.ERRORS)
async def patches_no_missing(place: Place) -> None:
    """A patch of a file that is not there is refused."""
    with refused(ApplyPatchFileNotFoundError):
        await place.session.apply_patch(
            _patch(f"*** Update File: {place.at('missing')}", "@@", "-a", "+b")
        )


@says(Promise.WALL)
async def patches_none_outside(place: Place) -> None:
    """A patch reaches nothing outside of the workspace."""
    with refused(SandboxError):
        await place.session.apply_patch(_patch("*** Add File: ../conformance-test", "+x"))
