"""Owns which frozen layers hold whole snapshots: they are kept for the next session that starts from one.

``saved-layers/ID`` names the layer that holds a snapshot, and the layer has it among its users. Who makes
such a layer has that file locked, so nobody else makes a second one. What is only here costs a restore if
it is lost, and no more: a name without its layer, or a layer without its name, is taken for nothing. A
layer is believed for as long as the machine runs, since its files may not survive a loss of power as its
name does. It blocks on the file system.
"""

from __future__ import annotations

import fcntl
import json
import os
import posixpath
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.limits import (
    SAVED_LAYER_BYTES,
    SAVED_LAYERS_AGE_S,
    SAVED_LAYERS_BYTES,
    SAVED_LAYERS_COUNT,
)
from sandyard.workspace.clocks import boot_id
from sandyard.workspace.layer_store import LayerStore
from sandyard.workspace.usage import measure_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HeldSnapshot", "SavedLayers"]

_PLACE: Final = "saved-layers"
_MARK: Final = "saved-"
"""What a layer's user is called that is no session: this, and the snapshot's id."""

_VERSION: Final = 1
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAKE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HeldSnapshot(NamedTuple):
    """A snapshot, as far as a layer that holds it is concerned.

    Attributes:
        id: the snapshot's; a plain name.
        tree: digest of all that was saved.
        record: absolute path of a file that is there for as long as the snapshot is.
    """

    id: str
    tree: str
    record: str


class _Entry(NamedTuple):
    """What is known of a layer that holds a snapshot.

    Attributes:
        held: the snapshot.
        layer: name of the layer.
        size: bytes that it takes.
        used: when a session began upon it last, in seconds since 1970.
    """

    held: HeldSnapshot
    layer: str
    size: int = 0
    used: float = 0.0


