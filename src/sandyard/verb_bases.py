"""What the verbs of a session need of it: its workspace, its commands, and the phase that it is in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sandyard.observing import Observable

if TYPE_CHECKING:
    from sandyard.calls import CommandRequest
    from sandyard.errors import OpName
    from sandyard.explaining import Explainer
    from sandyard.ladder import Ladder
    from sandyard.manifest import Manifest
    from sandyard.policy import Policy
    from sandyard.process import CommandCall, Commands
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.types import User
    from sandyard.workspace import Workspace

__all__ = ["CommandVerbBase", "VerbBase", "WorkspaceVerbBase"]


class VerbBase(Observable, ABC):
    """What a session lends to all of its verbs."""

    policy: Policy
    state: UnixLocalSandboxSessionState
    _explainer: Explainer
    _ladder: Ladder

    @abstractmethod
    def _check_open(self, op: OpName) -> None:
        """Refuse an operation that is not possible in this phase, or not on this loop.

        Raises:
            SessionClosedError: it is not.
        """

    @abstractmethod
    def _present_manifest(self) -> Manifest:
        """What should exist in the workspace."""


class WorkspaceVerbBase(VerbBase):
    """What it lends to verbs that use its workspace."""

    @abstractmethod
    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        """The workspace, if the session is in a phase in which ``op`` is possible.

        Raises:
            SessionClosedError: it is not.
            ArgumentError, ArgumentTypeError: there is no such user inside.
        """


class CommandVerbBase(VerbBase):
    """What it lends to verbs that start something inside."""

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
