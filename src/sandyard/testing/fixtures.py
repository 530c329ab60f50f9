"""What the fixtures of the pytest plugin own: a client whose sessions are all deleted, and a session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest

from sandyard.client import UnixLocalSandboxClient
from sandyard.contract import BaseSandboxSession
from sandyard.errors import ConfinementUnavailableError
from sandyard.finishing import in_thread
from sandyard.manifest import Manifest
from sandyard.options import UnixLocalSandboxClientOptions
from sandyard.policy import Policy
from sandyard.session import UnixLocalSandboxSession

__all__ = ["FixtureClient", "marked_client", "marked_session"]

_WORDS: Final = ("manifest", "policy", "exposed_ports", "unavailable")
_CHOICES: Final = ("error", "skip")


class FixtureClient(UnixLocalSandboxClient):
    """A client that knows which of its sessions have not been deleted, and of which loop each is.

    Attributes:
        manifest: what the session of the ``sandbox`` fixture is made of, unless the test is marked.
        left: its sessions, each with the loop that it was made on.
    """

    def __init__(self, policy: Policy | None) -> None:
        super().__init__(policy=policy)
        self.manifest: Manifest | None = None
        self.left: dict[UnixLocalSandboxSession, asyncio.AbstractEventLoop] = {}

    def _furnished(self, session: UnixLocalSandboxSession) -> UnixLocalSandboxSession:
        self.left[session] = asyncio.get_running_loop()
        return super()._furnished(session)

    async def delete(
        self, session: BaseSandboxSession, *, unsaved: bool = False
    ) -> UnixLocalSandboxSession:
        """Delete a session, which is then no longer left; what was made for it has to be gone."""
        deleted = await super().delete(session, unsaved=unsaved)
        self.left.pop(deleted, None)
        root = deleted.state.host_root
        if deleted.state.workspace_root_owned and await in_thread(os.path.lexists, root):
            raise AssertionError(f"{root} is left of a sandbox that was deleted")
        return deleted

    def delete_left(self) -> None:
        """Delete the sessions that a test left; all of them, then the first error is raised."""
        first: Exception | None = None
        for session, loop in tuple(self.left.items()):
            try:
                self._delete_on(loop, session)
            except Exception as error:  # noqa: BLE001  # a border: raised below, the others go on
                first = first or error
        if first is not None:
            raise first

    def _delete_on(self, loop: asyncio.AbstractEventLoop, session: UnixLocalSandboxSession) -> None:
        """Delete a session on its own loop, if there still is one."""
        deletion = self.delete(session, unsaved=True)
        if loop.is_closed():
            asyncio.run(deletion)
        elif loop.is_running():  # in another thread
            asyncio.run_coroutine_threadsafe(deletion, loop).result()
        else:
            loop.run_until_complete(deletion)


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the markers of a test say; those next to it are laid over those of its class and module."""
    said: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("sandbox"))):
        odd = sorted(set(marker.kwargs) - set(_WORDS))
        if odd or marker.args:
            known = ", ".join(f"{word}=" for word in _WORDS)
            what = ", ".join(f"{word}=" for word in odd) or "arguments without a name"
            pytest.fail(f"@pytest.mark.sandbox takes {known}, not {what}", pytrace=False)
        said |= marker.kwargs
    return said


def _is_skipped(request: pytest.FixtureRequest, marked: dict[str, Any]) -> bool:
    """Whether a test is skipped where its policy can't be enforced."""
    choice = marked.get("unavailable", request.config.getini("sandbox_unavailable"))
    if choice not in _CHOICES:
        pytest.fail(
            f"sandbox_unavailable, and unavailable= of a marker, is error or skip, not {choice!r}",
            pytrace=False,
        )
    return bool(choice == "skip")


@contextmanager
def marked_client(
    request: pytest.FixtureRequest, policy: Policy | None
) -> Iterator[UnixLocalSandboxClient]:
    """A client for one test; leaving the block deletes the sessions that are left."""
    marked = _marked(request)
    try:
        client = FixtureClient(marked.get("policy", policy))
    except ConfinementUnavailableError as error:
        if _is_skipped(request, marked):
            pytest.skip(error.message)
        raise
    try:
        yield client
    finally:
        client.delete_left()


@asynccontextmanager
async def marked_session(
    request: pytest.FixtureRequest, client: FixtureClient
) -> AsyncIterator[UnixLocalSandboxSession | ConfinementUnavailableError]:
    """A session that runs, deleted at the end of the block; or why the test is skipped."""
    marked = _marked(request)
    skipped = _is_skipped(request, marked)
    ports = marked.get("exposed_ports", ())
    session = await client.create(
        manifest=marked.get("manifest", client.manifest),
        options=UnixLocalSandboxClientOptions(ports) if ports else None,
    )
    try:
        try:
            await session.start()
        except ConfinementUnavailableError as error:
            if not skipped:
                raise
            yield error
        else:
            yield session
    finally:
        await client.delete(session, unsaved=True)
