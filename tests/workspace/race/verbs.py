"""What is raced: each verb of the file API, and a naive way to do the same."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandyard.manifest import Dir, File, LocalDir, Manifest
from sandyard.workspace.files import list_directory, make_directory, normalize, read, remove, write
from sandyard.workspace.materialize import apply_manifest
from sandyard.workspace.removal import empty_directory
from tests.workspace.race.arena import ONLY_OUTSIDE, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandyard.workspace import WorkspaceRoot


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        ours: what the library does at a directory of the workspace.
        naive: the same with joined strings; True if it got something from outside.
    """

    ours: Callable[[WorkspaceRoot, str], object]
    naive: Callable[[Path], bool]


# --- ours -------------------------------------------------------------------------------------


def check_read(root: WorkspaceRoot, where: str) -> None:
    with read(root, f"{where}/secret") as reader:
        content = reader.read()
    assert SECRET not in content


def check_list(root: WorkspaceRoot, where: str) -> None:
    names = [entry.path.rpartition("/")[2] for entry in list_directory(root, where)]
    assert ONLY_OUTSIDE not in names


def check_normal(root: WorkspaceRoot, where: str) -> None:
    assert normalize(root, f"{where}/secret").is_relative_to(root.path)


def apply_files(root: WorkspaceRoot, where: str) -> None:
    children = {"new": File(content="evil"), "sub": Dir(children={"file": File(content="evil")})}
    apply_manifest(root, Manifest(entries={"d": Dir(children=children), "f": File(content=where)}))


def copy_source(root: WorkspaceRoot, _: str) -> None:
    base = os.path.dirname(root.path)
    apply_manifest(root, Manifest(entries={"d": LocalDir(src="source")}), base_dir=base)


def copy_attacked(root: WorkspaceRoot, _: str) -> None:
    """Copy from what is under attack, to where nobody attacks."""
    grants = Manifest(entries={"copy": LocalDir(src="d")})
    apply_manifest(root, grants, base_dir=root.path)
    copied = os.path.join(root.path, "copy")
    assert ONLY_OUTSIDE not in os.listdir(copied)
    for name in os.listdir(copied):
        path = os.path.join(copied, name)
        assert os.path.islink(path) or os.path.isdir(path) or SECRET not in content_of(path)


def content_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# --- naive ways -------------------------------------------------------------------------------


def checked(base: Path, path: str) -> str:
    """What many programs do: join, resolve, compare, and then use the string."""
    full = os.path.join(base, path)
    if not os.path.realpath(full).startswith(f"{base}/"):
        raise PermissionError(full)
    return full


def naive_read(base: Path) -> bool:
    return content_of(checked(base, "d/secret")) == SECRET


def naive_list(base: Path) -> bool:
    return ONLY_OUTSIDE in os.listdir(checked(base, "d"))


def naive_write(base: Path) -> bool:
    with open(checked(base, "d/new"), "wb") as file:
        file.write(b"evil")
    return False


def naive_overwrite(base: Path) -> bool:
    with open(checked(base, "d/secret"), "wb") as file:
        file.write(b"evil")
    return False


def naive_make(base: Path) -> bool:
    os.mkdir(checked(base, f"d/{secrets.token_hex(4)}"))
    return False


def naive_remove(base: Path) -> bool:
    os.unlink(checked(base, "d/secret"))
    return False


def naive_empty(base: Path) -> bool:
    full = checked(base, "d")
    for name in os.listdir(full):
        path = os.path.join(full, name)
        if not os.path.isdir(path):
            os.unlink(path)
    return False


def naive_normal(base: Path) -> bool:
    return not os.path.realpath(checked(base, "d/secret")).startswith(f"{base}/")


VERBS = {
    "read": Verb(check_read, naive_read),
    "ls": Verb(check_list, naive_list),
    "write": Verb(lambda root, d: write(root, f"{d}/new", b"evil"), naive_write),
    "overwrite": Verb(lambda root, d: write(root, f"{d}/secret", b"evil"), naive_overwrite),
    "mkdir": Verb(lambda root, d: make_directory(root, f"{d}/a/b", parents=True), naive_make),
    "rm": Verb(lambda root, d: remove(root, f"{d}/secret"), naive_remove),
    "rm -r": Verb(lambda root, d: remove(root, d, recursive=True), naive_empty),
    "normalize": Verb(check_normal, naive_normal),
    "apply": Verb(apply_files, naive_write),
    "copy": Verb(copy_source, naive_overwrite),
    "copy from": Verb(copy_attacked, naive_read),
    "delete": Verb(lambda root, _: empty_directory(root.fd), naive_empty),
}