class SavedLayers:
    """The layers of one state directory that hold snapshots.

    Args:
        state: the user's state directory, which is there and the user's alone.
    """

    def __init__(self, state: str) -> None:
        self._place = posixpath.join(state, _PLACE)
        self._store = LayerStore(state)

    def use(self, held: HeldSnapshot, session_id: str) -> str | None:
        """Let a session use the layer that holds a snapshot; return its name, or None if there is none."""
        entry = self._entry(held.id)
        if entry is None or entry.held != held:
            return None
        try:
            self._store.use((entry.layer,), session_id)
        except OSError:  # removed, mostly
            return None
        with suppress(OSError):  # then it only looks older than it is
            os.utime(self._path(held.id))
        return entry.layer

    def held_by(self, layer: str) -> HeldSnapshot | None:
        """The snapshot that a layer holds; None if it holds none, or nobody knows any more."""
        for user in self._store.users(layer):
            if user.startswith(_MARK):
                entry = self._entry(user.removeprefix(_MARK))
                if entry is not None and entry.layer == layer:
                    return entry.held
        return None

    @contextmanager
    def making(self, held: HeldSnapshot) -> Iterator[bool]:
        """Hold off others who would make a layer for a snapshot; False where somebody holds us off."""
        with ExitStack() as stack:
            stack.callback(self._forget_empty, held.id)
            try:
                file = stack.enter_context(self._locked(held.id, make=True))
            except OSError:  # nobody is held off, and nothing will be kept
                yield True
                return
            yield file is not None

    def keep(self, held: HeldSnapshot, layer: str) -> None:
        """Keep a layer that holds a snapshot, which a session uses; within ``making``.

        Raises:
            OSError: that can't be written; then it is not kept.
        """
        if not boot_id():  # nobody could tell how long it may be believed
            return
        tree = os.open(self._store.tree(layer), _DIRECTORY)
        try:
            size = measure_usage(tree, threading.Event())
        finally:
            os.close(tree)
        self._write(_Entry(held, layer, size))
        self._store.use((layer,), _MARK + held.id)

    def settle(self) -> None:
        """Let go of what is kept for nothing, is too old, or too much; then settle all layers."""
        with suppress(OSError):
            self._settle(time.time())
            os.rmdir(self._place)
        self._store.settle(self._is_user)

    def _settle(self, now: float) -> None:
        idle: list[_Entry] = []
        for name in os.listdir(self._place):
            entry = self._entry(name)
            users = set() if entry is None else self._store.users(entry.layer)
            if entry is None or _MARK + name not in users or not _is_saved(entry.held):
                self._drop(name)
            elif len(users) == 1:  # what sessions lie upon is there anyway
                idle.append(entry)
        idle.sort(key=lambda entry: entry.used, reverse=True)
        total = 0
        for count, entry in enumerate(idle, 1):
            total += entry.size
            aged = now - entry.used > SAVED_LAYERS_AGE_S
            if aged or count > SAVED_LAYERS_COUNT or total > SAVED_LAYERS_BYTES:
                self._drop(entry.held.id)

    def _drop(self, name: str) -> None:
        """Keep a layer no longer, unless somebody makes it now; those who use it go on."""
        with suppress(OSError), self._locked(name) as file:
            if file is not None:
                entry = self._entry(name)
                os.unlink(self._path(name))
                if entry is not None:
                    self._store.leave(_MARK + name, (entry.layer,))

    def _forget_empty(self, name: str) -> None:
        """Remove the file of a layer that was not made."""
        with suppress(OSError), self._locked(name) as file:
            if file is not None and not os.fstat(file).st_size:
                os.unlink(self._path(name))

    def _is_user(self, layer: str, user: str) -> bool:
        """Whether a snapshot keeps a layer, as one of its users says that is no session."""
        name = user.removeprefix(_MARK)
        if not user.startswith(_MARK) or not os.path.lexists(self._path(name)):
            return False
        with self._locked(name) as file:
            if file is None:  # somebody makes it now
                return True
            entry = self._entry(name)
            return entry is not None and entry.layer == layer

    # --- files ------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, name: str, *, make: bool = False) -> Iterator[int | None]:
        """Lock the file of a snapshot; None where somebody else has.

        Raises:
            OSError: there is none, or it can't be made.
        """
        while True:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(self._place, 0o700)
            try:
                file = os.open(self._path(name), _MAKE if make else _READ, 0o600)
            except FileNotFoundError:  # a sweep took the empty directory away
                if make:
                    continue
                raise
            holder = os.getpid()
            try:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield None
                    return
                if not self._is_at(file, name):  # removed before we had it
                    continue
                try:
                    yield file
                finally:
                    if os.getpid() == holder:  # a forked worker's copy must not keep it
                        fcntl.flock(file, fcntl.LOCK_UN)
                return
            finally:
                os.close(file)

    def _is_at(self, file: int, name: str) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.lstat(self._path(name)))
        except FileNotFoundError:
            return False

    def _entry(self, name: str) -> _Entry | None:
        """What is said of a snapshot; None for nothing that can be believed."""
        try:
            with open(os.open(self._path(name), _READ), "rb") as file:
                raw, used = file.read(SAVED_LAYER_BYTES), os.fstat(file.fileno()).st_mtime
            said = json.loads(raw)
        except (OSError, ValueError, RecursionError):
            return None
        match said:
            case {
                "version": 1,
                "boot": str(boot),
                "layer": str(layer),
                "tree": str(tree),
                "record": str(record),
                "size": int(size),
            } if layer.isalnum() and boot and boot == boot_id():
                held = HeldSnapshot(name, tree, os.fsdecode(bytes.fromhex(record)))
                return _Entry(held, layer, size, used)
            case _:
                return None

    def _write(self, entry: _Entry) -> None:
        """Write what is known, in the place of what was: the file is ours, and locked."""
        said = {"version": _VERSION, "boot": boot_id(), "layer": entry.layer, "size": entry.size}
        said |= {"tree": entry.held.tree, "record": os.fsencode(entry.held.record).hex()}
        file = os.open(self._path(entry.held.id), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(said).encode(), 0)
        finally:
            os.close(file)

    def _path(self, name: str) -> str:
        return posixpath.join(self._place, name)


def _is_saved(held: HeldSnapshot) -> bool:
    return os.path.lexists(held.record)
