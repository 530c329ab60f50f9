"""What is raced: each verb of the file API, and a naive way to do the same."""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from sandyard.manifest import Dir, File, LocalDir, Manifest
from sandyard.patching import Operation, apply_diff
from sandyard.workspace.changing import change_mode, copy, move
from sandyard.workspace.extract import (
    Extraction,
    extract_archive,
    hydrate_workspace,
    unpack_into,
)
from sandyard.workspace.files import append, make_directory, read, read_range, remove, write
from sandyard.workspace.listing import (
    describe,
    exists,
    find_matches,
    is_same,
    list_directory,
    normalize,
)
from sandyard.workspace.materialize import apply_manifest
from sandyard.workspace.patches import carry_out
from sandyard.workspace.persist_stream import pack_part, persist_workspace
from sandyard.workspace.removal import empty_directory
from sandyard.workspace.transfer import Errand, download, upload
from sandyard.workspace.watching import Watcher
from tests.archive.making import item, tar_of
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


def check_range(root: WorkspaceRoot, where: str) -> None:
    assert SECRET not in read_range(root, f"{where}/secret", 0, 100)


def check_all(root: WorkspaceRoot, where: str) -> None:
    assert ONLY_OUTSIDE not in str(list_directory(root, where, recursive=True))


def check_glob(root: WorkspaceRoot, where: str) -> None:
    assert ONLY_OUTSIDE not in str(find_matches(root, "**/*", where))


def check_stat(root: WorkspaceRoot, where: str) -> None:
    entry = describe(root, f"{where}/secret")
    assert entry.path.startswith(f"{root.path}/")
    assert entry.size != len(SECRET)


def check_exists(root: WorkspaceRoot, where: str) -> None:
    assert not exists(root, f"{where}/{ONLY_OUTSIDE}")
    assert not is_same(root, f"{where}/{ONLY_OUTSIDE}", f"{where}/{ONLY_OUTSIDE}")


def check_copy(root: WorkspaceRoot, where: str) -> None:
    """Copy from what is under attack, and see what came."""
    copy(root, f"{where}/secret", "taken")
    assert SECRET not in content_of(os.path.join(root.path, "taken"))


def check_copy_tree(root: WorkspaceRoot, where: str) -> None:
    taken = f"taken-{secrets.token_hex(4)}"
    copy(root, where, taken, recursive=True)
    full = os.path.join(root.path, taken)
    assert not os.path.isdir(full) or ONLY_OUTSIDE not in os.listdir(full)
    remove(root, taken, recursive=True)


def copy_within(root: WorkspaceRoot, where: str) -> None:
    write(root, "mine/sub/file", b"evil")
    copy(root, "mine/sub/file", f"{where}/new")
    copy(root, "mine", f"{where}/tree-{secrets.token_hex(4)}", recursive=True)


def move_in(root: WorkspaceRoot, where: str) -> None:
    write(root, "mine", b"evil")
    move(root, "mine", f"{where}/new")


def move_out(root: WorkspaceRoot, where: str) -> None:
    move(root, f"{where}/secret", "taken")
    taken = os.path.join(root.path, "taken")
    if stat.S_ISREG(os.lstat(taken).st_mode):  # the attacker's device is not ours to open
        assert SECRET not in content_of(taken)


def check_patch(root: WorkspaceRoot, where: str) -> None:
    made = Operation("create_file", f"{where}/p/new", "+evil")
    carry_out(root, (made, Operation("delete_file", f"{where}/secret")), apply_diff)


def check_watch(root: WorkspaceRoot, where: str) -> None:
    """No watch is on a directory outside: the kernel lists their inodes (proc(5))."""
    outside = os.path.join(os.path.dirname(root.path), "outside")
    with Watcher.open(root, where, recursive=True) as watcher:
        watcher.take()
        with open(f"/proc/self/fdinfo/{watcher.descriptor}", encoding="ascii") as facts:
            watched = re.findall(r"^inotify .* ino:([0-9a-f]+)", facts.read(), re.MULTILINE)
    for path in (outside, f"{outside}/sub", f"{outside}/empty"):
        assert f"{os.stat(path).st_ino:x}" not in watched


