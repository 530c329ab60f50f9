"""The mounts of one session: what may be shown, where, and the end of all of it.

A mount is made in the sandbox that already stands, at the start for those of the manifest. On the
host there is an empty directory, which the file verbs keep out of. All mounts end with the sandbox.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sandyard.confinement.placement import check_place
from sandyard.errors import (
    MountConfigError,
    MountFailedError,
    PolicyError,
    SandboxError,
    SessionClosedError,
    WorkspaceStartError,
    shown,
)
from sandyard.finishing import finished, in_stoppable_thread, in_thread
from sandyard.limits import MOUNT_BYTES_PER_INODE
from sandyard.manifest.mounts import BindMount, OverlayMount, RemoteMount, TmpfsMount
from sandyard.plan import KeptPart, LateMount
from sandyard.planted import LIBRARY
from sandyard.platform import is_within, resolve_denied, state_directory
from sandyard.process.init import SandboxEndedError
from sandyard.process.mounting import open_source
from sandyard.process.wire import Failure, Step
from sandyard.workspace.mount_points import MountPoint, make_point, point_path, remove_point
from sandyard.workspace.opener import Opener
from sandyard.workspace.overlay_marks import find_hiding
from sandyard.workspace.survey import Tree, survey_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import PurePath
    from threading import Event

    from sandyard.errors import OpName
    from sandyard.manifest import Mount
    from sandyard.manifest.mounts import MountProvider
    from sandyard.policy import Policy
    from sandyard.process import InitProcess
    from sandyard.process.mounting import LatePlace
    from sandyard.workspace import WorkspaceRoot

__all__ = ["Mounts"]

_MOVED: Final = frozenset({errno.ESTALE, errno.ENOENT, errno.ELOOP, errno.ENOTDIR})
"""What says that commands, or somebody outside, changed what leads to a mount point or a part."""


@dataclass(slots=True)
class _Standing:
    """A mount that stands.

    Attributes:
        entry: what it shows.
        root: the workspace.
        point: where.
        number: what the kernel knows it by.
        provided: leaves the provider's context.
    """

    entry: Mount
    root: WorkspaceRoot
    point: MountPoint
    number: int
    provided: AsyncExitStack


class Mounts:
    """What is mounted in one session. It belongs to the session's loop.

    Args:
        policy: what is denied and protected.
        providers: who makes remote mounts, by name.
        saved: what the session's snapshot lies in, in words, and where; commands may never write it.
    """

    def __init__(
        self,
        policy: Policy,
        providers: Mapping[str, MountProvider],
        saved: tuple[str, str] | None = None,
    ) -> None:
        self._policy = policy
        self._providers = providers
        self._saved = saved
        self._standing: dict[str, _Standing] = {}
        self._turn = asyncio.Lock()  # one mount at a time, and none while the session ends

    def present(self) -> dict[str, Mount]:
        """What is mounted, by its absolute path inside."""
        return {path: each.entry for path, each in self._standing.items()}

    def unsaved(self) -> frozenset[tuple[str, ...]]:
        """The mount points, beneath the workspace, which no snapshot has."""
        return frozenset(each.point.names for each in self._standing.values())

    async def add(
        self,
        init: InitProcess,
        root: WorkspaceRoot,
        path: str | PurePath,
        entry: Mount,
        op: OpName = "mount",
    ) -> str:
        """Mount something; ``MountVerbs.mount`` says more.

        Returns:
            Where it stands, absolute.
        """
        async with self._turn:
            wanted = point_path(root, path, op)
            if wanted in self._standing:
                raise MountConfigError(
                    f"something is mounted at {shown(wanted)}; unmount that first",
                    op=op,
                    path=wanted,
                    context={"reason": "mounted"},
                )
            try:
                async with AsyncExitStack() as undo:
                    source = await self._find_source(entry, wanted, undo, op)
                    order = _Order(entry, wanted, op, source)
                    point, number = await self._carry_out(init, root, order)
                    standing = _Standing(entry, root, point, number, undo.pop_all())
            except SandboxError:
                raise
            except Exception as error:  # what a provider's end raised, when something else failed
                raise _provider_failed(entry, wanted, op, error) from error
            self._standing[point.path] = standing
            return point.path

    async def remove(self, init: InitProcess, root: WorkspaceRoot, path: str | PurePath) -> None:
        """Take something out again; ``MountVerbs.unmount`` says more."""
        async with self._turn:
            wanted = point_path(root, path, "unmount")
            standing = self._standing.get(wanted)
            if standing is None:
                raise MountConfigError(
                    f"nothing is mounted at {shown(wanted)}; session.mounts() says what is",
                    op="unmount",
                    path=path,
                    context={"reason": "not_mounted"},
                )
            with _place(init, "unmount") as place:
                await finished(self._take_out(place, standing))

    async def close(self) -> None:
        """Let go of everything; the sandbox, and with it every mount, has ended.

        Raises:
            MountFailedError: a provider could not take back what it had made; all others did.
            ResourceLimitError: no thread could be started, so that a mount point was left behind.
        """
        async with self._turn:
            await finished(self._forget_all())

    async def _forget_all(self) -> None:
        """Let go of each, whatever becomes of the others; the first error is raised afterwards."""
        failures: list[SandboxError] = []
        for standing in reversed([*self._standing.values()]):
            try:
                await self._forget(standing, "shutdown")
            except SandboxError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _take_out(self, place: LatePlace, standing: _Standing) -> None:
        path = standing.point.path
        ask = partial(place.unmount, path, standing.number)
        await in_thread(_answered, ask, path, "unmount")
        await self._forget(standing, "unmount")

    async def _forget(self, standing: _Standing, op: OpName) -> None:
        """Open a mount point to the file verbs again, then let the provider end what it made."""
        del self._standing[standing.point.path]
        try:
            await in_thread(remove_point, standing.root, standing.point)
        finally:
            try:
                await standing.provided.aclose()
            except Exception as error:  # the border to a provider's code
                raise _provider_failed(standing.entry, standing.point.path, op, error) from error

    async def _find_source(
        self, entry: Mount, path: str, undo: AsyncExitStack, op: OpName
    ) -> str | None:
        """Where on the host what is to be shown lies; a provider is asked for it."""
        if isinstance(entry, BindMount | OverlayMount):
            return entry.source
        if isinstance(entry, TmpfsMount):
            return None
        if not isinstance(entry, RemoteMount):
            raise MountConfigError(
                f"a mount of type {shown(entry.type)} is of no kind that this session can make",
                op=op,
                path=path,
                context={"reason": "unknown_type"},
            )
        provider = self._providers.get(entry.provider)
        if provider is None:
            known = ", ".join(sorted(self._providers)) or "none"
            raise MountConfigError(
                f"there is no provider {shown(entry.provider)} for the remote mount at "
                f"{shown(path)} (known: {known}); give it to UnixLocalSandboxClient("
                "mount_providers=…)",
                op=op,
                path=path,
                context={"reason": "no_provider", "provider": entry.provider},
            )
        try:
            return str(await undo.enter_async_context(provider.mounted(entry)))
        except Exception as error:  # the border to a provider's code
            raise _provider_failed(entry, path, op, error) from error

    async def _carry_out(
        self, init: InitProcess, root: WorkspaceRoot, order: _Order
    ) -> tuple[MountPoint, int]:
        """Mount it, or leave nothing mounted."""
        done: list[tuple[MountPoint, int]] = []
        with _place(init, order.op) as place:
            try:
                await in_stoppable_thread(partial(self._mount, place, root, order, done))
            except BaseException:
                for point, number in done:  # cancelled when it stood already
                    await finished(in_thread(_take_back, place, root, point, number))
                raise
        return done[0]

    def _mount(
        self,
        place: LatePlace,
        root: WorkspaceRoot,
        order: _Order,
        done: list[tuple[MountPoint, int]],
        stopped: Event,
    ) -> None:
        entry = order.entry
        with ExitStack() as stack:
            source: int | None = None
            parts: tuple[KeptPart, ...] = ()
            if order.source is not None:
                source = _opened(order)
                stack.callback(os.close, source)
                real = self._checked(order, root, source)
                hides = isinstance(entry, OverlayMount) and find_hiding(real, stopped)
                if hides:
                    raise _bad_source(order, hides, "hides_files")
                if not entry.read_only and not isinstance(entry, OverlayMount):
                    parts = self._kept(real, source, order.path)
            with ExitStack() as undo:
                point = make_point(root, order.path, order.op)
                undo.callback(remove_point, root, point)
                late = _late_mount(
                    entry, point, parts, as_owner=place.leased and source is not None
                )
                number = _answered(partial(place.mount, late, source), order.path, order.op)
                undo.pop_all()
            done.append((point, number))

    def _checked(self, order: _Order, root: WorkspaceRoot, opened: int) -> str:
        """Refuse what the policy or the sandbox keeps from commands; gives the source's real path."""
        path = str(order.source)
        source = os.readlink(f"/proc/self/fd/{opened}")  # which asks no file server
        if source != path and not isinstance(order.entry, RemoteMount):
            # A saved state names paths too, and somebody else may have put the link there.
            raise _bad_source(order, f"a part of it is a symlink; give {shown(source)}", "symlink")
        # What is written to an overlay stays in it.
        writable = not order.entry.read_only and not isinstance(order.entry, OverlayMount)
        check_place((path, source), writable=writable)
        for denied in resolve_denied(self._policy):
            if is_within(source, denied) or is_within(denied, source):
                raise PolicyError(
                    f"{path} is, contains or lies in {denied}, which Policy(deny=…) closes; mount "
                    "a directory beside it",
                    field="deny",
                    value=path,
                )
        kept = sorted(set(source.split("/")) & set(self._policy.protect))
        if writable and kept:
            raise PolicyError(
                f"{path} lies in {kept[0]}, which Policy(protect=…) keeps as it is; mount it with "
                "read_only=True",
                field="protect",
                value=path,
            )
        own = [("the workspace", root.real_path), ("leases", _state_directory())]
        if writable and self._saved is not None:
            own.append((self._saved[0], os.path.realpath(self._saved[1])))
        for what, tree in own:
            if is_within(source, tree) or is_within(tree, source):
                raise _bad_source(order, f"it is, contains or lies in {what}", "own")
        if writable and is_within(source, LIBRARY):
            raise _bad_source(order, "it is or lies in the library that makes this sandbox", "own")
        return source

    def _kept(self, real: str, source: int, path: str) -> tuple[KeptPart, ...]:
        """What of a source the policy protects, such as the hooks of repositories."""
        tree = Tree(path, real, Opener(source, path))
        found = survey_trees([tree], self._policy.protect)
        return tuple(
            KeptPart(part.path[len(path) :], part.inode, part.read_only)
            for part in found.parts
            if is_within(part.path, path)
        )


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be mounted.

    Attributes:
        entry: what, in words.
        path: where, absolute inside.
        op: the operation, for errors.
        source: path on the host of what it shows, or None.
    """

    entry: Mount
    path: str
    op: OpName
    source: str | None


def _late_mount(
    entry: Mount, point: MountPoint, parts: tuple[KeptPart, ...], *, as_owner: bool
) -> LateMount:
    """What the first process's maker is told."""
    common = partial(
        LateMount,
        target=point.path,
        inode=point.inode,
        writable=not entry.read_only,
        as_owner=as_owner,
    )
    if isinstance(entry, TmpfsMount | OverlayMount):
        inodes = entry.size // MOUNT_BYTES_PER_INODE
        made = partial(common, size=entry.size, inodes=inodes)
        return made("tmpfs") if isinstance(entry, TmpfsMount) else made("overlay")
    return common("bind", parts=parts)


