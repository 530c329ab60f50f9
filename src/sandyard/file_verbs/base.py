"""What all file verbs need of a session: its workspace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sandyard.observing import Observable

if TYPE_CHECKING:
    from sandyard.errors import OpName
    from sandyard.types import User
    from sandyard.workspace import Workspace

__all__ = ["VerbBase"]


class VerbBase(Observable, ABC):
    """What a session lends to its file verbs."""

    @abstractmethod
    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        """The workspace, if the session is in a phase in which ``op`` is possible.

        Raises:
            SessionClosedError: it is not.
            ArgumentError, ArgumentTypeError: there is no such user inside.
        """