def content_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


ARCHIVE = tar_of(item("new", b"evil"), item("sub/file", b"evil"), item("secret", b"evil"))


def unpack(root: WorkspaceRoot, where: str) -> None:
    extract_archive(root, f"{where}/a.tar", ARCHIVE, Extraction())


def restore(root: WorkspaceRoot, where: str) -> None:
    data = tar_of(item(f"./{where}/new", b"evil"), item(f"./{where}/sub/file", b"evil"))
    hydrate_workspace(root, data, None, Event())


def save(root: WorkspaceRoot, _: str) -> None:
    with persist_workspace(root, frozenset()) as archive:
        content = archive.read()
    assert SECRET not in content
    assert ONLY_OUTSIDE.encode() not in content


def pack(root: WorkspaceRoot, where: str) -> None:
    with pack_part(root, where, "packed") as archive:
        content = archive.read()
    assert SECRET not in content
    assert ONLY_OUTSIDE.encode() not in content


def unpack_there(root: WorkspaceRoot, where: str) -> None:
    unpack_into(root, where, ARCHIVE, None, Event())


def send(root: WorkspaceRoot, where: str) -> None:
    source = os.path.join(os.path.dirname(root.path), "source")
    upload(root, f"{source}/secret", f"{where}/secret", Errand())
    upload(root, source, f"{where}/sent", Errand())


def fetch(root: WorkspaceRoot, where: str) -> None:
    """Copy from what is under attack to the host, and see what came."""
    with tempfile.TemporaryDirectory() as top:
        download(root, where, f"{top}/tree", Errand())
        download(root, f"{where}/secret", f"{top}/file", Errand())
        assert SECRET not in content_of(f"{top}/file")
        if os.path.isdir(f"{top}/tree"):  # else a file stood there at that moment
            assert ONLY_OUTSIDE not in os.listdir(f"{top}/tree")
        else:
            assert SECRET not in content_of(f"{top}/tree")


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


def naive_append(base: Path) -> bool:
    with open(checked(base, "d/secret"), "ab") as file:
        file.write(b"evil")
    return False


def naive_mode(base: Path) -> bool:
    os.chmod(checked(base, "d/secret"), 0o600)
    return False


def naive_move(base: Path) -> bool:
    os.rename(checked(base, "d/secret"), base / f"taken-{secrets.token_hex(4)}")
    return False


def naive_stat(base: Path) -> bool:
    return os.stat(checked(base, "d/secret")).st_size == len(SECRET)


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
    "range": Verb(check_range, naive_read),
    "ls -R": Verb(check_all, naive_list),
    "glob": Verb(check_glob, naive_list),
    "stat": Verb(check_stat, naive_stat),
    "exists": Verb(check_exists, naive_list),
    "append": Verb(lambda root, d: append(root, f"{d}/secret", b"evil"), naive_append),
    "append new": Verb(lambda root, d: append(root, f"{d}/new", b"evil"), naive_write),
    "chmod": Verb(lambda root, d: change_mode(root, f"{d}/secret", 0o644), naive_mode),
    "mv in": Verb(move_in, naive_write),
    "mv out": Verb(move_out, naive_move),
    "cp": Verb(check_copy, naive_read),
    "cp -r": Verb(check_copy_tree, naive_list),
    "cp to": Verb(copy_within, naive_write),
    "patch": Verb(check_patch, naive_remove),
    "watch": Verb(check_watch, naive_list),
    "extract": Verb(unpack, naive_overwrite),
    "hydrate": Verb(restore, naive_write),
    "persist": Verb(save, naive_read),
    "pack": Verb(pack, naive_read),
    "unpack": Verb(unpack_there, naive_overwrite),
    "upload": Verb(send, naive_overwrite),
    "download": Verb(fetch, naive_read),
    "delete": Verb(lambda root, _: empty_directory(root.fd), naive_empty),
}
