"""Owns deputies: programs that work in a workspace as other users, for a program that can't become them.

Root's own threads take the identity of a session's other users. An ordinary user's can't: only in a
user namespace in which the user's subordinate ids exist is there somebody who may, and no thread of a
program with others can go there. So what they do is handed to a program that stands in one.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import CLOSE_TIMEOUT_S, DEPUTY_STOP_S, ID_MAP_TIMEOUT_S
from sandyard.platform.interpreter import own_interpreter
from sandyard.subordinate import IdRange, own_range, write_id_maps
from sandyard.workspace import deputy_wire
from sandyard.workspace.deputy_wire import Task
from sandyard.workspace.progress import Progress, Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["Deputies", "Deputy", "emptied_for_all", "needs_deputies"]

_T = TypeVar("_T")
Powers = Literal["user", "whole"]

_PROGRAM: Final = (
    "import json, sys; sys.path += json.loads(sys.argv[1])\n"
    "from sandyard.workspace.deputy_service import serve\n"
    "serve(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)
_WORD: Final = struct.Struct("=i")
_NEEDED: Final = (
    "sandyard",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
    "backports.zstd",
)
"""What a deputy imports besides Python's own modules."""


def needs_deputies(root: WorkspaceRoot) -> bool:
    """Whether a workspace may hold what others than this program's user own, and it is not root."""
    return bool(root.names) and os.geteuid() != 0


class Deputy:
    """One such program. It is a context manager; leaving it ends the program."""

    def __init__(self, powers: Powers) -> None:
        """Start it (blocking).

        Args:
            powers: ``"user"`` for work as one of the other users, ``"whole"`` for work that has
                all powers over what belongs to any of them, and to this program's user.

        Raises:
            ConfinementUnavailableError: there are no ids, or it can't be started.
            OSError: this program or the machine is short of something.
        """
        ids = own_range(1)
        self._lock = threading.Lock()  # protects the channel: one task at a time
        self._channel, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        self._broken = False
        try:
            with theirs:
                self._process = _started(theirs, powers)
            self._map(self._process.pid, ids)
        except BaseException:
            self.close()
            raise

    def _map(self, pid: int, ids: range) -> None:
        self._channel.settimeout(ID_MAP_TIMEOUT_S)
        try:
            word = self._channel.recv(_WORD.size)
        except TimeoutError:
            word = b""
        if len(word) != _WORD.size:
            raise _lost("it ended or fell silent at its start")
        if number := _WORD.unpack(word)[0]:
            raise _lost(f"it could not enter a user namespace: {os.strerror(number)}")
        others = IdRange(ids.start, ids.start, len(ids))
        uid, gid = os.geteuid(), os.getegid()
        write_id_maps(pid, (IdRange(uid, uid, 1), others), (IdRange(gid, gid, 1), others))
        self._channel.settimeout(None)
        self._channel.sendall(b"m")

    def do(
        self,
        work: Callable[[], _T],
        *,
        uid: int | None = None,
        groups: tuple[int, ...] = (),
        stopped: threading.Event | None = None,
    ) -> _T:
        """Have work done (blocking).

        Args:
            work: a function of a module, with arguments that can be pickled; trees, descriptors as
                ``Passed``, one binary stream, one tracker and ``stopped`` go along as they are.
            uid: whom it is done as, by the id on disk; for ``"user"`` only.
            groups: those of its groups besides its own.
            stopped: tells the work, once set, that nobody wants more.

        Raises:
            ConfinementUnavailableError: the work can't be handed over, or the deputy was lost.
            Exception: what the work raised.
        """
        try:
            data, fds, kept = deputy_wire.packed(Task(work, uid, groups))
        except Exception as error:
            raise _unsayable(str(error)) from error
        with self._lock:
            try:
                deputy_wire.send(self._channel, data, fds)
                kind, value = self._heard(kept, stopped)
            except OSError as error:
                self._broken = True  # before the kernel tells of its end
                raise _lost(error.strerror or "it has ended") from error
        if kind == "unsayable":
            raise _unsayable(str(value))
        if isinstance(value, BaseException) and kind == "raised":
            raise value
        return cast("_T", value)

    def _heard(self, kept: list[object], stopped: threading.Event | None) -> tuple[str, object]:
        """Serve what the work asks for and tells, until it has an outcome: of which kind, and which."""
        broken: BaseException | None = None
        while True:
            self._wait(stopped)
            frame = deputy_wire.receive(self._channel)
            if frame is None:
                raise ConnectionResetError
            try:
                kind, value = cast("tuple[str, object]", deputy_wire.unpacked(frame))
            except Exception as error:  # noqa: BLE001  # whatever a value's class raises
                kind, value = "unsayable", str(error)
            finally:
                for fd in frame.fds:
                    if fd >= 0:
                        os.close(fd)
            if kind == "raised" and broken is not None and not isinstance(broken, OSError):
                return kind, broken  # the caller's own
            if kind == "progress" and isinstance(value, Progress):
                _tell(kept, value)
            elif kind == "read":
                piece, broken = _piece(kept, value)
                self._say(piece)
            else:
                return kind, value

    def _wait(self, stopped: threading.Event | None) -> None:
        """Wait for a word; a cancellation is passed on once."""
        if stopped is None:
            return
        told = stopped.is_set()
        if told:
            self._say("stop")
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while not poll.poll(None if told else DEPUTY_STOP_S * 1000):
            if stopped.is_set():
                self._say("stop")
                told = True

    def _say(self, value: object) -> None:
        data, _, _ = deputy_wire.packed(value)
        deputy_wire.send(self._channel, data, [])

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        process = self._process
        return not self._broken and process is not None and process.poll() is None

    def close(self) -> None:
        """End it, and wait for that (blocking); doing it again does nothing."""
        self._channel.close()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Deputy:
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()


