"""``sandyard cat``: what files of sessions that stay hold."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard import SandboxError
from sandyard.cli.completing import place_words
from sandyard.cli.execution import refused
from sandyard.cli.places import session_place
from sandyard.cli.pumping import Outlet
from sandyard.cli.reaching import attended, supervised
from sandyard.cli.report import PlainTeller

__all__ = ["show_files"]

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="SESSION:PATH",
        help="Files.",
        show_default=False,
        autocompletion=place_words,
    ),
]


def show_files(files: Files) -> int:
    """Write files of sessions to standard output, as they are.

    Symlinks are followed as far as the session sees. Exit codes: 0; 125 if one can't be read.
    """
    teller = PlainTeller()

    async def work() -> int:
        outlet, code = Outlet(1), 0
        for text in files:
            try:
                place = session_place(text, "read")
                session = supervised().session(place.session or "")
                async for chunk in session.read_chunks(place.path):
                    await outlet.write(chunk)
            except SandboxError as error:  # the others are shown all the same
                code = teller.end(refused(error))
        return code

    return attended(work)
