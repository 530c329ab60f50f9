"""What a deputy and its principal say to each other: pickled frames, with descriptors beside them.

Both ends are this library, of one user, and nobody else holds the socket.
"""

from __future__ import annotations

import array
import io
import os
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath, PurePosixPath
from types import NotImplementedType
from typing import Final, NamedTuple

from sandyard.limits import DEPUTY_DESCRIPTORS
from sandyard.workspace.progress import Tracker
from sandyard.workspace.root import Granted, WorkspaceRoot
from sandyard.workspace.ward import Ward

__all__ = ["Frame", "Handed", "Passed", "Task", "packed", "receive", "send", "unpacked"]

_HEAD: Final = struct.Struct("=QI")
_ITEM: Final = array.array("i").itemsize


class Task(NamedTuple):
    """What a deputy is to do.

    Attributes:
        work: it; picklable.
        uid: whom it is done as; None as the principal with all powers over its own ids.
        groups: the groups of that user besides its own.
    """

    work: Callable[[], object]
    uid: int | None
    groups: tuple[int, ...]


class Passed(int):
    """A descriptor that goes along; at the other end there is another number in its place."""

    __slots__ = ()


class Handed(int):
    """The same in an answer, for good: it is for whoever gets the answer to close."""

    __slots__ = ()


class Frame(NamedTuple):
    """One message, and the descriptors that came with it."""

    data: bytes
    fds: list[int]


def send(channel: socket.socket, data: bytes, fds: list[int]) -> None:
    """Send one frame (blocking).

    Raises:
        OSError: the other end has gone, or there are more descriptors than one message takes.
    """
    head = _HEAD.pack(len(data), len(fds))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = channel.sendmsg([head], rights, socket.MSG_NOSIGNAL)
    channel.sendall(head[sent:])
    channel.sendall(data)


def receive(channel: socket.socket) -> Frame | None:
    """Receive one frame (blocking); None where the other end has gone."""
    fds: list[int] = []
    try:
        head = _received(channel, _HEAD.size, fds)
        if head is None:
            return None
        size, count = _HEAD.unpack(head)
        data = _received(channel, size, fds)
        if data is None or len(fds) != count:
            return None
        taken, fds = fds, []
        return Frame(data, taken)
    except ConnectionError:
        return None
    finally:
        for fd in fds:
            os.close(fd)


