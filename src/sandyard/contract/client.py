"""The contract of clients: what makes sessions, takes them up again, and deletes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from sandyard.errors import ArgumentTypeError, shown
from sandyard.state import SandboxSessionState

if TYPE_CHECKING:
    from sandyard.contract import BaseSandboxSession
    from sandyard.manifest import Manifest
    from sandyard.options import BaseSandboxClientOptions
    from sandyard.snapshot.kinds import SnapshotBase
    from sandyard.snapshot.specs import SnapshotSpec

__all__ = ["BaseSandboxClient", "ClientOptionsT"]

ClientOptionsT = TypeVar("ClientOptionsT", bound="BaseSandboxClientOptions")
"""What a kind of client is asked for."""


class BaseSandboxClient(ABC, Generic[ClientOptionsT]):
    """Makes sessions of one kind, whatever holds their sandboxes.

    Attributes:
        backend_id: tag of the kind, as its states and options have it.
        supports_default_options: whether ``create`` does without options.
    """

    backend_id: ClassVar[str]
    supports_default_options: ClassVar[bool] = False

    @abstractmethod
    async def create(
        self,
        *,
        snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None,
        manifest: Manifest | None = None,
        options: ClientOptionsT | None = None,
    ) -> BaseSandboxSession:
        """Make a session; it is not started yet.

        Args:
            snapshot: where ``stop`` saves its workspace (default: nowhere).
            manifest: what its workspace is made of (default: nothing).
            options: what this kind of client may be asked for besides; None (default) where
                ``supports_default_options``.

        Raises:
            ArgumentError, ArgumentTypeError: an argument is impossible.
            ManifestError: the manifest asks for what this kind does not have.
        """

    @abstractmethod
    async def resume(self, state: SandboxSessionState) -> BaseSandboxSession:
        """Take up a session where it was left; it is not started yet.

        Args:
            state: its ``state``, as it was or read back. It is not changed.

        Raises:
            ArgumentTypeError: it is no state of this client's kind.
        """

    @abstractmethod
    async def delete(self, session: BaseSandboxSession) -> BaseSandboxSession:
        """Close a session, and delete what was made for it. Doing it again does nothing.

        Raises:
            ArgumentTypeError: it is no session of this client's kind.
        """

    def serialize_session_state(self, state: SandboxSessionState) -> dict[str, object]:
        """Give a session's state as what JSON can say; no secret value is in it.

        Raises:
            ArgumentTypeError: it is no state.
        """
        if not isinstance(state, SandboxSessionState):
            raise ArgumentTypeError(
                f"state is a session's state, not {shown(state)}",
                op="resume",
                argument="state",
                value=state,
            )
        return state.model_dump(mode="json")

    def deserialize_session_state(self, payload: Mapping[str, object]) -> SandboxSessionState:
        """Read a session's state back; the payload is not changed.

        Raises:
            ArgumentError, ArgumentTypeError: the payload is none.
        """
        return SandboxSessionState.parse(payload)
