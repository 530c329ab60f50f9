"""``sandyard create``: a session that stays, to be used by further commands."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard import SandboxError
from sandyard.cli.blueprint import ManifestFile
from sandyard.cli.execution import refused
from sandyard.cli.order import Order
from sandyard.cli.permissions import (
    Accept,
    Denied,
    Devices,
    Home,
    Limits,
    Network,
    Protected,
    Read,
    Require,
    Syscalls,
    Toolchains,
    Unprotected,
    Variables,
    Write,
    make_policy,
)
from sandyard.cli.reaching import Json, attended, print_objects, supervised
from sandyard.cli.report import PlainTeller
from sandyard.cli.run import Copy, Ports, Workspace

__all__ = ["create"]

Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What it is called (default: from its id)."),
]


def create(  # noqa: PLR0913, PLR0917  # one parameter for each option
    name: Name = None,
    workspace: Workspace = None,
    copy: Copy = None,
    listed: ManifestFile = None,
    read: Read = None,
    write: Write = None,
    deny: Denied = None,
    protect: Protected = None,
    no_protect: Unprotected = False,
    env: Variables = None,
    net: Network = "none",
    port: Ports = None,
    device: Devices = None,
    syscalls: Syscalls = None,
    no_toolchains: Toolchains = False,
    home: Home = "private",
    limit: Limits = None,
    accept: Accept = None,
    require: Require = None,
    json: Json = False,
) -> int:
    """Make a session that stays, and print its name.

    It takes the options of run, which hold for all its commands. A supervisor of yours holds it in
    the background until 'sandyard rm', and is started by this command if need be. Without
    --workspace its directory is private, and deleted with it.

    Exit codes: 0; 125 where sandyard refuses.
    """
    try:
        policy = make_policy(
            read=read,
            write=write,
            deny=deny,
            protect=protect,
            no_protect=no_protect,
            env=env,
            net=net,
            device=device,
            syscalls=syscalls,
            no_toolchains=no_toolchains,
            home=home,
            limit=limit,
            accept=accept,
            require=require,
        )
        manifest, sources = Order((), workspace, copy, policy, None, listed).manifest()
    except SandboxError as error:
        return PlainTeller().end(refused(error))

    async def work() -> int:
        session = await supervised().create(
            name=name,
            policy=policy,
            manifest=manifest,
            directory=sources,
            exposed_ports=port or (),
        )
        if session.info is not None:
            if json:
                print_objects((session.info,))
            else:
                typer.echo(session.info.name)
                PlainTeller().note(session.info.confinement)
        return 0

    return attended(work)