def _answered(ask: Callable[[], int | Failure | None], path: str, op: OpName) -> int:
    """Mount something or take it out; what the kernel knows it by.

    Raises:
        MountFailedError: it could not be done.
        ConfinementUnavailableError: the program that does it can't be started.
    """
    try:
        answer = ask()
    except OSError as error:
        raise MountFailedError(
            f"{op} of {shown(path)} could not be tried: {error.strerror}",
            op=op,
            path=path,
            context={"errno": error.errno},
            cause=error,
            retryable=True,
        ) from error
    if not isinstance(answer, int):
        raise _refusal(answer, path, op)
    return answer


def _take_back(place: LatePlace, root: WorkspaceRoot, point: MountPoint, number: int) -> None:
    """Take out what nobody waits for any more; where it must stay, the file verbs keep out of it."""
    with suppress(SandboxError):
        _answered(partial(place.unmount, point.path, number), point.path, "unmount")
        remove_point(root, point)


def _opened(order: _Order) -> int:
    """Open a source, if it is a directory that can be found."""

    def ask() -> int | None:
        try:
            found = open_source(str(order.source))
        except ValueError as error:
            raise _bad_source(order, f"it can't be found: {error}", "not_found") from error
        if not isinstance(found, Failure):
            return found
        if found.error == errno.ENOTDIR:
            raise _bad_source(order, "it is not a directory", "not_a_directory")
        said = f"it can't be found: {os.strerror(found.error)}"
        raise _bad_source(order, said, "not_found")

    return _answered(ask, order.path, order.op)


