"""Makes a private directory with its lease, for a sandbox that does one piece of work and goes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from uuid import UUID, uuid4

from sandyard.errors import WorkspaceStartError
from sandyard.finishing import finished, in_thread
from sandyard.manifest import Manifest
from sandyard.platform import state_directory
from sandyard.state import UnixLocalSandboxSessionState
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.lease import Lease

__all__ = ["make_spare"]


async def make_spare() -> tuple[UnixLocalSandboxSessionState, WorkspaceRoot, Lease]:
    """Make an empty private directory for a session, which takes all of it over.

    Raises:
        WorkspaceStartError: it can't be made, or there is no state directory.
    """
    session_id, undo = uuid4(), ExitStack()
    try:
        root, lease = await in_thread(_private_root, session_id, undo)
    except BaseException:
        await finished(in_thread(undo.close))  # nobody will hold what was made
        raise
    state = UnixLocalSandboxSessionState(
        session_id=session_id, manifest=Manifest(root=root.inside), workspace_root_owned=True
    )
    return state, root, lease


def _private_root(session_id: UUID, undo: ExitStack) -> tuple[WorkspaceRoot, Lease]:
    """Take the lease first, so that a program that is killed in between leaves what a sweep finds."""
    path = WorkspaceRoot.private_path()
    try:
        state = state_directory(os.environ)
    except OSError as error:
        raise WorkspaceStartError(path="sandyard", cause=error) from error
    lease = Lease.take(state, str(session_id), root=path, owned=True)
    undo.callback(lease.remove)
    root = WorkspaceRoot.create_private(path)
    undo.callback(root.close)
    undo.callback(root.delete)
    lease.note(root.inode)
    return root, lease
