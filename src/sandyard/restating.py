"""What a saved state may say by itself, and what the caller who resumes it has to say again.

A state is a document that anybody may have had in hand. It grants nothing. Where its workspace is, and
where that is kept, it says only while it bears a seal: an HMAC of these under a key that lies in the
user's state directory, where no command reaches it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandyard.changes import Layered, Overlay
from sandyard.errors import ArgumentError, ManifestError, PolicyError, shown
from sandyard.platform import is_within
from sandyard.snapshot.kinds import NoopSnapshot, SnapshotBase
from sandyard.workspace import WorkspaceRoot

if TYPE_CHECKING:
    from sandyard.manifest import Manifest
    from sandyard.policy import Policy
    from sandyard.state import UnixLocalSandboxSessionState

__all__ = [
    "check_grants",
    "check_named",
    "check_sources",
    "remove_key",
    "seal_state",
    "with_grants",
]

_KEY: Final = "key"
_KEY_BYTES: Final = 32
_VERSION: Final = 1
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARED: Final = stat.S_IRWXG | stat.S_IRWXO


def seal_state(directory: str, state: UnixLocalSandboxSessionState) -> None:
    """Seal a state. Blocks. Where the key can't be kept, the state has no seal.

    Args:
        directory: the user's state directory, which is there and the user's alone.
        state: what is sealed.
    """
    state.seal = ""
    with suppress(OSError):
        key = _made_key(directory)
        state.seal = f"{_seal_of(key, state)}.{_sources_seal(key, state)}"


def _has_seal(directory: str, state: UnixLocalSandboxSessionState) -> bool:
    """Tell whether a state bears the seal of what it says. Blocks.

    Args:
        directory: the user's state directory.
        state: what was read back, or copied.
    """
    try:
        key = _read_key(directory)
    except OSError:
        return False
    own = state.seal.partition(".")[0].encode(errors="replace")
    return hmac.compare_digest(_seal_of(key, state).encode(), own)


def check_named(
    directory: str,
    state: UnixLocalSandboxSessionState,
    root: object,
    snapshot: SnapshotBase | None,
) -> None:
    """Refuse places that only a saved state names, and ones that are not the state's. Blocks.

    Args:
        directory: the user's state directory.
        state: what was saved.
        root: the workspace's path, or the overlay over it, as the caller names it; None if not.
        snapshot: where it is kept, likewise.

    Raises:
        ArgumentError: neither the caller nor a seal says what the state says, or the caller says
            something else.
    """
    said: dict[str, tuple[object, object]] = {}
    sealed = _has_seal(directory, state)
    if root is not None:
        root = _checked_kind(state, root, sealed=sealed)
    if root is None:
        said["root"] = None, state.manifest.root
    elif state.workspace_layered:  # which is no place of the host's
        said["root"] = root, state.manifest.root
    else:
        said["root"] = WorkspaceRoot.check(root), WorkspaceRoot.check(state.manifest.root)
    if snapshot is not None or not isinstance(state.snapshot, NoopSnapshot):
        said["snapshot"] = snapshot, state.snapshot
    for argument, (given, own) in said.items():
        if given is None and not sealed:
            raise ArgumentError(
                f"the saved state's {argument} is {shown(own)}, and this user's state directory does not "
                "know that: the state was changed, or comes from elsewhere; a state can't choose a place: "
                f"if you mean it, give it to resume as {argument}=",
                op="resume",
                argument=argument,
                value=own,
            )
        if given is not None and given != own:
            raise ArgumentError(
                f"{argument} is {shown(given)}, and the saved state's is {shown(own)}; give the same, or "
                "create a session with this one",
                op="resume",
                argument=argument,
                value=given,
            )


def _checked_kind(state: UnixLocalSandboxSessionState, root: object, *, sealed: bool) -> object:
    """The path that a caller names, if what it names is of the state's kind.

    Raises:
        ArgumentError: only the state says that the path is no overlay's, or an overlay's, or that the
            workspace lies elsewhere.
    """
    problem = None
    if (
        Overlay if state.workspace_overlay else Layered if state.workspace_layered else None
    ) is not (type(root) if isinstance(root, Overlay | Layered) else None):
        own, other = "no overlay", "a path"
        if state.workspace_overlay:
            own, other = "an overlay", "Overlay(path)"
        elif state.workspace_layered:
            own, other = "on layers", "Layered()"
        problem = (
            f"the workspace is {own} by the saved state; if you mean that, give root as {other}"
        )
    elif state.workspace_root_path is not None and not sealed:
        problem = (
            f"the saved state says that the workspace lies at {shown(state.workspace_root_path)}, and "
            "this user's state directory does not know that: the state was changed, or comes from "
            "elsewhere; fork what was saved of the session instead"
        )
    if problem is not None:
        raise ArgumentError(problem, op="resume", argument="root", value=root)
    if isinstance(root, Layered):
        return state.manifest.root
    return root.path if isinstance(root, Overlay) else root


def _seal_of(key: bytes, state: UnixLocalSandboxSessionState) -> str:
    said: tuple[object, ...] = (
        _VERSION,
        str(state.session_id),
        state.manifest.root,
        state.workspace_root_owned,
        state.workspace_overlay,
        state.workspace_root_path,
        state.snapshot.model_dump(mode="json"),
    )
    if state.workspace_layered:  # a field that is younger than the first seals
        said += ("layered",)
    raw = json.dumps(said, sort_keys=True).encode()
    return hmac.digest(key, raw, hashlib.sha256).hex()


def check_sources(
    directory: str, state: UnixLocalSandboxSessionState, policy: Policy, base: str | None
) -> None:
    """Refuse to copy what only a saved state names: entries are made again where a workspace is gone.

    Args:
        directory: the user's state directory.
        state: what was saved.
        policy: what the caller grants.
        base: where relative sources begin; None for the working directory.

    Raises:
        PolicyError: the sources of its entries are not those that it was sealed with, and the policy does
            not show one of them.
    """
    sources = _sources_of(state)
    if not sources:
        return
    with suppress(OSError):
        own = state.seal.partition(".")[2].encode(errors="replace")
        if hmac.compare_digest(_sources_seal(_read_key(directory), state).encode(), own):
            return
    for place, source in sources:
        path = os.path.normpath(os.path.join(base or os.getcwd(), source))
        if not any(is_within(path, str(each)) for each in (*policy.reads, *policy.writes)):
            raise PolicyError(
                f"the saved state copies {shown(path)} to {shown(place)}, and this user's state directory "
                "does not know that: the state was changed, or comes from elsewhere; a state can't read "
                f"anything: if you mean it, resume with policy=Policy(reads=({path!r},))",
                field="reads",
                value=path,
            )


def _sources_of(state: UnixLocalSandboxSessionState) -> list[tuple[str, str]]:
    """What is copied from the host's disk: where to, and from where."""
    from sandyard.manifest import Archive, GitRepo, LocalDir, LocalFile  # noqa: PLC0415  # see the client

    found: list[tuple[str, str]] = []
    for place, entry in state.manifest.walk():
        if isinstance(entry, GitRepo):
            with suppress(ManifestError):  # one that is no repository is refused when it is made
                local = entry.repository().local
                if local is not None:
                    found.append((place, local))
        elif isinstance(entry, LocalFile | LocalDir | Archive) and entry.src is not None:
            found.append((place, os.fspath(entry.src)))
    return found


