"""``sandyard resume``: a session that stays, from a snapshot."""

from __future__ import annotations

import typer

from sandyard import SandboxError
from sandyard.cli.create import LayeredOption, Name
from sandyard.cli.execution import refused
from sandyard.cli.permissions import PolicyMaker, policy_options
from sandyard.cli.progress import Progress
from sandyard.cli.reaching import Json, attended, print_objects, supervised
from sandyard.cli.report import PlainTeller
from sandyard.cli.snapshot_names import Kept

__all__ = ["resume"]


@policy_options()
def resume(
    snapshot: Kept,
    name: Name = None,
    layered: LayeredOption = False,
    *,
    permitted: PolicyMaker,
    json: Json = False,
) -> int:
    """Make a session that stays of a snapshot, and print its name.

    Its files are those of the snapshot, under the path that they had inside. What it may touch is said
    anew, by the options of create: no snapshot says that.

    Exit codes: 0; 125 where sandyard refuses.
    """
    try:
        policy = permitted()
    except SandboxError as error:
        return PlainTeller().end(refused(error))

    async def work() -> int:
        with Progress("restoring") as progress:
            making = supervised().create(
                name=name,
                policy=policy,
                directory="/",  # without a manifest nothing begins there
                snapshot=snapshot,
                layered=layered,
            )
            session = await progress.during(making)
        if session.info is not None:
            if json:
                print_objects((session.info,))
            else:
                typer.echo(session.info.name)
                PlainTeller().note(session.info.confinement)
        return 0

    return attended(work)