class Deputies:
    """The deputies of one workspace, each started when it is first needed. ``close`` ends them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects both attributes
        self._held: dict[Powers, Deputy] = {}
        self._closed = False

    def of(self, powers: Powers) -> Deputy:
        """One of them (blocking).

        Raises:
            ConfinementUnavailableError, OSError: as ``Deputy``.
        """
        with self._lock:
            held = self._held.get(powers)
            if held is not None and not held.alive:
                held.close()
                held = None
            if self._closed:
                raise _lost("the workspace is closed")
            if held is None:
                held = self._held[powers] = Deputy(powers)
            return held

    def close(self) -> None:
        """End them (blocking)."""
        with self._lock:
            self._closed = True
            held, self._held = self._held, {}
        for deputy in held.values():
            deputy.close()


def emptied_for_all(root: WorkspaceRoot, failures: list[OSError]) -> list[OSError]:
    """Remove what an ordinary user could not, since it belongs to another user of a session (blocking).

    Returns:
        What still could not be removed.
    """
    if os.geteuid() == 0 or not any(isinstance(error, PermissionError) for error in failures):
        return failures
    from functools import partial  # noqa: PLC0415  # few deletions come here

    with suppress(ConfinementUnavailableError), Deputy("whole") as deputy:
        return deputy.do(partial(_emptied, root))
    return failures


def _emptied(root: WorkspaceRoot) -> list[OSError]:
    from sandyard.workspace.removal import empty_directory  # noqa: PLC0415  # in the deputy

    return empty_directory(root.fd)


def _started(theirs: socket.socket, powers: Powers) -> subprocess.Popen[bytes]:
    """A fresh interpreter with our modules, and none of our secrets."""
    python = own_interpreter()
    if not python:
        raise _lost("this program does not know its interpreter")
    path = json.dumps(_places())
    environment = {
        name: value for name, value in os.environ.items() if name == "LANG" or name[:3] == "LC_"
    }
    us = os.pidfd_open(os.getpid())
    try:
        words = [path, str(theirs.fileno()), str(us), powers]
        return subprocess.Popen(
            [python, "-I", "-S", "-c", _PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            pass_fds=(theirs.fileno(), us),
            start_new_session=True,
        )
    finally:
        os.close(us)


def _places() -> list[str]:
    """Where our modules and what they need were loaded from, to be looked through after Python's own.

    This program's whole path begins with the directory of its script, or the current one. Either may
    be the workspace, and what commands write there is not run out here.
    """
    places: dict[str, None] = {}
    for name in _NEEDED:
        module = sys.modules.get(name)
        origin = module.__file__ if module is not None else None
        if module is None or origin is None:
            continue
        depth = name.count(".") + (2 if hasattr(module, "__path__") else 1)
        place = os.path.abspath(origin)
        for _ in range(depth):
            place = os.path.dirname(place)
        places[place] = None
    return list(places)


def _tell(kept: list[object], progress: Progress) -> None:
    for one in kept:
        if isinstance(one, Tracker):
            one.take(progress)


def _piece(kept: list[object], size: object) -> tuple[object, BaseException | None]:
    """The next piece of a caller's stream; or what is said of its failure, and the failure itself."""
    read = getattr(kept[0] if kept else None, "read", None)
    if not callable(read):
        return ValueError("there is no stream"), None
    try:
        piece: object = read(size)
    except OSError as error:
        return OSError(error.errno, error.strerror), error
    except BaseException as error:  # noqa: BLE001  # the caller's own, raised in its thread again
        return RuntimeError("the source could not be read"), error
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece), None
    return piece if isinstance(piece, bytes | str) else None, None


def _unsayable(why: str) -> ConfinementUnavailableError:
    return ConfinementUnavailableError(
        "this can't be done for another user",
        dimension="processes",
        cause_text="an ordinary user's program has it done by another process, and what goes there "
        f"or comes back is no mere value ({why})",
        fix="run as root, or do it by a command of that user",
    )


def _lost(why: str) -> ConfinementUnavailableError:
    return ConfinementUnavailableError(
        "another user's part of the work could not be done",
        dimension="processes",
        cause_text=f"the program that stands in for the session's other users was lost: {why}",
        fix="call it again, and look for an out-of-memory kill in the kernel's log",
    )