def _state_directory() -> str:
    try:
        return os.path.realpath(state_directory(os.environ))
    except OSError as error:
        raise WorkspaceStartError(path="sandyard", cause=error) from error


def _place(init: InitProcess, op: OpName) -> LatePlace:
    try:
        return init.late_place()
    except SandboxEndedError as error:
        raise SessionClosedError(op=op, state="ended") from error
    except OSError as error:
        raise MountFailedError(
            f"the sandbox's mounts can't be reached: {error.strerror}; mount /proc for this "
            "program, and close descriptors if it has too many",
            op=op,
            path="/proc",
            context={"errno": error.errno},
            cause=error,
        ) from error


def _provider_failed(entry: Mount, path: str, op: OpName, error: Exception) -> MountFailedError:
    name = entry.provider if isinstance(entry, RemoteMount) else entry.type
    return MountFailedError(
        f"the provider {shown(name)} of the mount at {shown(path)} failed: {error}",
        op=op,
        path=path,
        context={"reason": "provider", "provider": name},
        cause=error,
    )


def _bad_source(order: _Order, why: str, reason: str) -> MountConfigError:
    return MountConfigError(
        f"{shown(order.source)} can't be mounted at {shown(order.path)}: {why}",
        op=order.op,
        path=order.path,
        context={"reason": reason, "source": order.source},
    )


