"""Rules for the names and paths that a manifest may use."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path, PurePath

from sandyard.errors import InvalidManifestPathError, ManifestError, shown
from sandyard.limits import PATH_COMPONENT_BYTES, PATH_TOTAL_BYTES
from sandyard.manifest.base import plain_text

__all__ = ["ROOT_KEY", "absolute_path", "entry_key", "resolve_workspace_path"]

ROOT_KEY = "."
"""The key of an entry that is the workspace's root itself."""


def entry_key(key: object) -> str:
    """Return the key of an entry in its one normal form: ``a/b``, without ``.`` and ``//``.

    Names are otherwise kept as they are: backslashes, newlines and any Unicode are legal.

    Args:
        key: what the caller wrote, a str or a pure path.

    Raises:
        InvalidManifestPathError: it is absolute or has a ``..``.
        ManifestError: it is empty, of another type, too long, or no system call could carry it.
    """
    text = _text(key, "key")
    if not text:
        raise ManifestError(f"an entry's key is empty; use {ROOT_KEY!r} for the root itself")
    if text.startswith("/"):
        raise InvalidManifestPathError(rel=text, reason="absolute")
    names = [name for name in text.split("/") if name not in {"", "."}]
    if ".." in names:
        raise InvalidManifestPathError(rel=text, reason="escape_root")
    for name in names:
        _check_length(name, PATH_COMPONENT_BYTES, "name")
    normal = "/".join(names) or ROOT_KEY
    _check_length(normal, PATH_TOTAL_BYTES, "path")
    return normal


def absolute_path(path: object, what: str) -> str:
    """Return an absolute path in normal form, for ``root`` and grants.

    Args:
        path: what the caller wrote, a str or a pure path.
        what: the field's name for messages.

    Raises:
        ManifestError: it is relative, the root of the file system, too long, of another type, or
            no system call could carry it.
    """
    text = _text(path, what)
    if not text.startswith("/"):
        raise ManifestError(f"{what} must be an absolute path, not {shown(text)}", field=what)
    normal = "/" + posixpath.normpath(text).lstrip("/")
    if normal == "/":
        raise ManifestError(
            f"{what} {shown(text)} is the root of the file system; name a directory beneath it",
            field=what,
        )
    for name in normal.split("/"):
        _check_length(name, PATH_COMPONENT_BYTES, "name")
    _check_length(normal, PATH_TOTAL_BYTES, "path")
    return normal


def resolve_workspace_path(
    workspace_root: str | PurePath,
    rel: str | PurePath,
    *,
    allow_absolute_within_root: bool = False,
) -> Path:
    """Join a path to a workspace's root, and refuse one that leaves it.

    It holds nobody: links may change after it. The file verbs of a session do not need it, and hold.

    Args:
        workspace_root: the root.
        rel: the path; relative, without a ``..``.
        allow_absolute_within_root: True takes an absolute one as well, if it lies in the root, and its
            links lead into the root where that is on this machine.

    Raises:
        InvalidManifestPathError: it leaves the root (``escape_root``) or is absolute (``absolute``).
        ManifestError: no system call could carry it.
    """
    root, text = _text(workspace_root, "workspace_root"), _text(rel, "path")
    names = text.split("/")
    if not text.startswith("/"):
        if ".." in names:
            raise InvalidManifestPathError(rel=text, reason="escape_root")
        return Path(root, text)
    path, top = Path(posixpath.normpath(text)), Path(posixpath.normpath(root))
    within = allow_absolute_within_root and path.is_relative_to(top)
    if within and os.path.lexists(top):
        within = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top))
    if not within:
        raise InvalidManifestPathError(rel=text, reason="absolute")
    return path


def _text(path: object, what: str) -> str:
    if isinstance(path, PurePath):
        path = path.as_posix()
    if not isinstance(path, str):
        raise ManifestError(f"{what} must be a str or a path, not {shown(path)}")
    return plain_text(path, f"{what} {shown(path)}")


def _check_length(text: str, longest: int, what: str) -> None:
    size = len(text.encode())
    if size > longest:
        raise ManifestError(
            f"the {what} {shown(text)} has {size} bytes; the longest {what} has {longest}"
        )
