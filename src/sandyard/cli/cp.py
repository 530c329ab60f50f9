"""``sandyard cp``: files and trees into sessions that stay, and out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from sandyard import ArgumentError, SandboxError
from sandyard.cli.completing import places_or_files
from sandyard.cli.copying import is_directory, no_directory, packed, target_of, unpacked
from sandyard.cli.execution import refused
from sandyard.cli.places import Place, place_of
from sandyard.cli.progress import Progress
from sandyard.cli.pumping import Inlet
from sandyard.cli.reaching import attended, supervised
from sandyard.cli.report import PlainTeller, printable

if TYPE_CHECKING:
    from sandyard.archive.report import ArchiveReport

__all__ = ["copy_files"]

_PARTLY: Final = 1
_STDIN: Final = "-"
_REASONS: Final = {"link_leads_out": "a symlink that leads out; --outer-links takes it along"}
_TOLD: Final = 20
"""Notes that are told; who has more wants their number."""

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files or directories.",
        show_default=False,
        autocompletion=places_or_files,
    ),
]
Destination = Annotated[
    str,
    typer.Argument(
        metavar="DESTINATION",
        help="A directory, or the copy's own name.",
        show_default=False,
        autocompletion=places_or_files,
    ),
]

OuterLinks = Annotated[
    bool,
    typer.Option(
        "--outer-links", help="Copy symlinks to this machine that lead out of what is copied, too."
    ),
]


def copy_files(sources: Sources, destination: Destination, outer_links: OuterLinks = False) -> int:
    """Copy files and directories between this machine and sessions.

    A path in a session is SESSION:PATH; one of this machine that has a colon is ./a:b. Into a
    directory that exists the copy goes with its own name; what ends in /. is copied without that.
    Permissions, times, symlinks and hard links are kept; files of the same name are replaced,
    directories merged. Each source is copied whole or not at all. SOURCE - is standard input.
    Symlinks of a session that lead out of what is copied to this machine are left out.

    Exit codes: 0; 1 where something was left out, which is said; 125 if a source was not copied.
    """
    try:
        target = place_of(destination)
        places = [_checked_source(text, target) for text in sources]
    except SandboxError as error:
        return PlainTeller().end(refused(error))

    async def work() -> int:
        if len(places) > 1 and not await is_directory(target):
            raise no_directory(target)
        code = 0
        for place in places:
            try:
                kept = outer_links or target.session is not None
                code = max(code, await _copy(place, target, outer_links=kept))
            except SandboxError as error:  # the others are copied all the same
                code = PlainTeller().end(refused(error))
        return code

    return attended(work)


def _checked_source(text: str, target: Place) -> Place:
    place = place_of(text)
    if not text:
        raise ArgumentError(
            "a source is empty; name a file or a directory",
            op="copy",
            argument="SOURCE",
            value=text,
        )
    if place.session is None and target.session is None:
        raise ArgumentError(
            f"neither {text} nor {target} is in a session; name one, as in web:{text}",
            op="copy",
            argument="SOURCE",
            value=text,
        )
    return place


async def _copy(source: Place, destination: Place, *, outer_links: bool) -> int:
    with Progress(f"{source} to {destination}") as progress:
        if source == Place(None, _STDIN) and destination.session is not None:
            session = supervised().session(destination.session)
            await session.write(destination.path, progress.watch(Inlet(0)))
            return 0
        directory, name = await target_of(destination, source.name)
        async with packed(source, name, outer_links=outer_links) as archive:
            await unpacked(directory, progress.watch(archive))
    return _tell(source, archive.report)


def _tell(source: Place, report: ArchiveReport | None) -> int:
    """Say what is not as it was; returns the exit code."""
    if report is None:
        return _PARTLY
    notes = [
        *((note, "left out") for note in report.skipped if note.reason != "temporary"),
        *((note, "changed while it was copied") for note in report.changed),
        *((note, "not kept") for note in report.dropped),
    ]
    teller = PlainTeller()
    for note, fate in notes[:_TOLD]:
        why = _REASONS.get(note.reason, note.reason)
        teller.say(printable(f"{source}: {note.path}: {fate}: {why}"))
    more = report.unlisted + len(notes[_TOLD:])
    if more:
        teller.say(f"{source}: and {more} more")
    return _PARTLY if any(fate != "not kept" for _, fate in notes) else 0
