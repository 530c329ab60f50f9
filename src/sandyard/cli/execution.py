"""Owns one order's way: session, command, bytes in both directions, and what remains to be told."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from sandyard import (
    ExecResult,
    ExecTimeoutError,
    ExecTransportError,
    OutputChunk,
    SandboxError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceStopError,
)
from sandyard.cli.order import Order
from sandyard.cli.pumping import Inlet
from sandyard.cli.report import Outcome, Teller
from sandyard.cli.stopping import Signalled, Stopping
from sandyard.finishing import in_thread

__all__ = ["carry_out", "outcome_of", "pass_through", "refused", "shell_code"]

# Exit codes as shells, env and timeout give them.
_TIMED_OUT: Final = 124
_REFUSED: Final = 125
_SIGNALLED: Final = 128
_BROKEN_PIPE: Final = 141

_UNREAD_GRACE_S: Final = 1.0
"""Seconds after a timeout in which our own reader may still take what the command had written."""


class Running(Signalled, Protocol):
    """A command that runs, here or in a session that somebody else holds."""

    @property
    def result(self) -> ExecResult:
        """How it ended, once its output has."""

    def __aiter__(self) -> AsyncIterator[OutputChunk]:
        """Iterate over its output."""


def refused(error: SandboxError) -> Outcome:
    """The outcome of an order that could not be carried out."""
    return Outcome(exit_code=_REFUSED, error=error)


async def carry_out(order: Order, teller: Teller) -> Outcome:
    """Run a command to its end, whatever that is; nothing of it is left afterwards."""
    outcome = await outcome_of(
        order.command, lambda stopping: _run_session(order, teller, stopping)
    )
    if outcome.result is None or outcome.result.exit_code == 0:
        return outcome
    advice = await in_thread(order.advice, outcome.exit_code)
    return dataclasses.replace(outcome, advice=advice)


async def outcome_of(
    command: tuple[str, ...], run: Callable[[Stopping], Awaitable[ExecResult]]
) -> Outcome:
    """How a command ends that something runs, while we listen to signals."""
    with Stopping() as stopping:
        try:
            result = await run(stopping)
        except ExecTimeoutError as error:
            return Outcome(exit_code=_TIMED_OUT, result=error.result, error=error)
        except SandboxError as error:
            return refused(error)
        except BrokenPipeError:
            return Outcome(exit_code=_BROKEN_PIPE)
        except OSError as error:
            return refused(_unwritable(command, error))
        except asyncio.CancelledError:
            if stopping.cause is None:
                raise
            return Outcome(exit_code=_SIGNALLED + stopping.cause)
    return Outcome(exit_code=shell_code(result.exit_code), result=result)


def shell_code(code: int) -> int:
    """The exit code as a shell has it: 128+N where signal N ended the command."""
    return code if code >= 0 else _SIGNALLED - code


async def _run_session(order: Order, teller: Teller, stopping: Stopping) -> ExecResult:
    # A manifest's sources lie beneath a directory. A grant would do as well, but would show commands
    # the original too.
    overlay = await in_thread(order.overlay)
    manifest, sources = await in_thread(order.manifest)
    client = UnixLocalSandboxClient(policy=order.policy, directory=sources)
    options = {"exposed_ports": order.ports}
    session = await client.create(
        manifest=manifest, options=options, workspace=overlay, shared=True
    )
    try:
        # No "async with": a session that is closed before it is deleted is kept, should we be
        # killed in between.
        await session.start()
        teller.note(None if session.confinement is None else session.confinement.document())
        teller.limited(session.limits.report)
        if overlay is None:
            return await _run_command(order, session, teller, stopping)
        return await _try_command(order, session, teller, stopping)
    finally:
        try:
            await client.delete(session)
        except WorkspaceStopError as error:  # the command's exit code counts all the same
            teller.say(error.message)


async def _try_command(
    order: Order, session: UnixLocalSandboxSession, teller: Teller, stopping: Stopping
) -> ExecResult:
    """Run a command in an overlay; tell what it changed, and apply that if it is wanted."""
    code: int | None = None
    try:
        result = await _run_command(order, session, teller, stopping)
        code = result.exit_code
    finally:
        if code is not None or stopping.cause is None:  # whoever interrupts us does not wait
            await session.shutdown()  # what it left running would go on changing it
            changes, applied = await session.diff(text=False), False
            try:
                if order.applies and code == 0:
                    await session.apply()
                    applied = True
            finally:
                teller.changed(changes, applied=applied)
    return result


async def _run_command(
    order: Order, session: UnixLocalSandboxSession, teller: Teller, stopping: Stopping
) -> ExecResult:
    running = session.stream(
        *order.command, shell=False, timeout=order.timeout, user=order.user, stdin=Inlet(0)
    )
    return await pass_through(running, order.command, order.timeout, teller, stopping)


async def pass_through(
    running: AbstractAsyncContextManager[Running],
    words: tuple[str, ...],
    timeout: float | None,
    teller: Teller,
    stopping: Stopping,
) -> ExecResult:
    """Let a command run, its output be told, and signals reach it."""
    async with running as command:
        stopping.send_to(command)
        await _pass_output(command, words, timeout, teller)
    result = command.result
    if result.stderr:  # a program that could not be executed: the words of a shell
        await teller.take("stderr", result.stderr)
    return result


async def _pass_output(
    command: Running, words: tuple[str, ...], timeout: float | None, teller: Teller
) -> None:
    """Hand on the output; a reader of ours that does not read can't hold up a timeout."""
    limit = None if timeout is None else timeout + _UNREAD_GRACE_S
    try:
        async with asyncio.timeout(limit):
            async for chunk in command:
                await teller.take(chunk.stream, chunk.data)
    except ExecTimeoutError:
        raise
    except TimeoutError:
        raise ExecTimeoutError(command=words, timeout_s=timeout) from None


def _unwritable(command: tuple[str, ...], error: OSError) -> ExecTransportError:
    return ExecTransportError(
        command=command,
        message=f"its output can't be written: {error.strerror}",
        context={"reason": "output_failed"},
        cause=error,
    )
