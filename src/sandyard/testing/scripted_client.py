"""ScriptedClient: makes scripted sessions, for unit tests of code that is given a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sandyard.contract import BaseSandboxSession
from sandyard.contract.client import BaseSandboxClient
from sandyard.errors import ArgumentTypeError, UnsupportedOperationError, shown
from sandyard.finishing import in_thread
from sandyard.options import BaseSandboxClientOptions
from sandyard.snapshot.kinds import NoopSnapshot
from sandyard.snapshot.specs import resolve_snapshot
from sandyard.testing.scripted import ScriptedSession

if TYPE_CHECKING:
    from sandyard.manifest import Manifest
    from sandyard.snapshot.kinds import SnapshotBase
    from sandyard.snapshot.specs import SnapshotSpec
    from sandyard.state import SandboxSessionState

__all__ = ["ScriptedClient"]


class ScriptedClient(BaseSandboxClient[BaseSandboxClientOptions]):
    r"""Makes ``ScriptedSession``s for code under test that makes its sessions itself.

    Args:
        prepare: called with each session that is made, to write its script (default: none has one).

    Attributes:
        sessions: those that were made, in their order.
        deleted: those of them that were deleted.

    Example:
        >>> client = ScriptedClient(lambda session: session.answer("make", stdout="done\n"))
        >>> await build(client)  # the code under test
        >>> assert client.deleted == client.sessions
    """

    backend_id = "scripted"
    supports_default_options = True

    def __init__(self, prepare: Callable[[ScriptedSession], object] | None = None) -> None:
        if prepare is not None and not callable(prepare):
            raise ArgumentTypeError(
                f"prepare is a function of a ScriptedSession, not {shown(prepare)}",
                op="create",
                argument="prepare",
                value=prepare,
            )
        self.sessions: list[ScriptedSession] = []
        self.deleted: list[ScriptedSession] = []
        self._prepare = prepare

    async def create(
        self,
        *,
        snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None,
        manifest: Manifest | None = None,
        options: BaseSandboxClientOptions | None = None,
    ) -> ScriptedSession:
        """Make a session with the script that ``prepare`` gives it; it is not started yet.

        Args:
            snapshot: none, or one that saves nothing.
            manifest: of its entries, ``File`` and ``Dir`` are made.
            options: nothing.

        Raises:
            UnsupportedOperationError: there is a snapshot that saves something, or an option.
        """
        kept = await in_thread(resolve_snapshot, snapshot, "none")
        if not isinstance(kept, NoopSnapshot):
            raise self._lacks("create", "snapshot")
        if options is not None:
            raise self._lacks("create", "options")
        session = ScriptedSession(manifest=manifest)
        if self._prepare is not None:
            self._prepare(session)
        self.sessions.append(session)
        return session

    async def resume(self, state: SandboxSessionState) -> ScriptedSession:
        """Refused: nothing of a scripted session is kept.

        Raises:
            UnsupportedOperationError: always.
        """
        raise self._lacks("resume")

    async def delete(self, session: BaseSandboxSession) -> ScriptedSession:
        """Close a session, and remember that it was deleted.

        Raises:
            ArgumentTypeError: it is none of this client's.
        """
        own = next((one for one in self.sessions if one is session), None)
        if own is None:
            raise ArgumentTypeError(
                "session is one that this ScriptedClient made",
                op="delete",
                argument="session",
                value=session,
            )
        await own.aclose()
        if own not in self.deleted:
            self.deleted.append(own)
        return own

    def _lacks(self, method: str, argument: str | None = None) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            op="resume" if method == "resume" else "create",
            method=method,
            session=type(self).__name__,
            argument=argument,
        )
