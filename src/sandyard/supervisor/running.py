"""Owns the supervisor's process: its calls, its sessions, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial

from sandyard.errors import ResourceLimitError, SandboxError, ServerError
from sandyard.finishing import in_thread
from sandyard.platform import state_directory
from sandyard.server.answers import Server
from sandyard.server.connection import Connection, own_hello, package_version
from sandyard.server.limits import CONNECTIONS_MAX, FAREWELL_S, SUPERVISOR_IDLE_S
from sandyard.server.outcomes import failure_of
from sandyard.server.serving import serve_connection
from sandyard.server.sessions import Sessions
from sandyard.supervisor.log import SupervisorLog
from sandyard.supervisor.place import SupervisorPlace, check_peer
from sandyard.supervisor.starting import BUSY, READY
from sandyard.workspace.sweep import sweep_sometimes

__all__ = ["run_supervisor"]

_logger = logging.getLogger("sandyard.supervisor")


def run_supervisor(idle_s: float = SUPERVISOR_IDLE_S) -> int:
    """Be the supervisor, until there is nothing to hold; returns the exit code.

    Args:
        idle_s: seconds without a session and a call after which it ends.

    Raises:
        ServerError: there is no place for its socket.
        OSError: likewise.
    """
    os.umask(0o077)
    with SupervisorPlace.open(os.environ) as place:
        lock = place.lock()
        if lock is None:
            os.write(sys.stdout.fileno(), BUSY)
            return 0
        try:
            return _supervise(place, idle_s)
        finally:
            os.close(lock)


def _supervise(place: SupervisorPlace, idle_s: float) -> int:
    state = state_directory(os.environ)
    package_version()  # is looked for in files, before there is a loop
    with SupervisorLog(os.path.join(state, "supervisor")):
        sweep_sometimes(state)  # what a killed one left
        listener = place.listen()
        try:
            os.umask(0o022)  # files that callers write into workspaces are made as usual
            _leave_terminal()
            asyncio.run(_Supervisor(place, listener, idle_s).run())
        except Exception:  # the border of the process
            _logger.exception("the supervisor failed")
            return 1
        finally:
            listener.close()
    return 0


def _leave_terminal() -> None:
    """Say that all is well, and let go of whoever started us: its directory and its streams."""
    os.chdir("/")
    with open(os.devnull, "r+b", buffering=0) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
        os.dup2(nothing.fileno(), sys.stderr.fileno())
        os.write(sys.stdout.fileno(), READY)
        os.dup2(nothing.fileno(), sys.stdout.fileno())


class _Supervisor:
    """The supervisor on its event loop."""

    def __init__(self, place: SupervisorPlace, listener: socket.socket, idle_s: float) -> None:
        self._place = place
        self._listener = listener
        self._idle_s = idle_s
        self._end = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._sessions = Sessions(
            closed=(place.path,), gone=place.left_sessions(), noted=place.note_sessions
        )
        self._server = Server(self._sessions, self._end.set)

    async def run(self) -> None:
        """Answer calls until the end, then end all sessions."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._end.set)
        _logger.info("started: sandyard %s in %s", package_version(), self._place.path)
        server = await asyncio.start_unix_server(self._accept, sock=self._listener)
        self._watch_idleness()
        try:
            await self._end.wait()
        finally:
            # Who comes from here on finds no socket, and waits for the lock.
            await in_thread(self._place.hide)
            server.close()
            await self._end_calls()
            for error in await self._sessions.close():
                _logger.warning("%s", error)
            _logger.info("ended")

    async def _end_calls(self) -> None:
        """End what is under way; a call that has its answer may take it."""
        calls = tuple(self._calls - {asyncio.current_task()})
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served in a task")
        if self._end.is_set():
            writer.transport.abort()  # it came in the last moment, and asks the next supervisor
            return
        self._calls.add(task)
        self._watch_idleness()
        try:
            async with Connection(reader, writer) as connection:
                await self._serve(connection, writer.get_extra_info("socket"))
        except asyncio.CancelledError:
            if not self._end.is_set():
                raise
        finally:
            self._calls.discard(task)
            self._watch_idleness()

    async def _serve(self, connection: Connection, sock: socket.socket) -> None:
        try:
            check_peer(sock)
            if len(self._calls) > CONNECTIONS_MAX:
                raise ResourceLimitError(
                    f"the supervisor answers {CONNECTIONS_MAX} calls at once; end some",
                    limit="calls",
                    value=CONNECTIONS_MAX,
                    unit="calls",
                    op="connect",
                    retryable=True,
                )
        except SandboxError as error:
            if isinstance(error, ServerError):
                _logger.warning("a call was refused: %s", error)
            try:
                await connection.say(await own_hello())
                await connection.say(failure_of(error))
                await connection.finish(FAREWELL_S)
            except ConnectionError:
                pass
            return
        await serve_connection(connection, self._server)

    def _watch_idleness(self) -> None:
        """Let the supervisor end some time after the last call, if it holds no session then."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._calls and not len(self._sessions):
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._idle_s, partial(self._end.set))
