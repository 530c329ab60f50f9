"""``sandyard why``: what commands may do with a path, an address or a system call, and by which rule."""

from __future__ import annotations

import asyncio
import json as json_format
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sandyard import Explanation, Manifest, SandboxError, UnixLocalSandboxClient
from sandyard.cli.execution import refused
from sandyard.cli.order import Order
from sandyard.cli.permissions import PolicyMaker, policy_options
from sandyard.cli.report import JsonTeller, PlainTeller, option_for, printable
from sandyard.cli.run import Copy, Workspace
from sandyard.cli.stopping import Stopping
from sandyard.finishing import in_thread

if TYPE_CHECKING:
    from sandyard import UnixLocalSandboxSession

__all__ = ["explain"]

_SIGNALLED: Final = 128

Subject = Annotated[
    str,
    typer.Argument(
        metavar="PATH|HOST:PORT|URL|SYSCALL",
        help="What is asked about; a bare word is a system call if one has this name.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


@policy_options(without=("env", "home", "limit", "accept", "require"))
def explain(
    subject: Subject,
    workspace: Workspace = None,
    copy: Copy = None,
    *,
    permitted: PolicyMaker,
    json: Json = False,
) -> int:
    """Say what a command may do with something, and why.

    It says by which rule, and what would allow more. It takes the options of run, starts such a
    session and asks it; no command runs. A path is one as commands see it, relative to the
    workspace; ./NAME where NAME is also a system call.

    Exit codes: 0 if all or a part of it is allowed, such as reading; 1 if nothing is; 125 where
    sandyard itself refuses.
    """
    teller = JsonTeller() if json else PlainTeller()
    try:
        order = Order((), workspace, copy, permitted(), None)
        told = asyncio.run(_ask(order, subject))
    except SandboxError as error:
        return teller.end(refused(error))
    if isinstance(told, int):
        return told
    typer.echo("\n".join(_lines(told)) if not json else json_format.dumps(asdict(told)))
    return 1 if told.access == "none" else 0


async def _ask(order: Order, subject: str) -> Explanation | int:
    """Start a session and ask it; returns the exit code if a signal came."""
    manifest, _ = await in_thread(order.manifest)
    if order.copy is not None:
        manifest = Manifest()  # where its paths are, a copy without files tells as well
    client = UnixLocalSandboxClient(policy=order.policy)
    with Stopping() as stopping:
        try:
            session = await client.create(manifest=manifest)
            try:
                await session.start()
                return await _answer(session, subject)
            finally:
                await client.delete(session)
        except asyncio.CancelledError:
            if stopping.cause is None:
                raise
            return _SIGNALLED + stopping.cause


async def _answer(session: UnixLocalSandboxSession, subject: str) -> Explanation:
    if subject.isidentifier():
        from sandyard.confinement.syscalls import SYSCALL_TABLES  # noqa: PLC0415  # for words only

        table = SYSCALL_TABLES.get(os.uname().machine)
        if table is not None and subject in table.numbers:
            return await session.why(syscall=subject)
    return await session.why(subject)


def _lines(told: Explanation) -> list[str]:
    part = "read only" if told.subject.startswith("/") else "in part"
    answer = {"none": "no", "read": part, "write": "yes"}[told.access]
    lines = [f"{told.subject}: {answer}", f"  rule: {told.rule}"]
    if told.grant is not None:
        option = option_for(told.grant)
        lines.append(f"  to allow more: {option or told.grant}")
    return [printable(line) for line in lines]
