"""The answers of a server: what becomes of each request, one function for each."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from sandyard.errors import ArgumentError
from sandyard.process.background import BackgroundProcess
from sandyard.server import messages, terminals
from sandyard.server.call import ServerCall
from sandyard.server.connection import package_version
from sandyard.server.messages import Request
from sandyard.server.outcomes import (
    Done,
    Endpoint,
    ProcessesInfo,
    ProcessInfo,
    Result,
    ServerInfo,
    SessionsInfo,
    SnapshotInfo,
)
from sandyard.server.sessions import Sessions
from sandyard.server.verb_answers import answer_verb
from sandyard.server.wording import Message
from sandyard.session import UnixLocalSandboxSession

__all__ = ["Server", "answer"]

_Asked = TypeVar("_Asked", bound=Message)
_Answer = Callable[[_Asked, ServerCall, "Server"], Awaitable[Message]]


@dataclass(slots=True)
class Server:
    """What calls are answered from.

    Attributes:
        sessions: the sessions that are held.
        shut: called when a caller wants the server to end.
        started: when it began, in seconds since 1970.
    """

    sessions: Sessions
    shut: Callable[[], None]
    started: float = field(default_factory=time.time)

    def session(self, which: str) -> UnixLocalSandboxSession:
        """A session that is held.

        Raises:
            SessionNotFoundError: there is none.
        """
        return self.sessions.find(which).session


async def answer(request: Request, call: ServerCall, server: Server) -> Message:
    """Do what a caller wants; returns what is said last.

    Raises:
        SandboxError: it can't be done.
        ConnectionError: the caller has hung up.
    """
    do = cast("_Answer[Message]", _ANSWERS[type(request)])
    return await do(request, call, server)


# --- sessions ---------------------------------------------------------------------------------


async def _create(request: messages.Create, call: ServerCall, server: Server) -> Message:
    held = await server.sessions.create(request)
    return await held.info()


async def _fork(request: messages.Fork, call: ServerCall, server: Server) -> Message:
    held = await server.sessions.fork(request)
    return await held.info()


async def _save(request: messages.SaveSnapshot, call: ServerCall, server: Server) -> Message:
    held = server.sessions.find(request.session, "snapshot_persist")
    saving = held.session.save_snapshot(
        label=request.label,
        tags=request.tags,
        history=held.history,
        processes=request.processes,
    )
    return SnapshotInfo.of(await saving)


async def _list(request: messages.ListSessions, call: ServerCall, server: Server) -> Message:
    gone = server.sessions.gone() if request.gone else ()
    return SessionsInfo(sessions=(*gone, *await server.sessions.listed()))


async def _status(request: messages.Status, call: ServerCall, server: Server) -> Message:
    return ServerInfo(
        pid=os.getpid(),
        version=package_version(),
        sessions=len(server.sessions),
        started=server.started,
    )


async def _shut(request: messages.Shut, call: ServerCall, server: Server) -> Message:
    server.shut()
    return Done()


async def _delete(request: messages.Delete, call: ServerCall, server: Server) -> Message:
    await server.sessions.delete(server.sessions.find(request.session, "delete"))
    return Done()


# --- commands ---------------------------------------------------------------------------------


async def _exec(request: messages.Exec, call: ServerCall, server: Server) -> Message:
    session = server.session(request.session)
    stream = session.stream(
        *request.command,
        shell=_shell(request.shell),
        timeout=request.timeout,
        user=request.user,
        cwd=request.cwd,
        env=request.env,
        stdin=call.input if request.input else None,
        leftovers=request.leftovers,
        narrow=request.narrow,
    )
    async with stream as running:
        call.on_signal = lambda number, tree: running.signal(number, tree=tree)
        held = session.confinement
        document = None if held is None else held.document()
        limit = session.policy.limits.output
        await call.say(messages.Started(confinement=document, output_limit=limit))
        if request.input:
            await call.input.open()
        async for chunk in running:
            await call.put(chunk.stream, chunk.data)
        return Result.of(running.result)


async def _start_process(
    request: messages.StartProcess, call: ServerCall, server: Server
) -> Message:
    process = await server.session(request.session).start_process(
        *request.command,
        shell=_shell(request.shell),
        name=request.name,
        timeout=request.timeout,
        user=request.user,
        cwd=request.cwd,
        env=request.env,
        stdin=request.input,
        log_limit=request.log_limit,
        narrow=request.narrow,
    )
    return _process_info(process)


async def _processes(request: messages.ListProcesses, call: ServerCall, server: Server) -> Message:
    session = server.session(request.session)
    processes = (_process_info(one) for one in session.processes())
    return ProcessesInfo(processes=(*processes, *terminals.terminal_infos(session)))


async def _logs(request: messages.Logs, call: ServerCall, server: Server) -> Message:
    session = server.session(request.session)
    terminal = terminals.found_terminal(session, request.process)
    if terminal is not None:
        return await terminals.show_terminal(terminal, call, follow=request.follow)
    process = session.process(request.process)
    reader = process.logs(
        start=request.start,
        last_bytes=request.last_bytes,
        last_lines=request.last_lines,
        stream=request.stream,
        follow=request.follow,
    )
    await call.say(messages.Started())
    async for chunk in reader:
        if chunk.missed:
            await call.say(messages.Missed(stream=chunk.stream, bytes=chunk.missed))
        await call.put(chunk.stream, chunk.data)
    return _process_info(process)


async def _wait(request: messages.WaitProcess, call: ServerCall, server: Server) -> Message:
    session = server.session(request.session)
    terminal = terminals.found_terminal(session, request.process)
    if terminal is not None:
        if request.timeout is not None:
            raise ArgumentError(
                "a terminal is waited for without a timeout; asyncio.timeout bounds the wait",
                op="process",
                argument="timeout",
                value=request.timeout,
            )
        return Result(exit_code=await terminal.wait())
    return Result.of(await session.process(request.process).wait(request.timeout))


async def _wait_for_port(
    request: messages.WaitForPort, call: ServerCall, server: Server
) -> Message:
    process = server.session(request.session).process(request.process)
    endpoint = await process.wait_for_port(request.port, timeout=request.timeout)
    return Endpoint(host=endpoint.host, port=endpoint.port)


async def _signal(request: messages.SignalProcess, call: ServerCall, server: Server) -> Message:
    session = server.session(request.session)
    terminal = terminals.found_terminal(session, request.process)
    if terminal is not None:
        await terminal.signal(request.signal, to="tree" if request.tree else "command")
        return Done()
    await session.process(request.process).signal(request.signal, tree=request.tree)
    return Done()


async def _write_process(
    request: messages.WriteProcess, call: ServerCall, server: Server
) -> Message:
    session = server.session(request.session)
    terminal = terminals.found_terminal(session, request.process)
    if terminal is not None:
        return await terminals.type_on(terminal, call)
    stdin = session.process(request.process).stdin
    await call.input.open()
    async for data in call.input:
        await stdin.write(data)
    if request.close:
        await stdin.close()
    return Done()


async def _remove_process(
    request: messages.RemoveProcess, call: ServerCall, server: Server
) -> Message:
    session = server.session(request.session)
    terminal = terminals.found_terminal(session, request.process)
    if terminal is not None:
        await terminal.close()
        return Done()
    if request.forget:
        return Done(changed=await session.remove_process(request.process))
    await session.process(request.process).close()
    return Done()


# --- terminals --------------------------------------------------------------------------------


async def _terminal(request: messages.OpenTerminal, call: ServerCall, server: Server) -> Message:
    opened = await server.session(request.session).terminal(
        *request.command,
        rows=request.rows,
        columns=request.columns,
        shell=_shell(request.shell),
        timeout=request.timeout,
        user=request.user,
        cwd=request.cwd,
        env=request.env,
        name=request.name,
        scrollback=request.scrollback,
        leftovers=request.leftovers,
        narrow=request.narrow,
    )
    return terminals.terminal_info(opened)


async def _attach(request: messages.ReadTerminal, call: ServerCall, server: Server) -> Message:
    terminal = terminals.chosen_terminal(server.session(request.session), request.process)
    return await terminals.attend_terminal(terminal, request, call)


# --- all else ---------------------------------------------------------------------------------


async def _verb(request: messages.CallVerb, call: ServerCall, server: Server) -> Message:
    return await answer_verb(request, call, server.session(request.session))


def _process_info(process: BackgroundProcess) -> ProcessInfo:
    return ProcessInfo(
        kind="process",
        id=process.id,
        name=process.name,
        command=process.command,
        state=process.state,
        pid=process.pid,
        exit_code=process.exit_code,
    )


def _shell(given: bool | tuple[str, ...]) -> bool | list[str]:
    return given if isinstance(given, bool) else list(given)


_ANSWERS: Final[dict[type[Message], object]] = {
    messages.Create: _create,
    messages.Fork: _fork,
    messages.SaveSnapshot: _save,
    messages.ListSessions: _list,
    messages.Status: _status,
    messages.Shut: _shut,
    messages.Delete: _delete,
    messages.Exec: _exec,
    messages.StartProcess: _start_process,
    messages.ListProcesses: _processes,
    messages.Logs: _logs,
    messages.WaitProcess: _wait,
    messages.WaitForPort: _wait_for_port,
    messages.SignalProcess: _signal,
    messages.WriteProcess: _write_process,
    messages.RemoveProcess: _remove_process,
    messages.OpenTerminal: _terminal,
    messages.ReadTerminal: _attach,
    messages.CallVerb: _verb,
}
"""The answer to each kind of request."""
