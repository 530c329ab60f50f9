"""Owns the supervisor's directory: its socket, its lock and the list of its sessions."""

from __future__ import annotations

import fcntl
import json
import os
import posixpath
import socket
import stat
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from sandyard.errors import ServerError, shown
from sandyard.platform import state_directory
from sandyard.server.limits import CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_S, SESSIONS_GONE_KEPT
from sandyard.server.records import SessionRecord

__all__ = ["SupervisorPlace", "check_peer"]

_NAME: Final = "sandyard"
_LOCK: Final = "supervisor.lock"
_SOCKET: Final = "supervisor.sock"
_SESSIONS: Final = "supervisor.sessions"
_LIST_BYTES: Final = 1024 * 1024
_PRIVATE: Final = 0o700
_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SupervisorPlace:
    """The directory, open; everything in it is reached through its descriptor.

    It is a context manager. All of it blocks on the file system.

    Attributes:
        path: where it is, for messages.
    """

    def __init__(self, path: str, fd: int) -> None:
        """Take over a descriptor; use ``open`` instead."""
        self.path = path
        self._fd = fd

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> Self:
        """Open ``$XDG_RUNTIME_DIR/sandyard``, or the state directory where that is missing.

        It is made if need be, for this user alone.

        Raises:
            ServerError: it is not this user's alone, or can't be made.
        """
        path = _chosen_path(environ)
        try:
            os.makedirs(path, _PRIVATE, exist_ok=True)
            fd = os.open(path, _DIRECTORY)
        except OSError as error:
            raise ServerError(
                f"there is no place for the supervisor's socket: {shown(path)}: {error.strerror}; set "
                "XDG_RUNTIME_DIR to a directory of yours",
                reason="unreachable",
                cause=error,
            ) from error
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & ~_PRIVATE:
            os.close(fd)
            raise ServerError(
                f"{shown(path)} holds the supervisor's socket, and others may use it: it belongs to "
                f"user {facts.st_uid} with mode {stat.S_IMODE(facts.st_mode):o}; make it yours alone: "
                f"chmod 700 {path}",
                reason="foreign",
                retryable=False,
            )
        return cls(path, fd)

    # --- the socket -------------------------------------------------------------------------------

    def connect(self) -> socket.socket | None:
        """Reach the supervisor; None if there is none.

        Raises:
            ServerError: it is another user's, or it does not take calls.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(HANDSHAKE_TIMEOUT_S)
            sock.connect(self._through(_SOCKET))
            check_peer(sock)
            sock.setblocking(False)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise ServerError(
                f"the supervisor of {shown(self.path)} can't be reached: {error.strerror or error}",
                reason="unreachable",
                cause=error,
                retryable=True,
            ) from error
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self) -> socket.socket:
        """Make the socket, in the place of one that a killed supervisor left; only under the lock.

        Raises:
            OSError: it can't be made.
        """
        self.hide()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.bind(self._through(_SOCKET))
            os.chmod(_SOCKET, stat.S_IRUSR | stat.S_IWUSR, dir_fd=self._fd)
            sock.listen(CONNECTIONS_MAX)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def hide(self) -> None:
        """Remove the socket; only under the lock."""
        with suppress(FileNotFoundError):
            os.unlink(_SOCKET, dir_fd=self._fd)

    # --- the lock ---------------------------------------------------------------------------------

    def lock(self) -> int | None:
        """Become the supervisor; None if another process is. The lock ends with the descriptor.

        Raises:
            OSError: there can be no lock here.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_LOCK, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd

    # --- the list of sessions ---------------------------------------------------------------------

    def left_sessions(self) -> tuple[SessionRecord, ...]:
        """The sessions of a supervisor that did not end by itself; only under the lock."""
        try:
            fd = os.open(_SESSIONS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError:
            return ()
        with open(fd, "rb") as file:
            data = file.read(_LIST_BYTES)
        try:
            rows = json.loads(data)
            return tuple(SessionRecord(str(row[0]), str(row[1])) for row in rows)
        except (ValueError, TypeError, LookupError, RecursionError):
            return ()  # it was cut, by a full disk

    def has_left(self) -> bool:
        """Whether a supervisor has left a list of sessions: it was killed, or still runs."""
        try:
            os.stat(_SESSIONS, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def note_sessions(self, records: tuple[SessionRecord, ...]) -> None:
        """Write down which there are, so that the next supervisor can tell what became of them.

        What can't be written is not told then; the sessions go on.
        """
        data = json.dumps([[one.id, one.name] for one in records[-SESSIONS_GONE_KEPT:]]).encode()
        fresh = f"{_SESSIONS}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):
            if not records:
                os.unlink(_SESSIONS, dir_fd=self._fd)
                return
            fd = os.open(fresh, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=self._fd)
            try:
                with open(fd, "wb") as file:
                    file.write(data)
                os.rename(fresh, _SESSIONS, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                os.unlink(fresh, dir_fd=self._fd)

    # --- life -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the directory; doing it again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Hold the directory for the length of a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it."""
        self.close()

    def _through(self, name: str) -> str:
        # A socket's address has at most 107 bytes, which a path of a user's may not fit into.
        return f"/proc/self/fd/{self._fd}/{name}"


def check_peer(sock: socket.socket) -> None:
    """Refuse another user, and a process of a sandbox that was shown the socket.

    Raises:
        ServerError: it is one of these.
    """
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    if uid != os.geteuid():
        raise ServerError(
            f"the other side of the supervisor's socket is user {uid}, and this is user "
            f"{os.geteuid()}; each user has a supervisor of their own",
            reason="foreign",
            retryable=False,
        )
    try:
        same = os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:  # it has gone, or can't be looked at: it is not like us
        same = False
    if not same:
        raise ServerError(
            f"process {pid} at the other side of the supervisor's socket is in another user "
            "namespace, as commands in a sandbox are",
            reason="foreign",
            retryable=False,
        )


def _chosen_path(environ: Mapping[str, str]) -> str:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and "\0" not in runtime:
        with suppress(OSError):
            facts = os.stat(runtime)
            # Under sudo and su it may be another user's.
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
                return posixpath.join(posixpath.normpath(runtime), _NAME)
    try:
        return posixpath.join(state_directory(environ), "supervisor")
    except OSError:
        return posixpath.join(os.path.realpath(tempfile.gettempdir()), f"{_NAME}-{os.geteuid()}")
