"""The contract of a session's life: start, stop, the end, and what is done on the way."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sandyard.contract.optional import optional
from sandyard.errors import ArgumentTypeError, ExposedPortUnavailableError, SandboxError
from sandyard.finishing import each_in_turn
from sandyard.limits import PORT_WAIT_TIMEOUT_S

if TYPE_CHECKING:
    from sandyard.dependencies import Dependencies
    from sandyard.endpoint import ExposedPortEndpoint
    from sandyard.state import SandboxSessionState
    from sandyard.workspace.progress import Hearer

__all__ = ["Hook", "LifeContract"]

Hook = Callable[[], Awaitable[None]]
"""What is done before a session's last stop."""


class LifeContract(ABC):
    """How a session begins and ends.

    Attributes:
        state: what identifies the session, and is needed to resume it: a document.
    """

    state: SandboxSessionState
    _hooks: tuple[Hook, ...] = ()
    _dependencies: Dependencies | None = None
    _closing: asyncio.Lock | None = None
    _closer: asyncio.Task[object] | None = None
    _closed: bool = False

    @abstractmethod
    async def start(self, *, progress: Hearer | None = None) -> None:
        """Make the workspace ready, and the sandbox around it.

        Starting a running session does nothing. One that was shut down may be started again, one that
        was closed may not.

        Args:
            progress: called with the newest ``Progress`` of the manifest's entries.

        Raises:
            WorkspaceStartError: it can't be started, and why; nothing is left running.
            SessionClosedError: the session is closed.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Save the workspace to the session's snapshot; the session goes on.

        Raises:
            WorkspaceStopError: it can't be saved; what was saved before is whole.
        """

    @abstractmethod
    async def shutdown(self) -> None:
        """End all that runs, and the sandbox; the workspace stays. Doing it again does nothing."""

    @abstractmethod
    async def running(self) -> bool:
        """Tell whether commands can run now."""

    async def aclose(self) -> None:
        """Run the hooks, stop, shut down and close the dependencies, whatever of it fails.

        The workspace is not deleted; the client's ``delete`` does that. Doing it again does nothing.

        Raises:
            Exception: the first error of these; all else is done.
        """
        await self._in_one_close(self._close_all)

    async def __aenter__(self) -> Self:
        """Start the session; what can't be started is closed."""
        try:
            await self.start()
        except BaseException as error:
            # Leaving the block will not be asked of us.
            try:
                await self.aclose()
            except SandboxError as other:
                error.add_note(f"besides, it could not be closed: {other}")
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session."""
        await self.aclose()

    # --- before the last stop ---------------------------------------------------------------------

    def register_pre_stop_hook(self, hook: Hook) -> None:
        """Have something done before the session's workspace is saved for the last time.

        Args:
            hook: an asynchronous function without arguments. It may use the session, and is called
                once: by ``run_pre_stop_hooks`` or, at the latest, by ``aclose``.

        Raises:
            ArgumentTypeError: it can't be called.
        """
        if not callable(hook):
            raise ArgumentTypeError(
                "hook is an asynchronous function without arguments",
                op="stop",
                argument="hook",
                value=hook,
            )
        self._hooks += (hook,)

    async def run_pre_stop_hooks(self) -> None:
        """Run the hooks that were registered and have not run yet, in their order.

        All of them run, also if one fails, and none of them runs twice. A hook that fails does not
        keep ``aclose`` from saving the workspace.

        Raises:
            Exception: the first error of a hook.
        """
        hooks, self._hooks = self._hooks, ()
        await each_in_turn(hooks)

    @optional("persist_workspace")
    def register_persist_workspace_skip_path(self, path: str | PurePath) -> PurePath:
        """Leave a path, with all beneath it, out of what is saved of the workspace.

        Args:
            path: relative to the workspace, and not the workspace itself.

        Returns:
            The path in normal form.

        Raises:
            InvalidManifestPathError: it is absolute, or has ``..``.
        """
        raise NotImplementedError

    # --- what it is and has -----------------------------------------------------------------------

    def describe(self) -> str:
        """Draw what the manifest says of the workspace as a tree, for a model's instructions."""
        return self.state.manifest.describe()

    async def resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        """Tell where a port that the session was made with is reached.

        Raises:
            ExposedPortUnavailableError: it was made without it, or this kind of session has no ports.
        """
        exposed = self.state.exposed_ports
        raise ExposedPortUnavailableError(
            port=port,
            exposed_ports=exposed,
            reason="backend_unavailable" if port in exposed else "not_configured",
        )

    @optional("wait_for_port")
    async def wait_for_port(
        self, port: int, *, timeout: float = PORT_WAIT_TIMEOUT_S
    ) -> ExposedPortEndpoint:
        """Wait until a server takes connections on such a port, and tell where it is reached.

        Args:
            port: as ``resolve_exposed_port``.
            timeout: seconds to wait (default: 30).

        Raises:
            ExposedPortTimeoutError: nobody listened in time.
        """
        raise NotImplementedError

    def supports_pty(self) -> bool:
        """Tell whether it has terminals, and the ``pty_`` methods; False unless a kind says so."""
        return False

    def supports_docker_volume_mounts(self) -> bool:
        """Tell whether volumes of a container engine can be mounted; False unless a kind says so."""
        return False

    def should_provision_manifest_accounts_on_resume(self) -> bool:
        """Tell whether users and groups of the manifest are made anew when a session is resumed.

        True unless a kind keeps them.
        """
        return True

    @property
    def dependencies(self) -> Dependencies:
        """What its client gave it, and what was made of that; the session closes it at its end."""
        if self._dependencies is None:
            from sandyard.dependencies import Dependencies  # noqa: PLC0415  # few programs use them

            self._dependencies = Dependencies()
        return self._dependencies

    def set_dependencies(self, dependencies: Dependencies | None) -> None:
        """Give the session other dependencies, which it closes at its end; None changes nothing."""
        if dependencies is not None:
            self._dependencies = dependencies

    @property
    def _inner(self) -> Self:
        """The session itself: code that was written for wrapped sessions asks for what is inside."""
        return self

    # --- inside -----------------------------------------------------------------------------------

    async def _in_one_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close the session, one close after the other.

        A hook that closes its session is in the midst of one already.
        """
        own = asyncio.current_task()
        if own is not None and self._closer is own:
            return
        self._closing = self._closing or asyncio.Lock()
        async with self._closing:
            self._closer = own
            try:
                await close()
            finally:
                self._closer = None

    async def _close_all(self) -> None:
        if not self._closed:
            self._closed = True
            await each_in_turn(
                (
                    self.run_pre_stop_hooks,
                    self.stop,
                    self.shutdown,
                    self._close_dependencies,
                )
            )

    async def _close_dependencies(self) -> None:
        dependencies, self._dependencies = self._dependencies, None
        if dependencies is not None:
            await dependencies.aclose()
