"""Placement: which of all the things that want a place inside stand where, and in which order.

Pure, without a look at the host. The rules:

1. What the sandbox needs for itself is not granted: its private directories, the kernel's trees,
   the files it builds in /etc, and everything that contains one of these.
2. At one path the workspace stands before writes, writes before reads, reads before toolchains, and
   these before the system; but a read of what the system shows anyway changes nothing.
3. The deeper of two nested paths decides for what lies beneath it, so a read within a writable tree
   makes that part read-only. Toolchains are found and not granted: within a writable tree they are
   left out, or a virtual environment in the workspace could not be installed into.
4. What is protected stands in what can be written to, read-only or only held in its place.
5. What is denied is denied within all of these; what was granted beneath it is left out.
6. What would show the same thing with the same rights as the tree around it is left out, and so is
   what the system would put where a granted tree already brings the host's own.
7. Parents come before children, so nothing covers what stands already.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sandyard.confinement.etc import BUILT_FILES
from sandyard.confinement.rootfs import KERNEL_TREES, PRIVATE_DIRECTORIES, SYSTEM_DIRECTORIES
from sandyard.errors import PolicyError
from sandyard.plan import Bind, Deny, Directory, Mask, MountStep, Private, Symlink, TextFile
from sandyard.planted import ProtectedPart
from sandyard.platform import Grant, Toolchains, is_beneath, is_within

__all__ = [
    "WorkspaceRoot",
    "add_denied",
    "add_grants",
    "add_protected",
    "add_toolchains",
    "add_workspace",
    "check_grant",
    "check_place",
    "give_workspace",
    "order_steps",
    "step_path",
]

_OWN: Final = (*PRIVATE_DIRECTORIES, *KERNEL_TREES, *BUILT_FILES)


@dataclass(frozen=True, slots=True)
class WorkspaceRoot:
    """The directory that a session works in.

    Attributes:
        path: where it appears inside, absolute and normalised.
        source: where it is on the host, without symlinks.
        inode: its ``(st_dev, st_ino)``.
        layered: True if what commands see is a layered tree over ``source``, which is handed over
            with the plan; nothing of ``source`` itself is shown then.
    """

    path: str
    source: str
    inode: tuple[int, int]
    layered: bool = False


def step_path(step: MountStep) -> str:
    """The path inside at which ``step`` puts something."""
    if isinstance(step, (Directory, TextFile, Symlink, Private)):
        return step.path
    return step.target


def add_toolchains(steps: dict[str, MountStep], toolchains: Toolchains) -> None:
    """Put toolchains where nothing else of the system stands.

    One that has been removed since it was found is left out.
    """
    for root in toolchains.roots:
        steps.setdefault(root, Bind(root, root, optional=True))
    for path in toolchains.masks:
        steps.setdefault(path, Mask(path))
    for path, target in toolchains.links:
        steps.setdefault(path, Symlink(path, target))


def add_grants(
    steps: dict[str, MountStep], grants: Collection[Grant], shown: Iterable[str]
) -> None:
    """Put what a policy grants over what stood at the same path.

    Args:
        steps: what stands so far, by path.
        grants: what is granted; of two at one place the one for writing counts.
        shown: the trees of the system; a read of one of them changes nothing.

    Raises:
        PolicyError: one of them can't be granted.
    """
    system = frozenset(shown)
    # False sorts before True: what is granted for writing comes later and stays.
    for grant in sorted(grants, key=lambda grant: grant.writable):
        check_grant(grant)
        if grant.writable or grant.source not in system:
            steps[grant.source] = Bind(
                grant.source,
                grant.source,
                writable=grant.writable,
                as_owner=True,
                inode=grant.inode,
            )
        if grant.path != grant.source:
            steps.setdefault(grant.path, Symlink(grant.path, grant.source))
    for grant in grants:
        _check_reachable(steps, grant.source, "writes" if grant.writable else "reads")


def add_workspace(steps: dict[str, MountStep], root: WorkspaceRoot) -> None:
    """Put the workspace in its place.

    Raises:
        PolicyError: it can't be one.
    """
    for path in dict.fromkeys((root.path, root.source)):
        if not path.startswith("/") or posixpath.normpath(path) != path:
            raise PolicyError(
                "the workspace's path is absolute and normalised", field="root", value=path
            )
        _check_free(path, "root")
        _check_unsystematic(path, "root")
    _check_reachable(steps, root.path, "root")
    if root.layered:
        _check_apart(steps, root)
    if root.path != root.source:
        # What is granted in the workspace binds under the name that commands use as well.
        for path, step in list(steps.items()):
            if isinstance(step, Bind) and step.as_owner and is_beneath(path, root.source):
                inside = root.path + path[len(root.source) :]
                steps[inside] = replace(step, target=inside)
    steps[root.path] = Bind(
        root.source,
        root.path,
        writable=True,
        as_owner=True,
        inode=root.inode,
        origin="passed" if root.layered else "host",
    )


def _check_apart(steps: Mapping[str, MountStep], root: WorkspaceRoot) -> None:
    """Refuse grants by which commands would reach what lies beneath a layered tree."""
    for step in steps.values():
        if not isinstance(step, Bind) or not step.as_owner:
            continue
        over = step.writable and is_within(root.source, step.source)
        if over or is_within(step.source, root.source):
            raise PolicyError(
                f"{step.source} is, contains or lies in {root.source}, over which the workspace is "
                "an overlay: by that path commands would reach what the overlay keeps from them; "
                "leave it out, since the overlay shows all of it",
                field="writes" if step.writable else "reads",
                value=step.source,
            )


def give_workspace(steps: dict[str, MountStep], root: WorkspaceRoot) -> None:
    """Show the workspace, and what is kept in it, with the owner that it has on the disk."""
    for path, step in list(steps.items()):
        if isinstance(step, Bind) and is_within(step.source, root.source):
            steps[path] = replace(step, as_owner=False)


def add_protected(steps: dict[str, MountStep], parts: Iterable[ProtectedPart]) -> frozenset[str]:
    """Put what is protected over what can be written to.

    A mount can't be renamed, removed or replaced (EBUSY), so one that shows what is there anyway
    holds it in its place.

    Returns:
        The paths that are held.
    """
    held = set()
    for part in parts:
        around = _deepest_bind(steps, part.path)
        if around is None or not around.writable:
            continue  # what is read-only around it holds all of it
        within = around.origin != "host"
        steps[part.path] = Bind(
            part.path if within else part.source,
            part.path,
            writable=not part.read_only,
            as_owner=True,
            inode=part.inode,
            origin="inside" if within else "host",
        )
        held.add(part.path)
    return frozenset(held)


def _deepest_bind(steps: Mapping[str, MountStep], path: str) -> Bind | None:
    while path:
        step = steps.get(path)
        if isinstance(step, Bind):
            return step
        path = path.rpartition("/")[0]
    return None


def add_denied(steps: dict[str, MountStep], denied: Iterable[str], root: WorkspaceRoot) -> None:
    """Put denials over all that stands.

    Args:
        denied: real paths on the host.

    Raises:
        PolicyError: without what is denied there would be no session.
    """
    for path in denied:
        if is_within(root.source, path):
            raise PolicyError(f"{path} is, or contains, the workspace", field="deny", value=path)
        _check_free(path, "deny")
        inside = root.path + path[len(root.source) :] if is_within(path, root.source) else path
        if any(
            isinstance(step, Deny) and is_within(inside, other) for other, step in steps.items()
        ):
            continue  # there is nothing left of it to deny
        for covered in [other for other in steps if is_within(other, inside)]:
            del steps[covered]
        steps[inside] = Deny(inside)


def order_steps(
    steps: Mapping[str, MountStep], workspace: str, held: frozenset[str] = frozenset()
) -> tuple[MountStep, ...]:
    """The steps that are needed, parents before children.

    Args:
        steps: what is to stand inside, by path.
        workspace: the path that is needed even where a tree around it shows the same thing, since
            its step also checks which directory it is.
        held: paths that are needed because a mount can't be moved.
    """
    kept: list[MountStep] = []
    around: list[tuple[str, Bind | Symlink]] = []
    # Sorted by components: a separator below every other character puts "/a/b" before "/a-b".
    for path in sorted(steps, key=lambda path: path.replace("/", "\0")):
        step = steps[path]
        while around and not path.startswith(around[-1][0]):
            around.pop()
        if isinstance(step, Deny) and not around:
            continue  # nothing of it is shown
        if (
            around
            and path != workspace
            and path not in held
            and _is_needless(step, path, around[-1][1])
        ):
            continue
        kept.append(step)
        # Only these bring something to places beneath them; rule 1 keeps the rest out of them.
        if isinstance(step, (Bind, Symlink)):
            around.append((path + "/", step))
    return tuple(kept)


def _is_needless(step: MountStep, path: str, around: Bind | Symlink) -> bool:
    """Whether ``step`` is left out because of ``around``, the nearest tree around it."""
    if isinstance(step, Deny):
        return False
    if isinstance(around, Symlink):
        return True
    if not isinstance(step, Bind):
        # Only the masks of toolchains and the system; whoever grants a tree grants all of it.
        return not isinstance(step, Mask) or around.as_owner
    if not step.as_owner and around.as_owner:
        return True
    same = step.source == around.source + path[len(around.target) :]
    return same and step.writable == around.writable and step.as_owner == around.as_owner


def check_grant(grant: Grant) -> None:
    """Refuse to show what the sandbox has of its own, or to let the system's trees be changed.

    Raises:
        PolicyError: it can't be granted.
    """
    check_place((grant.path, grant.source), writable=grant.writable)


def check_place(paths: Iterable[str], *, writable: bool) -> None:
    """The same of all the paths of one thing.

    Raises:
        PolicyError: it can't be granted.
    """
    field = "writes" if writable else "reads"
    for path in dict.fromkeys(paths):
        _check_free(path, field)
        if writable:
            _check_unsystematic(path, field)


def _check_free(path: str, field: str) -> None:
    """Refuse what the sandbox needs for itself."""
    for tree in KERNEL_TREES:
        if is_within(path, tree):
            raise PolicyError(
                f"{path} belongs to the kernel: the sandbox has a {tree} of its own",
                field=field,
                value=path,
            )
    for own in _OWN:
        if is_within(own, path):
            relation = "is" if own == path else f"contains {own}, which is"
            raise PolicyError(
                f"{path} {relation} the sandbox's own; name what is needed beneath it",
                field=field,
                value=path,
            )


def _check_reachable(steps: Mapping[str, MountStep], path: str, field: str) -> None:
    parent = path.rpartition("/")[0]
    while parent:
        if isinstance(steps.get(parent), Symlink):
            raise PolicyError(
                f"{path} lies beneath {parent}, which is a symlink inside; name the real path",
                field=field,
                value=path,
            )
        parent = parent.rpartition("/")[0]


def _check_unsystematic(path: str, field: str) -> None:
    if path in SYSTEM_DIRECTORIES:
        raise PolicyError(
            f"{path} belongs to the system and can't be written to; name a directory beneath it",
            field=field,
            value=path,
        )
