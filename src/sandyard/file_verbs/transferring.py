"""The verbs that bring files and trees of the host in, and out again."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from sandyard.errors import ArgumentError, ArgumentTypeError, ManifestError, OpName
from sandyard.observing import observed
from sandyard.types import User
from sandyard.verb_bases import WorkspaceVerbBase

if TYPE_CHECKING:
    from sandyard.workspace.copying_trees import Chosen
    from sandyard.workspace.progress import Hearer
    from sandyard.workspace.transfer import Transferred

__all__ = ["TransferVerbs"]


class TransferVerbs(WorkspaceVerbBase):
    """What a session copies from and to the host."""

    @observed("upload")
    async def upload(
        self,
        source: str | PurePath,
        path: str | PurePath,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        progress: Hearer | None = None,
        user: str | User | None = None,
    ) -> Transferred:
        """Copy a file or a directory of the host into the workspace.

        Content, permissions, times, empty directories, hard links and symlinks are kept. Files are
        replaced each whole or not at all; a directory is merged with one that is there.

        Args:
            source: any path of the host; a symlink is followed here, and not within a tree.
            path: the copy's path, relative to the workspace or absolute in it or in a granted
                directory; missing directories are made.
            include: of a directory, copies only what matches one of these patterns, or lies beneath
                it (default: everything). Patterns are those of .gitignore.
            exclude: of a directory, leaves out what matches one of these (default: nothing).
            gitignore: True leaves out what .gitignore files in the directory say (default: False).
            progress: called on the event loop with the newest ``Progress``.
            user: whom it is written as, and whose it is then: ``"agent"`` (default) or another user
                of the manifest's. The source is read as this program.

        Returns:
            What was written, and what was left out and why.

        Raises:
            LocalFileReadError, LocalDirReadError: the source can't be read, or changed meanwhile.
            WorkspaceArchiveWriteError: it can't be written; what was written before stays.
            PolicyDeniedError: a rule of the policy closes what would be changed.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
            ArgumentError, ArgumentTypeError: an argument is impossible.

        Example:
            >>> done = await session.upload("project", "src", gitignore=True)
            >>> done.files
            214
        """
        from sandyard.workspace.progress import tracked  # noqa: PLC0415  # not all use it
        from sandyard.workspace.transfer import Errand  # noqa: PLC0415  # likewise

        workspace = self._open_workspace("upload", user)
        _check_host_path("upload", "source", source)
        _check_hearer("upload", progress)
        chosen = _chosen("upload", include, exclude, gitignore=gitignore)
        errand = Errand(chosen, threading.Event(), tracked(progress))
        return await workspace.upload(source, path, errand)

    @observed("download")
    async def download(
        self,
        path: str | PurePath,
        destination: str | PurePath,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        outer_links: bool = False,
        progress: Hearer | None = None,
        user: str | User | None = None,
    ) -> Transferred:
        """Copy a file or a directory of the workspace to the host.

        Content, permissions, times, empty directories, hard links and symlinks are kept;
        set-user-id bits are not. Symlinks in the tree that lead out of it are left out, since they
        would lead to your files. Files are replaced each whole or not at all; a directory is merged
        with one that is there, which keeps its permissions, and no symlink in that is followed.

        What comes out was made by commands: ``session.review()`` tells what programs on your side
        would run of it by themselves.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory; a symlink
                is followed here, and not within a tree.
            destination: the copy's path, any of the host; missing directories are made.
            include: of a directory, copies only what matches one of these patterns, or lies beneath
                it (default: everything). Patterns are those of .gitignore.
            exclude: of a directory, leaves out what matches one of these (default: nothing).
            gitignore: True leaves out what .gitignore files in the directory say (default: False).
            outer_links: True copies symlinks that lead out of the directory as well (default:
                False).
            progress: called on the event loop with the newest ``Progress``.
            user: whom it is read as: ``"agent"`` (default) or another user of the manifest's. The
                copy is this program's.

        Returns:
            What was written, and what was left out and why.

        Raises:
            WorkspaceReadNotFoundError: there is no such file or directory.
            WorkspaceArchiveReadError: it can't be read, or not be written on the host; what was
                written before stays.
            PolicyDeniedError: the policy denies a part of it.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
            ArgumentError, ArgumentTypeError: an argument is impossible.

        Example:
            >>> done = await session.download("results", "out", exclude=["*.tmp"])
        """
        from sandyard.workspace.progress import tracked  # noqa: PLC0415  # not all use it
        from sandyard.workspace.transfer import Errand  # noqa: PLC0415  # likewise

        workspace = self._open_workspace("download", user)
        _check_host_path("download", "destination", destination)
        _check_hearer("download", progress)
        chosen = _chosen(
            "download", include, exclude, gitignore=gitignore, inner_links=not outer_links
        )
        errand = Errand(chosen, threading.Event(), tracked(progress))
        return await workspace.download(path, destination, errand)


def _check_host_path(op: OpName, argument: str, value: object) -> None:
    """Refuse what can't be a path of the host."""
    if not isinstance(value, str | PurePath):
        raise ArgumentTypeError(
            f"{argument} is a str or a path", op=op, argument=argument, value=value
        )
    try:
        raw = os.fsencode(value)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        raw = b""
    if not raw or b"\0" in raw:
        raise ArgumentError(f"{argument} is no path", op=op, argument=argument, value=value)


def _check_hearer(op: OpName, progress: object) -> None:
    if progress is not None and not callable(progress):
        raise ArgumentTypeError(
            "progress is called with what was done", op=op, argument="progress", value=progress
        )


def _chosen(
    op: OpName,
    include: Iterable[str],
    exclude: Iterable[str],
    *,
    gitignore: bool,
    inner_links: bool = False,
) -> Chosen:
    """What of a tree is meant.

    Raises:
        ArgumentError, ArgumentTypeError: a pattern means nothing.
    """
    from sandyard.manifest.selecting import checked_patterns, compile_rules  # noqa: PLC0415
    from sandyard.workspace.copying_trees import ALL, Chosen  # noqa: PLC0415

    rules = []
    for name, given in (("include", include), ("exclude", exclude)):
        if not isinstance(given, Iterable):
            raise ArgumentTypeError(
                f"{name} is a list of patterns", op=op, argument=name, value=given
            )
        try:
            patterns = checked_patterns(given if isinstance(given, str) else tuple(given))
        except ManifestError as error:
            raise ArgumentError(error.message, op=op, argument=name, value=given) from error
        rules.append(compile_rules(patterns))
    chosen = Chosen(rules[0], rules[1], gitignore, inner_links)
    return ALL if chosen == ALL else chosen
