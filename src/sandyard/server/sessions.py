"""Owns the sessions that a server holds: made, found by id or name, ended."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import ValidationError

from sandyard.changes import Layered, Overlay
from sandyard.client import UnixLocalSandboxClient
from sandyard.errors import (
    ArgumentError,
    OpName,
    PolicyError,
    SandboxError,
    SessionNotFoundError,
    shown,
)
from sandyard.finishing import finished, in_thread
from sandyard.manifest import DEFAULT_ROOT, Manifest
from sandyard.manifest.base import manifest_error
from sandyard.platform import is_within
from sandyard.policy import Policy
from sandyard.server.limits import SESSION_NAME_CHARS, SESSIONS_GONE_KEPT
from sandyard.server.messages import Create, Fork
from sandyard.server.outcomes import SessionInfo
from sandyard.server.records import SessionRecord
from sandyard.session import UnixLocalSandboxSession
from sandyard.state import UnixLocalSandboxSessionState

__all__ = ["HeldSession", "Sessions"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHORT_ID: Final = 12


class HeldSession:
    """One session that is held.

    Attributes:
        id: its id.
        name: what it is called.
        session: the session.
        created: when it was made, in seconds since 1970.
        client: the client that made it.
    """

    def __init__(
        self, client: UnixLocalSandboxClient, session: UnixLocalSandboxSession, name: str | None
    ) -> None:
        """Hold a session."""
        self.id = session.state.session_id.hex
        self.name = name or self.id[:_SHORT_ID]
        self.session = session
        self.created = time.time()
        self.client = client

    @property
    def history(self) -> str:
        """The history of its snapshots in the store: its name, as far as one may be called so."""
        return self.name.rstrip(".")

    async def info(self) -> SessionInfo:
        """How it is."""
        running = await self.session.running()
        alive = 0
        if running:
            alive += sum(one.state != "ended" for one in self.session.processes())
            alive += sum(one.exit_code is None for one in self.session.terminals())
        held, forked = self.session.confinement, self.session.forked
        return SessionInfo(
            id=self.id,
            name=self.name,
            state=_phase(self.session, running=running),
            workspace=self.session.state.manifest.root,
            private=self.session.state.workspace_root_owned,
            created=self.created,
            processes=alive,
            confinement=None if held is None else held.document(),
            forked=None if forked is None else forked.way,
            basis=_basis(self.session.state, forked=forked is not None),
        )

    async def end(self) -> None:
        """End it, and delete its workspace if it is private.

        Raises:
            WorkspaceStopError: something in the workspace can't be removed.
        """
        await self.client.delete(self.session)


def _phase(
    session: UnixLocalSandboxSession, *, running: bool
) -> Literal["created", "running", "ended"]:
    if running:
        return "running"
    return "created" if session.confinement is None else "ended"


def _basis(
    state: UnixLocalSandboxSessionState, *, forked: bool
) -> Literal["plain", "copy", "overlay", "layers"]:
    if state.workspace_overlay:
        return "overlay"
    if state.workspace_layered:
        return "layers"
    return "copy" if forked else "plain"


class Sessions:
    """The sessions of one server, and of one event loop.

    Args:
        closed: directories that no session may reach, such as the server's own socket.
        gone: sessions of a former server that was killed.
        noted: hears of the sessions that there are, whenever that changes; it may block.
    """

    def __init__(
        self,
        *,
        closed: Iterable[str] = (),
        gone: Iterable[SessionRecord] = (),
        noted: Callable[[tuple[SessionRecord, ...]], None] | None = None,
    ) -> None:
        self._closed = tuple(closed)
        self._gone = deque(
            (SessionInfo(id=one.id, name=one.name, state="lost") for one in gone),
            SESSIONS_GONE_KEPT,
        )
        self._removed = deque[SessionInfo](maxlen=SESSIONS_GONE_KEPT)
        self._noted = noted
        self._held: dict[str, HeldSession] = {}
        self._coming: set[str] = set()  # names of sessions that are being made
        self._noting = asyncio.Lock()

    def __len__(self) -> int:
        """How many are held, or being made."""
        return len(self._held) + len(self._coming)

    async def create(self, request: Create) -> HeldSession:
        """Make a session, and start it; whoever is cancelled meanwhile leaves none.

        Raises:
            ArgumentError: there can be no session of this name, or an argument is impossible.
            ManifestError: the manifest makes no sense.
            SandboxError: what ``client.create`` and ``session.start`` raise.
        """
        name = self._checked_name(request.name)
        try:
            manifest = Manifest.model_validate(request.manifest)
        except ValidationError as error:
            raise manifest_error(error) from error
        if request.layered and request.overlay is not None:
            raise ArgumentError(
                "a workspace is an overlay or lies upon layers, not both; leave one of the two out",
                op="create",
                argument="layered",
                value=request.layered,
            )
        policy = await in_thread(self._apart, request.policy, manifest, request.overlay)
        client = UnixLocalSandboxClient(
            policy=policy, environ=request.environ, directory=request.directory
        )

        layers = Layered() if request.layered else None

        async def make() -> UnixLocalSandboxSession:
            if request.snapshot is None:
                return await client.create(
                    manifest=manifest,
                    options={"exposed_ports": request.exposed_ports},
                    workspace=layers if request.overlay is None else Overlay(request.overlay),
                    shared=True,
                )
            for name in ("exposed_ports", "overlay"):
                if getattr(request, name):
                    raise _not_of_snapshots(name, getattr(request, name))
            return await client.fork(request.snapshot, manifest=manifest, workspace=layers)

        return await self._held_new(client, name, make, start=request.start)

    async def fork(self, request: Fork) -> HeldSession:
        """Make a session from the same point as another, and start it.

        Raises:
            SessionNotFoundError: there is no such session.
            ArgumentError: there can be no session of this name.
            SandboxError: what ``client.fork`` and ``session.start`` raise.
        """
        name, parent = self._checked_name(request.name), self.find(request.session, "fork")
        return await self._held_new(
            parent.client,
            name,
            lambda: parent.client.fork(parent.session, processes=request.processes),
            start=True,
        )

    async def _held_new(
        self,
        client: UnixLocalSandboxClient,
        name: str | None,
        make: Callable[[], Awaitable[UnixLocalSandboxSession]],
        *,
        start: bool,
    ) -> HeldSession:
        """Have a session made, start it if that is wanted, and hold it."""
        place = name or f" {id(make)}"  # no name has a space
        self._coming.add(place)
        try:
            session = await make()
            try:
                if start:
                    await session.start()
                held = HeldSession(client, session, name)
                self._held[held.id] = held
                await self._note()
            except BaseException:
                self._held.pop(session.state.session_id.hex, None)
                await finished(_ended(client, session))
                raise
        finally:
            self._coming.discard(place)
        return held

    def find(self, which: str, op: OpName = "connect") -> HeldSession:
        """A session by its name, its id, or the beginning of its id.

        Raises:
            SessionNotFoundError: there is none, or there are several.
        """
        for held in self._held.values():
            if which in (held.name, held.id):
                return held
        begun = [held for key, held in self._held.items() if which and key.startswith(which)]
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise SessionNotFoundError(
                which=which,
                op=op,
                message=f"{len(begun)} sessions have an id that begins with {shown(which)}; give more",
                reason="ambiguous",
            )
        for one in reversed(self.gone()):
            if which and which in (one.name, one.id[: len(which)]):
                raise _no_more(which, one, op)
        raise SessionNotFoundError(which=which, op=op)

    async def listed(self) -> tuple[SessionInfo, ...]:
        """All that are held, oldest first."""
        return tuple([await held.info() for held in tuple(self._held.values())])

    def gone(self) -> tuple[SessionInfo, ...]:
        """Those that are no more, oldest first, as far as they are remembered."""
        return (*self._gone, *self._removed)

    async def delete(self, held: HeldSession) -> None:
        """End a session; it is listed no more, whatever becomes of its files.

        Raises:
            WorkspaceStopError: something in its workspace can't be removed.
        """
        info = await held.info()
        if self._held.pop(held.id, None) is None:
            raise SessionNotFoundError(which=held.name, op="delete")
        changed = {"state": "removed", "removed": time.time(), "processes": 0}
        self._removed.append(info.model_copy(update=changed))
        try:
            await finished(held.end())
        finally:
            await self._note()

    async def close(self) -> tuple[SandboxError, ...]:
        """End all of them; returns what went wrong."""
        held, self._held = tuple(self._held.values()), {}
        ended = await asyncio.gather(*(finished(one.end()) for one in held), return_exceptions=True)
        await self._note()
        return tuple(error for error in ended if isinstance(error, SandboxError))

    def _checked_name(self, name: str | None) -> str | None:
        if name is None:
            return None
        if len(name) > SESSION_NAME_CHARS or not _NAME.fullmatch(name):
            raise ArgumentError(
                f"a name has letters, digits, '.', '_' and '-', at most {SESSION_NAME_CHARS} of them, "
                "and begins with a letter or digit",
                op="create",
                argument="name",
                value=name,
            )
        if name in self._coming or any(name in (one.name, one.id) for one in self._held.values()):
            raise ArgumentError(
                f"there is a session called {name} already; choose another name, or end it: "
                f"sandyard rm {name}",
                op="create",
                argument="name",
                value=name,
            )
        return name

    def _apart(self, policy: Policy, manifest: Manifest, overlay: str | None) -> Policy:
        """The policy, with what belongs to the server closed wherever the session would see it.

        A command that reached the server's socket could ask it for a session without walls.

        Raises:
            PolicyError: the policy has no wall, behind which nothing is closed.
        """
        if policy.unconfined:
            raise PolicyError(
                "a session that a server holds can't be unconfined: its commands would reach the server "
                "itself; use UnixLocalSandboxClient in a program of your own",
                field="unconfined",
                value=True,
            )
        given = [*policy.reads, *policy.writes, *(g.path for g in manifest.extra_path_grants)]
        mounted = (entry.host_directory() for _, entry in manifest.mounts())
        given += [found[0] for found in mounted if found is not None]
        if manifest.root != DEFAULT_ROOT:
            given.append(manifest.root)
        if overlay is not None:
            given.append(overlay)
        trees = [os.path.realpath(path) for path in given]
        shut = [
            place
            for place in map(os.path.realpath, self._closed)
            if any(is_within(place, tree) or is_within(tree, place) for tree in trees)
        ]
        return replace(policy, deny=(*policy.deny, *shut)) if shut else policy

    async def _note(self) -> None:
        if self._noted is None:
            return
        async with self._noting:
            records = tuple(SessionRecord(one.id, one.name) for one in self._held.values())
            await in_thread(self._noted, records)


def _not_of_snapshots(argument: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"a session that begins with a snapshot has no {argument} yet; leave one of the two out",
        op="create",
        argument=argument,
        value=value,
    )


def _no_more(which: str, info: SessionInfo, op: OpName) -> SessionNotFoundError:
    """Say what became of a session."""
    what = "the supervisor that held it was killed, which ended all that ran in it"
    if info.removed is not None:
        when = datetime.fromtimestamp(info.removed, UTC).astimezone().strftime("%H:%M:%S")
        what = f"it was removed at {when}, as by sandyard rm"
    return SessionNotFoundError(
        which=which,
        op=op,
        message=f"the session {shown(which)} is gone: {what}; create another one",
        reason="gone" if info.removed is None else "removed",
    )


async def _ended(client: UnixLocalSandboxClient, session: UnixLocalSandboxSession) -> None:
    await client.delete(session)
