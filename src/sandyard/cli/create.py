"""``sandyard create``: a session that stays, to be used by further commands."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard import SandboxError
from sandyard.cli.blueprint import ManifestFile
from sandyard.cli.execution import refused
from sandyard.cli.order import Order
from sandyard.cli.permissions import PolicyMaker, policy_options
from sandyard.cli.reaching import Json, attended, print_objects, supervised
from sandyard.cli.report import PlainTeller
from sandyard.cli.run import Copy, Ports, Workspace

__all__ = ["LayeredOption", "Name", "create"]

Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What it is called (default: from its id)."),
]

Overlaid = Annotated[
    bool,
    typer.Option(
        "--try",
        help="Work on an overlay over the directory (default: the present one), which stays as it is; "
        "diff, apply and discard are for what was changed.",
    ),
]

LayeredOption = Annotated[
    bool,
    typer.Option("--layered", help="Let its forks copy only what was changed since it began."),
]


@policy_options()
def create(  # noqa: PLR0913  # one parameter for each option
    name: Name = None,
    workspace: Workspace = None,
    copy: Copy = None,
    overlaid: Overlaid = False,
    layered: LayeredOption = False,
    listed: ManifestFile = None,
    *,
    permitted: PolicyMaker,
    port: Ports = None,
    json: Json = False,
) -> int:
    """Make a session that stays, and print its name.

    It takes the options of run, which hold for all its commands. A supervisor of yours holds it in
    the background until 'sandyard rm', and is started by this command if need be. Without
    --workspace its directory is private, and deleted with it. With --try it works on a directory of
    yours that stays as it is.

    Exit codes: 0; 125 where sandyard refuses.
    """
    try:
        policy = permitted()
        order = Order((), workspace, copy, policy, None, listed, overlaid=overlaid, layered=layered)
        overlay = order.overlay()
        manifest, sources = order.manifest()
    except SandboxError as error:
        return PlainTeller().end(refused(error))

    async def work() -> int:
        session = await supervised().create(
            name=name,
            policy=policy,
            manifest=manifest,
            directory=sources or "/",  # without a manifest nothing begins there
            exposed_ports=port or (),
            overlay=None if overlay is None else str(overlay.path),
            layered=layered,
        )
        if session.info is not None:
            if json:
                print_objects((session.info,))
            else:
                typer.echo(session.info.name)
                PlainTeller().note(session.info.confinement)
        return 0

    return attended(work)
