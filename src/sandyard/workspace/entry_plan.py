"""The plan of a manifest: the steps that make its entries real, and which of them may go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandyard.errors import ManifestError, shown
from sandyard.manifest import Archive, Dir, File, GitRepo, LocalDir, LocalFile, Mount
from sandyard.manifest.entries import Copied
from sandyard.manifest.fetched import Repository
from sandyard.manifest.paths import ROOT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sandyard.manifest import BaseEntry, Manifest

__all__ = [
    "CopyClone",
    "CopyFile",
    "CopyTree",
    "MakeDirectory",
    "SetMode",
    "SetOwner",
    "Step",
    "UnpackArchive",
    "WriteFile",
    "clones_of",
    "in_waves",
    "plan_entries",
]

_PERMISSIONS: Final = 0o777
_OWN_USER: Final = "agent"


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory, with its parents; one that exists is fine."""

    path: str


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a file, with its parents.

    Attributes:
        path: where, beneath the root.
        content: its bytes.
        mode: its permission bits.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True)
class CopyFile:
    """Copy a file of the host; a mode of None keeps the source's."""

    path: str
    src: Path
    mode: int | None


@dataclass(frozen=True, slots=True)
class CopyTree:
    """Copy a directory of the host with what is meant of it; a mode of None keeps the source's.

    Attributes:
        path: where, beneath the root.
        src: the directory, as given.
        mode: permission bits of the copy itself.
        include: patterns of what is meant; none is everything.
        exclude: patterns of what is not.
        gitignore: whether .gitignore files in it are obeyed.
    """

    path: str
    src: Path
    mode: int | None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = False


@dataclass(frozen=True, slots=True)
class CopyClone:
    """Copy a repository that was cloned elsewhere."""

    path: str
    repository: Repository
    mode: int


@dataclass(frozen=True, slots=True)
class UnpackArchive:
    """Unpack an archive of the host, if it has the checksum; a mode of None keeps what it says."""

    path: str
    src: Path
    sha256: str | None
    mode: int | None