def _received(channel: socket.socket, size: int, fds: list[int]) -> bytes | None:
    data = bytearray()
    room = socket.CMSG_SPACE(_ITEM * DEPUTY_DESCRIPTORS)
    while len(data) < size:
        piece, control, _, _ = channel.recvmsg(
            min(size - len(data), 1 << 20), room, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.extend(array.array("i", content[: len(content) - len(content) % _ITEM]))
        if not piece:
            return None
        data += piece
    return bytes(data)


# --- pickling ---------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    def __init__(self, into: io.BytesIO) -> None:
        super().__init__(into, protocol=pickle.HIGHEST_PROTOCOL)
        self.fds: list[int] = []
        self.kept: list[object] = []  # what is asked for, or told, from there

    def persistent_id(self, obj: object) -> tuple[str, int] | None:
        """What does not go by its value."""
        if isinstance(obj, threading.Event):
            return ("stopped", 0)
        if isinstance(obj, Passed):
            return self._passed("fd", int(obj))
        if isinstance(obj, io.TextIOBase):
            return (f"text {type(obj).__name__}", 0)
        if not isinstance(obj, type) and callable(getattr(obj, "read", None)):
            self.kept.append(obj)
            return ("source", 0)
        if isinstance(obj, Tracker):
            self.kept.append(obj)
            return ("tracker", 0)
        return None

    def _passed(self, kind: str, fd: int) -> tuple[str, int]:
        self.fds.append(fd)
        return (kind, len(self.fds) - 1)

    def reducer_override(
        self, obj: object
    ) -> tuple[Callable[..., object], tuple[object, ...]] | NotImplementedType:
        """Trees go by their descriptors, views by their bytes, and a caller's words by what they say."""
        if isinstance(obj, WorkspaceRoot):
            facts = obj.path, obj.inside, obj.owned, dict(obj.names), obj.marks
            return _tree, (Passed(obj.fd), facts, obj.ward, obj.granted)
        if isinstance(obj, memoryview):
            return bytes, (obj.tobytes(),)
        if isinstance(obj, str | bytes | bytearray | PurePath) and _is_callers(type(obj)):
            return _plain(obj)
        return NotImplemented  # type: ignore[no-any-return]  # typeshed has no type for it


def _is_callers(kind: type) -> bool:
    """Whether a class may be unknown at the other end; what is an enumeration's is its name alone."""
    home = kind.__module__.partition(".")[0]
    return home not in {"builtins", "pathlib", "sandyard"} and not issubclass(kind, Enum)


def _plain(value: str | bytes | bytearray | PurePath) -> tuple[type, tuple[object, ...]]:
    """How to make the same without what a caller's class adds to it."""
    if isinstance(value, str):
        return str, (str.__str__(value),)
    if isinstance(value, PurePath):
        return PurePosixPath, (os.fspath(value),)
    kind = bytes if isinstance(value, bytes) else bytearray
    return kind, (bytes(memoryview(value)),)


class _Answer(_Pickler):
    def persistent_id(self, obj: object) -> tuple[str, int] | None:
        """An open file is handed over."""
        if isinstance(obj, io.BufferedReader):
            return self._passed("file", obj.fileno())
        if isinstance(obj, Handed):
            return self._passed("handed", int(obj))
        return self._passed("fd", int(obj)) if isinstance(obj, Passed) else None

    def reducer_override(self, obj: object) -> NotImplementedType:
        """What holds a tree lives on in the deputy, which nobody could ask for it again."""
        if isinstance(obj, WorkspaceRoot):
            raise pickle.PicklingError("it lives on where it was made")
        return NotImplemented  # type: ignore[no-any-return]  # likewise


class _Unpickler(pickle.Unpickler):  # noqa: S301  # only our own process speaks there
    def __init__(self, frame: Frame, stand_ins: dict[str, object]) -> None:
        super().__init__(io.BytesIO(frame.data))
        self._fds = frame.fds
        self._stand_ins = stand_ins

    def persistent_load(self, pid: tuple[str, int]) -> object:
        """What stands for it here."""
        kind, number = pid
        if kind == "fd":
            return self._fds[number]
        if kind == "handed":
            fd, self._fds[number] = self._fds[number], -1
            return fd
        if kind == "file":
            fd, self._fds[number] = self._fds[number], -1
            return open(fd, "rb")
        if kind.startswith("text "):  # no verb takes it, and each says what it was given
            return type(kind[5:], (io.StringIO,), {})()
        return self._stand_ins[kind]


def packed(value: object, *, answer: bool = False) -> tuple[bytes, list[int], list[object]]:
    """Pickle a value: its bytes, the descriptors that go along, and the streams and trackers that stay.

    Raises:
        Exception: what pickle raises for what it can't take.
    """
    into = io.BytesIO()
    pickler = (_Answer if answer else _Pickler)(into)
    pickler.dump(value)
    return into.getvalue(), pickler.fds, pickler.kept


def unpacked(frame: Frame, stand_ins: dict[str, object] | None = None) -> object:
    """Read a value; descriptors that it took over are -1 in the frame from then on."""
    return _Unpickler(frame, stand_ins or {}).load()


def _tree(
    fd: int,
    facts: tuple[str, str, bool, dict[int, str], str | None],
    ward: Ward,
    granted: tuple[Granted, ...],
) -> WorkspaceRoot:
    """A tree as its principal has it, for as long as the frame's descriptors stay open."""
    path, inside, owned, names, marks = facts
    root = WorkspaceRoot(fd, path, inside=inside, owned=owned)
    root.names, root.marks = names, marks
    root.govern(ward, granted)
    return root
