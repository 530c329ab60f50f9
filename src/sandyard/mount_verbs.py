"""The mount verbs of a session: show something in it without copying, and take it out again."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from sandyard.errors import ArgumentTypeError, SessionClosedError
from sandyard.manifest import Mount
from sandyard.observing import observed
from sandyard.snapshot.kinds import host_directory
from sandyard.verb_bases import VerbBase

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePath

    from sandyard.errors import OpName
    from sandyard.manifest.mounts import MountProvider
    from sandyard.mounting import Mounts
    from sandyard.process import InitProcess
    from sandyard.workspace import WorkspaceRoot

__all__ = ["MountVerbs"]


class MountVerbs(VerbBase):
    """What a session does with mounts, while it runs."""

    _init: InitProcess | None
    _root: WorkspaceRoot | None
    _providers: Mapping[str, MountProvider] | None = None
    _mounts: Mounts | None = None

    @abstractmethod
    async def _end_sandbox(self) -> None:
        """End the sandbox, and the mounts with it."""

    def provide(self, providers: Mapping[str, MountProvider]) -> None:
        """Take over who makes remote mounts; ``UnixLocalSandboxClient`` calls this."""
        self._providers = providers

    @observed("mount")
    async def mount(self, path: str | PurePath, entry: Mount) -> str:
        """Mount something in the running sandbox, for commands to use from now on.

        It stands until ``unmount``, or the end of the sandbox, whatever happens to this program. The
        file verbs of the session keep out of it: what is there, only commands see.

        Args:
            path: an empty directory of the workspace, relative to it or absolute; it is made if it
                is missing. The entry's own ``mount_path`` is not looked at.
            entry: a ``BindMount``, ``TmpfsMount``, ``OverlayMount`` or ``RemoteMount``.

        Returns:
            Where it stands, absolute.

        Raises:
            MountConfigError: the directory is not empty, or the source can't be shown.
            MountFailedError: the kernel or a provider refused, or the source's file server does not
                answer; nothing is mounted.
            PolicyError: the policy denies or protects the source, or it can't be granted.
            PolicyDeniedError: the policy keeps what is at ``path``.
            ConfinementUnavailableError: this session's rung has no mounts.
            InvalidManifestPathError: ``path`` leaves the workspace.
            SessionClosedError: the session is not running.

        Example:
            >>> await session.mount("data", BindMount(source="/srv/data"))
            '/tmp/sandbox-local-…/data'
            >>> result = await session.exec("ls data")
        """
        init, root = self._mounting("mount")
        if not isinstance(entry, Mount):
            raise ArgumentTypeError(
                "entry is a mount, such as BindMount(source=…)",
                op="mount",
                argument="entry",
                value=entry,
            )
        where = await self._needed_mounts().add(init, root, path, entry)
        self._tell_mounts()
        return where

    @observed("unmount")
    async def unmount(self, path: str | PurePath) -> None:
        """Take a mount out of the running sandbox.

        New uses of the path find the empty directory that it covered, which is removed if ``mount``
        made it, with empty directories above it that it made. What commands have open in it, or work in, they keep until they close it or end.

        Args:
            path: where it stands, relative to the workspace or absolute.

        Raises:
            MountConfigError: nothing is mounted there.
            MountFailedError: a command has moved a directory on the way there, or a provider failed.
            SessionClosedError: the session is not running.
        """
        init, root = self._mounting("unmount")
        try:
            await self._needed_mounts().remove(init, root, path)
        finally:
            self._tell_mounts()

    def mounts(self) -> dict[str, Mount]:
        """Return what is mounted, by its absolute path inside; nothing while no sandbox stands."""
        return {} if self._mounts is None else self._mounts.present()

    async def _mount_entries(self, root: WorkspaceRoot) -> None:
        """Mount what the manifest names; where that can't be done, nothing is left of the start."""
        init = self._init
        assert init is not None  # noqa: S101  # the step before has built the sandbox
        try:
            for path, entry in self._present_manifest().mounts():
                await self._needed_mounts().add(init, root, path, entry, "start")
            self._tell_mounts()
        except BaseException:
            await self._end_sandbox()
            raise

    def _tell_mounts(self) -> None:
        """Let explanations know of what is mounted."""
        enforced = self._explainer.enforced
        if self._mounts is not None and enforced is not None:
            present = self._mounts.present().items()
            mounts = tuple((path, not entry.read_only) for path, entry in present)
            self._explainer.learn(replace(enforced, mounts=mounts))

    def _mounting(self, op: OpName) -> tuple[InitProcess, WorkspaceRoot]:
        self._check_open(op)
        if self._init is None or self._root is None:
            raise SessionClosedError(op=op, state="shut down")
        return self._init, self._root

    async def _end_mounts(self) -> None:
        if self._mounts is not None:
            try:
                await self._mounts.close()
            finally:
                self._tell_mounts()

    def _mounted_paths(self) -> frozenset[tuple[str, ...]]:
        named = (tuple(path.split("/")) for path, _ in self._present_manifest().mounts())
        return frozenset(named) | (self._mounts.unsaved() if self._mounts else frozenset())

    def _needed_mounts(self) -> Mounts:
        from sandyard.mounting import Mounts  # noqa: PLC0415  # few sessions mount

        self._ladder.check_mounts()
        if self._mounts is None:
            saved = host_directory(self.state.snapshot)
            self._mounts = Mounts(self.policy, self._providers or {}, saved)
        return self._mounts