@dataclass(frozen=True, slots=True)
class SetMode:
    """Set the permissions of a directory, once everything in it is there."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class SetOwner:
    """Give something to other users of the session than its own.

    Attributes:
        path: what, beneath the root.
        owner: name of the user; None leaves it.
        group: name of the group; None is the user's own, or leaves it if there is no user.
        deep: whether all that is in it is given as well.
    """

    path: str
    owner: str | None
    group: str | None
    deep: bool


Step = (
    MakeDirectory | WriteFile | CopyFile | CopyTree | CopyClone | UnpackArchive | SetMode | SetOwner
)


def plan_entries(manifest: Manifest, *, only_ephemeral: bool = False) -> tuple[Step, ...]:
    """List the steps that make a manifest's entries real but its mounts; nothing is read or written.

    Entries come in declared order. Permissions of directories come after them, deepest first, since
    a read-only directory takes no files; and then owners, since only an owner sets permissions. The
    root itself keeps its permissions.

    Args:
        manifest: what should exist.
        only_ephemeral: True takes ephemeral entries alone, with all that is in them.

    Raises:
        ManifestError: an entry is of a kind, or has a field, that can't be applied.
        GitSubpathError: a subpath is no path in a repository.
    """
    steps: list[Step] = []
    modes: list[Step] = []
    owners: list[Step] = []
    for path, entry in _meant(manifest, only_ephemeral=only_ephemeral):
        if isinstance(entry, Mount):
            continue  # it is mounted when the sandbox stands
        step = _step(path, entry)
        steps.append(step)
        if isinstance(step, MakeDirectory) and path != ROOT_KEY:
            modes.append(SetMode(path, _bits(entry)))
        owners.extend(_owner(manifest, path, entry))
    return (*steps, *reversed(modes), *owners)


def _meant(manifest: Manifest, *, only_ephemeral: bool) -> Iterator[tuple[str, BaseEntry]]:
    """Give the entries that are to be made: an ephemeral directory is taken whole."""
    if not only_ephemeral:
        yield from manifest.walk()
        return
    taken: set[str] = set()
    for path, entry in manifest.walk():
        names = path.split("/")
        ways = {ROOT_KEY, *("/".join(names[:depth]) for depth in range(1, len(names)))}
        if entry.ephemeral or not taken.isdisjoint(ways):
            taken.add(path)
            yield path, entry


def _owner(manifest: Manifest, path: str, entry: BaseEntry) -> Iterator[SetOwner]:
    """The step that gives an entry to somebody else than the session's own user, if there is one.

    Raises:
        ManifestError: there is no such user or group inside.
    """
    if entry.owner is None and entry.group is None:
        return
    users = {user.name for user in manifest.users} | {_OWN_USER}
    users |= {user.name for group in manifest.groups for user in group.users}
    groups = users | {group.name for group in manifest.groups}
    for what, wanted, known in (("owner", entry.owner, users), ("group", entry.group, groups)):
        if wanted is not None and wanted.name not in known:
            place = "users" if what == "owner" else "groups"
            raise ManifestError(
                f"entry {shown(path)} has the {what} {shown(wanted.name)}, whom the session does not "
                f"have; name it in the manifest's {place}",
                field=what,
                entry=path,
            )
    owner = None if entry.owner is None else entry.owner.name
    group = None if entry.group is None else entry.group.name
    if {owner, group} <= {_OWN_USER, None}:
        return  # everything is
    yield SetOwner(path, owner, group, isinstance(entry, Copied | GitRepo))


def _step(path: str, entry: BaseEntry) -> Step:
    """Choose the step that makes one entry."""
    if isinstance(entry, File):
        return WriteFile(path, entry.content, _bits(entry))
    if isinstance(entry, LocalFile):
        return CopyFile(path, entry.src, _given_bits(entry))
    if isinstance(entry, LocalDir) and entry.src is not None:
        chosen = (entry.include, entry.exclude, entry.gitignore)
        return CopyTree(path, entry.src, _given_bits(entry), *chosen)
    if isinstance(entry, GitRepo):
        return CopyClone(path, entry.repository(), _bits(entry))
    if isinstance(entry, Archive):
        return UnpackArchive(path, entry.src, entry.sha256, _given_bits(entry))
    if isinstance(entry, Dir | LocalDir):
        return MakeDirectory(path)
    raise ManifestError(
        f"entry {shown(path)} is of type {shown(entry.type)}, which a local sandbox can't make",
        field="type",
        entry=path,
    )


def _bits(entry: BaseEntry) -> int:
    return entry.permissions.to_mode() & _PERMISSIONS


def _given_bits(entry: LocalFile | LocalDir | Archive) -> int | None:
    given = entry.given_permissions()
    return None if given is None else given.to_mode() & _PERMISSIONS


def clones_of(steps: Iterable[Step]) -> tuple[CopyClone, ...]:
    """The repositories that have to be cloned before the steps are carried out."""
    return tuple(step for step in steps if isinstance(step, CopyClone))


def in_waves(steps: Iterable[Step]) -> list[list[Step]]:
    """Put steps together that may be carried out in any order, and at the same time.

    Two steps must keep their order if one is about a path that the other's lies beneath, or the
    same; each comes into the first wave after those that it must follow.
    """
    waves: list[list[Step]] = []
    own: dict[str, int] = {}
    beneath: dict[str, int] = {}
    for step in steps:
        names = [] if step.path == ROOT_KEY else step.path.split("/")
        above = ["/".join(names[:depth]) for depth in range(len(names))]
        path = "/".join(names)
        last = max([own.get(path, -1), beneath.get(path, -1), *(own.get(up, -1) for up in above)])
        # A directory's parents are made by whoever comes first, so directories need no order.
        wave = last + 1
        while len(waves) <= wave:
            waves.append([])
        waves[wave].append(step)
        own[path] = wave
        for up in above:
            beneath[up] = max(beneath.get(up, -1), wave)
    return [wave for wave in waves if wave]
