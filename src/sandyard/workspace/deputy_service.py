"""A deputy's own side: a program in a user namespace in which its principal's subordinate ids exist.

It ends with its principal. It is started as a fresh interpreter, for only a process without other
threads can enter a user namespace.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sandyard.workspace import acting, deputy_wire
from sandyard.workspace.deputy_wire import Frame, Task
from sandyard.workspace.progress import Progress, Tracker
from sandyard.workspace.root import Owner

__all__ = ["serve"]

_NEW_USER: Final = 0x1000_0000
_CAPABILITIES: Final = 0x2008_0522
"""The version of capset(2) whose sets have 64 bits."""
_SETGID: Final = 1 << 6
_SETUID: Final = 1 << 7
_libc = ctypes.CDLL(None, use_errno=True)


class _Stopped:
    """What a caller sets when it is cancelled, as seen from here."""

    def __init__(self, talk: _Talk) -> None:
        self._talk = talk

    def is_set(self) -> bool:
        """Whether the caller wants no more of it."""
        return self._talk.is_stopped()


class _Source:
    """A caller's stream, read from here."""

    def __init__(self, talk: _Talk) -> None:
        self._talk = talk

    def read(self, size: int = -1) -> object:
        """Ask for the next piece."""
        return self._talk.ask_piece(size)


class _Talk:
    """What is said while a task is done."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._stopped = False

    def is_stopped(self) -> bool:
        """Whether it was said that nobody wants more; nobody says anything else unasked."""
        if not self._stopped and _readable((self._channel.fileno(),), 0):
            self._heard()
            self._stopped = True
        return self._stopped

    def ask_piece(self, size: int) -> object:
        """Have the principal read from the caller's stream."""
        data, _, _ = deputy_wire.packed(("read", size))
        deputy_wire.send(self._channel, data, [])
        while True:
            said = deputy_wire.unpacked(self._heard())
            if said == "stop":
                self._stopped = True
                continue
            if isinstance(said, BaseException):
                raise said
            return said

    def tell(self, progress: Progress) -> None:
        """Tell the principal how far the task is."""
        data, _, _ = deputy_wire.packed(("progress", progress))
        deputy_wire.send(self._channel, data, [])

    def _heard(self) -> Frame:
        frame = deputy_wire.receive(self._channel)
        if frame is None:
            os._exit(0)  # nobody is left who could want this
        return frame


def serve(channel: int, principal: int, powers: str) -> None:
    """Enter a user namespace, wait for its maps, and do what is asked until the principal has gone.

    Args:
        channel: descriptor of the socket to the principal.
        principal: a pidfd of it.
        powers: ``"whole"`` keeps all powers over the ids that are mapped; ``"user"`` only those to
            become one of them.
    """
    with socket.socket(fileno=channel) as link:
        if _libc.unshare(_NEW_USER) != 0:
            link.sendall(struct.pack("=i", ctypes.get_errno()))
            return
        link.sendall(struct.pack("=i", 0))
        if link.recv(1) != b"m":
            return
        if powers == "user":
            os.setgroups([])
            _keep(_SETUID | _SETGID)
        while _is_wanted(link, principal):
            frame = deputy_wire.receive(link)
            if frame is None:
                return
            _answer(link, frame)


def _is_wanted(link: socket.socket, principal: int) -> bool:
    """Wait for the next word, or for the end of the principal, whoever else holds its socket."""
    return principal not in _readable((link.fileno(), principal), None)


def _readable(fds: tuple[int, ...], timeout_ms: int | None) -> set[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(timeout_ms)}


def _answer(link: socket.socket, frame: Frame) -> None:
    talk = _Talk(link)
    result: object = None
    try:
        stand_ins: dict[str, object] = {
            "stopped": _Stopped(talk),
            "source": _Source(talk),
            "tracker": Tracker(talk.tell),
        }
        try:
            task = deputy_wire.unpacked(frame, stand_ins)
        except Exception as error:  # noqa: BLE001  # a class of the caller's that nobody has here
            task = error
        if task == "stop":  # it came when all was done
            return
        said: tuple[str, object] = ("unsayable", str(task))
        if isinstance(task, Task):
            with _acting(task):
                result = task.work()
            said = ("done", result)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the caller is told
        said = ("raised", error)
    finally:
        for fd in frame.fds:
            if fd >= 0:
                os.close(fd)
    try:
        data, fds, _ = deputy_wire.packed(said, answer=True)
    except Exception as error:  # noqa: BLE001  # likewise
        data, fds, _ = deputy_wire.packed(("unsayable", str(error)))
    deputy_wire.send(link, data, fds)
    close = getattr(result, "close", None)
    if callable(close):
        close()


@contextmanager
def _acting(task: Task) -> Iterator[None]:
    if task.uid is None:
        yield
        return
    with acting.acting_for(Owner(task.uid, task.uid), task.groups):
        yield


def _keep(kept: int) -> None:
    """Give up all powers but these, for good.

    Raises:
        OSError: the kernel refuses.
    """
    header = struct.pack("=Ii", _CAPABILITIES, 0)
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if _libc.capset(header, sets) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