def _sources_seal(key: bytes, state: UnixLocalSandboxSessionState) -> str:
    raw = json.dumps((_VERSION, "sources", str(state.session_id), sorted(_sources_of(state))))
    return hmac.digest(key, raw.encode(), hashlib.sha256).hex()


def remove_key(directory: str) -> None:
    """Remove the key of a state directory in which nothing is left. Blocks.

    Raises:
        OSError: there is none, or it can't be removed.
    """
    os.unlink(os.path.join(directory, _KEY))


def _read_key(directory: str) -> bytes:
    file = os.open(os.path.join(directory, _KEY), _OPEN)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise PermissionError
        if facts.st_mode & _SHARED:
            raise PermissionError
        key = os.read(file, _KEY_BYTES)
    finally:
        os.close(file)
    if len(key) != _KEY_BYTES:
        raise PermissionError
    return key


def _made_key(directory: str) -> bytes:
    """The user's key; the first session of all makes it, whole or not at all."""
    with suppress(FileNotFoundError):
        return _read_key(directory)
    temporary = os.path.join(directory, f"{_KEY}-{secrets.token_hex(8)}")
    file = os.open(temporary, _CREATE, 0o600)
    try:
        try:
            os.write(file, secrets.token_bytes(_KEY_BYTES))
            os.fsync(file)
        finally:
            os.close(file)
        with suppress(FileExistsError):  # another program was faster
            os.link(temporary, os.path.join(directory, _KEY))
    finally:
        os.unlink(temporary)
    return _read_key(directory)


# --- grants -------------------------------------------------------------------------------------


def check_grants(policy: Policy, manifest: Manifest) -> None:
    """Refuse grants that only a saved state asks for: what is granted, a caller says in its program."""
    with_grants(policy, manifest)
    for grant in manifest.extra_path_grants:
        named = policy.writes if not grant.read_only else (*policy.reads, *policy.writes)
        if grant.path not in {str(each) for each in named}:
            how = "reads" if grant.read_only else "writes"
            raise PolicyError(
                f"the saved state grants {shown(grant.path)}, and the policy does not; a state can't "
                f"grant anything: if you mean it, resume with policy=Policy({how}=({grant.path!r},))",
                field=how,
                value=grant.path,
            )
    for place, entry in manifest.mounts():
        shows = entry.host_directory()
        if shows is None:
            continue
        source, writable = shows
        named = policy.writes if writable else (*policy.reads, *policy.writes)
        if not any(is_within(source, str(each)) for each in named):
            how = "writes" if writable else "reads"
            raise PolicyError(
                f"the saved state mounts {shown(source)} at {shown(place)}, and the policy does not "
                "grant it; a state can't grant anything: if you mean it, resume with "
                f"policy=Policy({how}=({source!r},))",
                field=how,
                value=source,
            )


def with_grants(policy: Policy, manifest: Manifest) -> Policy:
    """The policy with the manifest's extra grants, which bind commands too."""
    grants = manifest.extra_path_grants
    if any(grant.host_path is not None for grant in grants):
        raise ManifestError(
            "a grant's host_path can't be given: paths are the same inside and outside; give path",
            field="extra_path_grants",
        )
    if not grants:
        return policy
    reads = tuple(grant.path for grant in grants if grant.read_only)
    writes = tuple(grant.path for grant in grants if not grant.read_only)
    return dataclasses.replace(
        policy, reads=(*policy.reads, *reads), writes=(*policy.writes, *writes)
    )