def _refusal(answer: Failure | None, path: str, op: OpName) -> MountFailedError:
    """Say which step of a mount the kernel refused, and what to change."""
    if answer is None:
        return MountFailedError(
            f"{op} of {shown(path)} was given up: the program that does it ended or fell silent; "
            "look for an out-of-memory kill, or for a source on a network that does not answer",
            op=op,
            path=path,
            context={"reason": "silent"},
            retryable=True,
        )
    moved = answer.step in {Step.LATE_TARGET, Step.LATE_PART} and answer.error in _MOVED
    step = answer.step.name.lower()
    return MountFailedError(
        f"{op} of {shown(path)} failed: {os.strerror(answer.error)} [{step}]; {_advice(answer)}",
        op=op,
        path=path,
        context={
            "reason": "changing" if moved else "refused",
            "step": step,
            "errno": answer.error,
            "detail": answer.text,
        },
        retryable=moved,
    )


def _advice(answer: Failure) -> str:
    match answer.step:
        case Step.LATE_TARGET:
            return "something moved or replaced what leads to it; put that back, and try again"
        case Step.LATE_PART:
            return "something in the source changed meanwhile; try again"
        case Step.IDMAP:
            return (
                "the source's file system can't show its files as those of the sandbox's user "
                "(an idmapped mount); choose a source on another, such as ext4, xfs or btrfs"
            )
        case Step.LATE_MAKE if answer.error == errno.EOPNOTSUPP:
            return "an overlay in memory needs Linux 6.6; bind the directory, or copy it"
        case _:
            return f"look in the kernel's log ({answer.text})"
