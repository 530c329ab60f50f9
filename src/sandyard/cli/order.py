"""An order for one command: what the words of the command line mean, with paths made absolute."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sandyard import ArgumentError, LocalDir, Manifest, Overlay, Policy
from sandyard.cli.blueprint import read_manifest
from sandyard.manifest import DEFAULT_ROOT

__all__ = ["Order", "absolute_path", "existing_directory", "split_variables"]

_NOT_FOUND: Final = 127
"""The exit code of a program that does not exist."""


@dataclass(frozen=True, slots=True)
class Order:
    """One command and its surroundings.

    Attributes:
        command: its argv.
        workspace: the directory to work in, or None.
        copy: the directory whose copy to work in, or None. Without either the workspace is empty.
        policy: what it may touch.
        timeout: seconds that it may take, or None.
        listed: the file of a manifest that its workspace is made of, or None.
        user: whom it runs as, by name, or None for ``agent``.
        overlaid: whether it works on an overlay over the directory, which stays as it is.
        applies: whether what it changed is put into the directory, if it exits with 0.
        layered: whether its workspace lies upon layers.
        ports: on which its servers are reached from this machine.
    """

    command: tuple[str, ...]
    workspace: str | None
    copy: str | None
    policy: Policy
    timeout: float | None
    listed: str | None = None
    user: str | None = None
    overlaid: bool = False
    applies: bool = False
    ports: tuple[int, ...] = ()
    layered: bool = False

    def overlay(self) -> Overlay | None:
        """What its workspace is an overlay over, if it is one: the present directory, if none is named.

        Raises:
            ArgumentError: there is no such directory, or options exclude each other.
        """
        if not self.overlaid:
            if self.applies:
                raise _refusal("--apply goes with --try", "--apply", "")
            return None
        if self.copy is not None:
            raise _refusal("--copy and --try exclude each other", "--try", self.copy)
        if self.workspace is None:
            return Overlay(existing_directory(".", "--try"))
        return Overlay(existing_directory(self.workspace, "--workspace"))

    def manifest(self) -> tuple[Manifest, str | None]:
        """What its workspace is made of, and the directory where its sources lie, if it has any.

        Raises:
            ArgumentError: a directory or file does not exist, or options exclude each other.
            ManifestError: the file is no manifest.
        """
        self._check_layers()
        if self.copy is not None:
            for other, option in ((self.workspace, "--workspace"), (self.listed, "--manifest")):
                if other is not None:
                    raise _refusal(f"{option} and --copy exclude each other", "--copy", self.copy)
            path = _copied_directory(self.copy)
            return Manifest(entries={".": LocalDir(src=path)}), path
        manifest, sources = Manifest(), None
        if self.listed is not None:
            manifest, sources = read_manifest(self.listed)
        if self.workspace is not None:
            if manifest.root != DEFAULT_ROOT:
                raise _refusal(
                    f"--workspace and the root {manifest.root} of the manifest exclude each other",
                    "--workspace",
                    self.workspace,
                )
            path = existing_directory(self.workspace, "--workspace")
            if self.overlaid:
                return manifest, sources
            # With a slash at its end it is never "/workspace", the name for a private directory.
            manifest = manifest.model_copy(update={"root": path.rstrip("/") + "/"})
        return manifest, sources

    def advice(self, code: int) -> str | None:
        """What a command that failed with this code may have been meant to be; None if it is not known."""
        missing = code == _NOT_FOUND
        if missing and len(self.command) == 1 and len(self.command[0].split()) > 1:
            return "that is the name of one program; for a shell: sh -c 'TEXT'"
        if self.overlaid or (self.workspace, self.copy, self.listed) != (None, None, None):
            return None
        for word in self.command if missing else self.command[1:]:
            relative = not os.path.isabs(word) and os.path.normpath(word).strip("./")
            if relative and os.path.exists(word):
                return (
                    f"{shlex.quote(word)} is in your present directory, and the command's is an empty "
                    "one; to work on a copy of yours: --copy . and in itself: --workspace ."
                )
        return None

    def _check_layers(self) -> None:
        """Refuse layers in the place of a directory of the caller's."""
        if not self.layered:
            return
        for given, option in (
            (self.workspace is not None, "--workspace"),
            (self.overlaid, "--try"),
        ):
            if given:
                raise _refusal(f"{option} and --layered exclude each other", "--layered", "")


def absolute_path(text: str, option: str) -> str:
    """An absolute path for one that is given on the command line.

    Raises:
        ArgumentError: it is empty; or relative, and the present directory is gone.
    """
    if not text:
        raise _refusal(f"{option} needs a path, and this one is empty", option, text)
    path = text
    if not os.path.isabs(text):
        try:
            path = os.path.join(os.getcwd(), text)
        except OSError as error:
            raise _refusal(
                f"{option} {text}: it is relative, and your present directory can't be told "
                f"({error.strerror}); give an absolute path, or change to another directory",
                option,
                text,
            ) from error
    # What ".." means depends on the symlinks before it, so only the file system can tell.
    return os.path.realpath(path) if ".." in path.split("/") else os.path.normpath(path)


def existing_directory(text: str, option: str) -> str:
    """The path without symlinks of a directory that exists.

    Raises:
        ArgumentError: it does not, or it is none.
    """
    path = os.path.realpath(absolute_path(text, option))
    if not os.path.isdir(path):
        problem = "is no directory" if os.path.lexists(path) else "there is no such directory"
        raise _refusal(f"{option} {text}: {problem}", option, text)
    return path


def split_variables(
    given: Iterable[str],
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Tell variables that are given a value from those that have the host's; the last word counts."""
    values: dict[str, str] = {}
    names: dict[str, None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals:
            values[name] = value
            names.pop(name, None)
        else:
            names[name] = None
            values.pop(name, None)
    return tuple(values.items()), tuple(names)


def _copied_directory(text: str) -> str:
    path = existing_directory(text, "--copy")
    place = os.path.realpath(tempfile.gettempdir())
    if os.path.commonpath([path, place]) == path:
        raise _refusal(
            f"--copy {text}: the copy is made in {place}, which lies in it; set TMPDIR to another",
            "--copy",
            text,
        )
    return path


def _refusal(message: str, option: str, value: str) -> ArgumentError:
    return ArgumentError(message, op="create", argument=option, value=value)
