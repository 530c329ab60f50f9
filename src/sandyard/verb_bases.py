"""What the verbs of a session need of it: its workspace, its commands, and the phase that it is in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sandyard.observing import Followed, Observable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sandyard.calls import CommandRequest
    from sandyard.endpoint import ExposedPortEndpoint
    from sandyard.errors import OpName
    from sandyard.explaining import Explainer
    from sandyard.ladder import Ladder
    from sandyard.lifecycle import Phase, Processes
    from sandyard.manifest import Manifest
    from sandyard.policy import Policy
    from sandyard.process import CommandCall, Commands
    from sandyard.process.init import InitProcess
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.types import User
    from sandyard.workspace import Workspace
    from sandyard.workspace.layered_place import LayeredPlace
    from sandyard.workspace.lease import Lease

__all__ = ["CommandVerbBase", "VerbBase", "WorkspaceVerbBase"]


class VerbBase(Observable, ABC):
    """What a session lends to all of its verbs."""

    policy: Policy
    state: UnixLocalSandboxSessionState
    _explainer: Explainer
    _ladder: Ladder
    _phase: Phase

    def __repr__(self) -> str:
        """Show which it is and how it stands; nothing that may be a secret."""
        identity, root = self.state.session_id.hex, self.state.manifest.root
        return f"<{type(self).__name__} {identity} {root!r}: {self._phase.value}>"

    @abstractmethod
    def _check_open(self, op: OpName) -> None:
        """Refuse an operation that is not possible in this phase, or not on this loop.

        Raises:
            SessionClosedError: it is not.
        """

    @abstractmethod
    def _present_manifest(self) -> Manifest:
        """What should exist in the workspace."""

    @abstractmethod
    async def wait_for_port(self, port: int, *, timeout: float = ...) -> ExposedPortEndpoint:
        """Wait until a server inside takes connections."""

    @abstractmethod
    def _quieted(self, processes: Processes, op: OpName) -> AbstractAsyncContextManager[None]:
        """What is done with what runs before the workspace is saved or copied, in the block.

        Raises:
            ArgumentError: ``processes`` is no such word.
            WorkspaceStopError: something could not be held still.
        """


class WorkspaceVerbBase(VerbBase):
    """What it lends to verbs that use its workspace."""

    _lease: Lease

    def _layered_place(self) -> LayeredPlace | None:
        """Where the changes are, if the workspace lies upon layers."""
        if not self.state.workspace_layered:
            return None
        from sandyard.workspace.layered_place import LayeredPlace  # noqa: PLC0415  # few do

        return LayeredPlace(self._lease)

    @abstractmethod
    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        """The workspace, if the session is in a phase in which ``op`` is possible.

        Raises:
            SessionClosedError: it is not.
            ArgumentError, ArgumentTypeError: there is no such user inside.
        """


class CommandVerbBase(VerbBase):
    """What it lends to verbs that start something inside."""

    _followed: Followed | None = None

    @abstractmethod
    def _running_commands(self, op: OpName = "exec") -> Commands:
        """The commands of the running sandbox.

        Raises:
            SessionClosedError: there is none.
        """

    @abstractmethod
    async def _prepared(self, request: CommandRequest) -> CommandCall:
        """A call that is ready to run.

        Raises:
            ArgumentError, ArgumentTypeError: an argument is impossible.
        """

    async def _follow(
        self,
        op: OpName,
        about: tuple[str, str, tuple[str, ...]],
        end: Callable[[], Awaitable[object]],
    ) -> None:
        """Tell whoever hears of this session what runs from now on, and how it ends."""
        if self.observer is not None:
            await self._followers().follow(self.observer, op, about, end)

    def _hear_refusals(self, init: InitProcess) -> None:
        """Tell what processes are refused that have outlived their commands, once they have ended.

        And listen to what the audit tells of all, where it does.
        """
        observer = self.observer
        if observer is not None:
            followed = self._followers()
            init.unowned.heard = lambda calls: followed.report(observer, "refused_calls", calls)
        if init.owner is not None:  # the audit tells root alone
            self._explainer.listen(init.owner[0])

    async def _tell_ends(self) -> None:
        """Tell the ends of all that ran, now that the sandbox has ended."""
        self._explainer.close()
        if self._followed is not None:
            await self._followed.settle()

    def _followers(self) -> Followed:
        self._followed = self._followed or Followed()
        return self._followed
