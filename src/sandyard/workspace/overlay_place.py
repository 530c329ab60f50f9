"""Owns the place of an overlay's changes: a directory beside the session's lease.

With it lies what is known of the directory that the overlay is laid over.
No command reaches the place but through the overlay. It blocks on the file system.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import secrets
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import ApplyRefusedError, WorkspaceStartError, WorkspaceStopError, shown
from sandyard.limits import OVERLAY_RECORD_BYTES
from sandyard.plan import Layer
from sandyard.workspace.clocks import Moment, moment_of
from sandyard.workspace.overlay_journal import settle_journal
from sandyard.workspace.overlay_marks import find_hiding
from sandyard.workspace.removal import remove_tree
from sandyard.workspace.root import Inode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from sandyard.workspace.lease import Lease

__all__ = ["OverlayPlace", "OverlayRecord", "clear_changes", "remove_changes"]

_CHANGES: Final = "changes"
_RECORD: Final = "overlay"
_DISCARDED: Final = "discarded-"
_BESIDE: Final = (
    *(_RECORD, "overlay.new", "applied", "applied.new", "apply.new"),
    *("layers", "layers.new"),
)
"""What is written beside the changes; the last two where the workspace lies upon frozen layers."""
_VERSION: Final = 1
_NAME_BYTES: Final = 4

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class OverlayRecord(NamedTuple):
    """What is known of the directory that an overlay is laid over.

    Attributes:
        root: its absolute path.
        inode: what it is.
        began: when the overlay began: what of the directory has a later ctime was changed since.
    """

    root: str
    inode: Inode
    began: Moment


class OverlayPlace:
    """Where one session's overlay keeps what is changed.

    Args:
        lease: the session's, which is held.
        root: absolute path of the directory beneath, without a symlink at its end.
    """

    def __init__(self, lease: Lease, root: str) -> None:
        self._directory = lease.directory
        self._root = root

    @property
    def upper(self) -> str:
        """Path of the directory in which the kernel puts what is changed."""
        return posixpath.join(self._directory, _CHANGES, "upper")

    @property
    def directory(self) -> str:
        """Path of the session's directory."""
        return self._directory

    def prepare(self) -> OverlayRecord:
        """Make the place, or find it as it was left.

        Raises:
            WorkspaceStartError: the directory beneath is missing, another one than it was, or
                somebody else's; or the place can't be made.
        """
        facts, record = self.check()
        self.settle()
        return self._begin(facts) if record is None else record

    def check(self) -> tuple[os.stat_result, OverlayRecord | None]:
        """Look at the directory beneath, and at what was noted of it; None if nothing was.

        Raises:
            WorkspaceStartError: it is missing, another one than it was, or somebody else's.
        """
        facts, record = self._base(), self.record()
        if record is not None and record.inode != (facts.st_dev, facts.st_ino):
            raise WorkspaceStartError(
                path=self._root,
                message=f"{shown(self._root)} is not the directory that this session's overlay was "
                "laid over; put that back, or delete the session and make another",
                context={"reason": "not_its_own"},
                retryable=False,
            )
        return facts, record

    def settle(self) -> None:
        """Undo an apply that was cut short, and remove what one left that was not.

        Raises:
            WorkspaceStartError: that can't be done now.
        """
        try:
            settle_journal(self._directory)
        except OSError as error:
            raise WorkspaceStartError(
                path=self._root,
                message=f"an apply to {shown(self._root)} was cut short, and can't be undone: "
                f"{error.strerror}; make the directory writable, and start again",
                context={"reason": "apply_cut_short"},
                cause=error,
            ) from error

    def record(self) -> OverlayRecord | None:
        """What was noted when the overlay began; None if it has not."""
        try:
            with open(os.open(self._path(_RECORD), _READ), "rb") as file:
                raw = file.read(OVERLAY_RECORD_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkspaceStartError(path=self._path(_RECORD), cause=error) from error
        return _decoded(raw)

    def begun(self) -> OverlayRecord:
        """What was noted when the overlay began.

        Raises:
            WorkspaceStartError: it has not begun, or that can't be read.
        """
        record = self.record()
        if record is None:
            raise WorkspaceStartError(
                path=self._path(_RECORD),
                message="what was noted of the overlay is gone; discard the session, and make another",
                context={"reason": "no_record"},
                retryable=False,
            )
        return record

    @contextmanager
    def opened(self) -> Iterator[tuple[int, int]]:
        """Open what was changed, and the directory beneath, if it is the one that it was.

        Raises:
            ApplyRefusedError: another directory stands there.
            WorkspaceStartError: the overlay has not begun.
            OSError: one can't be opened.
        """
        record = self.begun()
        with ExitStack() as stack:
            upper = os.open(self.upper, _DIRECTORY)
            stack.callback(os.close, upper)
            base = os.open(record.root, _DIRECTORY)
            stack.callback(os.close, base)
            facts = os.fstat(base)
            if (facts.st_dev, facts.st_ino) != record.inode:
                raise ApplyRefusedError(
                    "another directory stands where the overlay's was; put that back",
                    reason="conflict",
                    paths=(record.root,),
                )
            yield upper, base

    def layers(self, record: OverlayRecord, stopped: Event) -> tuple[Layer, Layer]:
        """The layer of changes, and the one beneath.

        Args:
            record: what was prepared.
            stopped: set by whoever wants no more of it.

        Raises:
            WorkspaceStartError: they can't be found, or files would be hidden in the one beneath.
        """
        self._refuse_hiding(stopped)
        path = self._path(_CHANGES)
        try:
            facts = os.lstat(path)
        except OSError as error:
            raise WorkspaceStartError(path=path, cause=error) from error
        real = posixpath.join(
            os.path.realpath(posixpath.dirname(record.root)), posixpath.basename(record.root)
        )
        changes = Layer(os.path.realpath(path), (facts.st_dev, facts.st_ino))
        return changes, Layer(real, (record.inode.device, record.inode.number))

    def _refuse_hiding(self, stopped: Event) -> None:
        why = find_hiding(self._root, stopped)
        if why is not None:
            raise WorkspaceStartError(
                path=self._root,
                message=f"no overlay can be laid over {shown(self._root)}: {why}",
                context={"reason": "hides_files"},
                retryable=False,
            )

    def renew(self) -> None:
        """Put all changes aside, and begin anew; no overlay may use them.

        Raises:
            WorkspaceStartError: that can't be done, or another directory stands beneath.
        """
        facts, _ = self.check()
        try:
            settle_journal(self._directory)
            for name in (_RECORD, "applied"):
                with suppress(FileNotFoundError):
                    os.unlink(self._path(name))
            with suppress(FileNotFoundError):
                aside = _DISCARDED + secrets.token_hex(_NAME_BYTES)
                os.rename(self._path(_CHANGES), self._path(aside))
        except OSError as error:
            raise WorkspaceStartError(path=self._path(_CHANGES), cause=error) from error
        self._begin(facts)

    def clear(self) -> None:
        """Remove what was put aside; what can't be removed is left to the end of the session."""
        with suppress(OSError):
            session = os.open(self._directory, _DIRECTORY)
            try:
                _remove(session, _DISCARDED)
            finally:
                os.close(session)

    def remove(self) -> None:
        """Remove all of it, once an apply that was cut short is undone.

        Raises:
            WorkspaceStopError: that can't be done now; or something can't be removed, and all else is gone.
        """
        try:
            settle_journal(self._directory)
        except OSError as error:
            raise WorkspaceStopError(
                path=self._root,
                message=f"an apply to {shown(self._root)} was cut short, and can't be undone: "
                f"{error.strerror}; put the directory back, and delete the session again",
                context={"reason": "apply_cut_short"},
                cause=error,
            ) from error
        clear_changes(self._directory)

    def _path(self, name: str) -> str:
        return posixpath.join(self._directory, name)

    def _base(self) -> os.stat_result:
        try:
            facts = os.lstat(self._root)
            if not stat.S_ISDIR(facts.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            raise WorkspaceStartError(
                path=self._root,
                message=f"an overlay is laid over an existing directory, and {shown(self._root)} is "
                f"none: {error.strerror}",
                context={"reason": "no_base"},
                cause=error,
            ) from error
        if os.geteuid() not in {0, facts.st_uid}:
            raise WorkspaceStartError(
                path=self._root,
                message=f"{shown(self._root)} belongs to user {facts.st_uid}, and an ordinary user "
                "can lay an overlay over directories of its own only; run as that user, or as root, "
                "or work on a copy",
                context={"reason": "somebody_elses"},
                retryable=False,
            )
        return facts

    def _begin(self, facts: os.stat_result) -> OverlayRecord:
        """Make an empty place. The record comes last: without one, what is there is no overlay's."""
        top = self._path(_CHANGES)
        try:
            session = os.open(self._directory, _DIRECTORY)
            try:
                if failures := remove_tree(session, _CHANGES):
                    raise failures[0]
            finally:
                os.close(session)
            os.mkdir(top, 0o700)
            for name in ("upper", "work"):
                os.mkdir(posixpath.join(top, name), 0o700)
            for path in (self.upper, posixpath.join(top, "work"), top):
                os.chown(path, facts.st_uid, facts.st_gid, follow_symlinks=False)
            os.chmod(self.upper, stat.S_IMODE(facts.st_mode) | stat.S_IRWXU)
            return self._note(Inode(facts.st_dev, facts.st_ino))
        except OSError as error:
            raise WorkspaceStartError(path=top, cause=error) from error

    def _note(self, inode: Inode) -> OverlayRecord:
        new = self._path(f"{_RECORD}.new")
        with suppress(FileNotFoundError):
            os.unlink(new)
        with open(os.open(new, _NEW, 0o600), "w", encoding="utf-8") as file:
            began = moment_of(os.fstat(file.fileno()).st_ctime_ns)
            said = {"version": _VERSION, "root": os.fsencode(self._root).hex()}
            said |= {"device": inode[0], "inode": inode[1], "began": began.time}
            json.dump(said | {"uptime": began.uptime, "boot": began.boot}, file)
        os.rename(new, self._path(_RECORD))
        return OverlayRecord(self._root, inode, began)


def clear_changes(directory: str) -> None:
    """Remove what an overlay left in a session's directory; nothing to do where that is gone.

    Args:
        directory: absolute path of it.

    Raises:
        WorkspaceStopError: something can't be removed; all else is gone.
    """
    try:
        session = os.open(directory, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WorkspaceStopError(path=directory, cause=error) from error
    try:
        failures = remove_changes(session)
    finally:
        os.close(session)
    if failures:
        raise WorkspaceStopError(path=posixpath.join(directory, _CHANGES), cause=failures[0])


def remove_changes(session: int) -> list[OSError]:
    """Remove what an overlay left in a session's directory; what could not be removed is returned.

    Args:
        session: descriptor of the directory.
    """
    failures = _remove(session, _CHANGES) + _remove(session, _DISCARDED)
    if not failures:
        for name in _BESIDE:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=session)
    return failures


def _remove(session: int, beginning: str) -> list[OSError]:
    failures: list[OSError] = []
    for name in os.listdir(session):
        if name.startswith(beginning):
            failures += remove_tree(session, name)
    return failures


def _decoded(raw: bytes) -> OverlayRecord | None:
    """What a record says; None if it was never finished."""
    try:
        said = json.loads(raw)
        match said:
            case {
                "version": 1,
                "root": str(root),
                "device": int(device),
                "inode": int(number),
                "began": int(began),
            }:
                path = os.fsdecode(bytes.fromhex(root))
                return OverlayRecord(path, Inode(device, number), _moment(began, said))
            case _:
                return None
    except (ValueError, RecursionError):
        return None


def _moment(began: int, said: dict[str, object]) -> Moment:
    """When an overlay began; of a record that says no more than that, by the clock for files alone."""
    match said:
        case {"uptime": int(uptime), "boot": str(boot)}:
            return Moment(began, uptime, boot)
        case _:
            return Moment(began)
